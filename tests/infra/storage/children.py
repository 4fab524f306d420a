"""What child processes do that are killed in the middle."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from infra.storage import store
from tests.soaking import SOAK

# Kills come at each call of the system in a soak, and else at every fifth: each is a fork of the
# whole test process. Odd, as the tests take turns.
STRIDE = 1 if SOAK else 5
_KILLED = 9
_STEPS = ("os.", "shutil.", "open", "fcntl.")


def publish(uri: str, source: str, env: dict[str, str]) -> None:
    os.environ.update(env)
    store(uri).publish(Path(source))


def fetch(uri: str, destination: str, env: dict[str, str]) -> None:
    os.environ.update(env)
    store(uri).fetch(Path(destination))


def killed_at(step: int, action: Callable[[], object]) -> bool:
    """Do ``action`` in a child that ends itself before its ``step``-th call of the system."""
    pid = os.fork()
    if pid == 0:
        left = step

        def count(event: str, _: object) -> None:
            nonlocal left
            if event.startswith(_STEPS):
                left -= 1
                if left < 0:
                    os._exit(_KILLED)

        try:
            sys.addaudithook(count)
            action()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in {0, _KILLED}
    return status == _KILLED
