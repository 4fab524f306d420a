"""A double of Docker's command, first on PATH."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

_FAKE = Path(__file__).with_name("fake_docker.py")


def on_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the double on PATH; ``folder``, where it keeps its state."""
    program = folder / "docker"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -I {_FAKE} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("FAKE_DOCKER", str(folder))
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder
