"""Waiting for what other processes do, and finding them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil

T = TypeVar("T")

PATIENCE_SECONDS = 30.0


def eventually(probe: Callable[[], T], what: str, patience: float = PATIENCE_SECONDS) -> T:
    """The first true answer of ``probe``; fails where there is none in time."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if answer := probe():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"never happened: {what}")


def runs(pid: int) -> bool:
    """Whether the process exists and is more than an entry that nobody has reaped."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def with_variable(name: str, value: str) -> list[psutil.Process]:
    """Running processes in whose environment ``name`` ends with ``value``."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(name, "").endswith(value) and runs(process.pid):
                found.append(process)
    return found


def pid_in(file: Path) -> int:
    """The process id that a script wrote into ``file``, once it has."""
    written = eventually(lambda: file.exists() and file.read_text().strip(), f"{file} is written")
    return int(written)
