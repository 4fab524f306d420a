"""What child processes do that are killed in the middle."""

from __future__ import annotations

import os
from pathlib import Path

from infra.storage import store


def publish(uri: str, source: str, env: dict[str, str]) -> None:
    os.environ.update(env)
    store(uri).publish(Path(source))


def fetch(uri: str, destination: str, env: dict[str, str]) -> None:
    os.environ.update(env)
    store(uri).fetch(Path(destination))
