"""What processes use: processor time and memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import psutil


def tree(root: psutil.Process) -> list[psutil.Process]:
    """A process and all below it."""
    return [root, *root.children(recursive=True)]


def seconds(processes: Iterable[psutil.Process]) -> float:
    """Seconds of processor that processes have used."""
    used = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            used += times.user + times.system
    return used


def mebibytes(processes: Iterable[psutil.Process], kind: str) -> float:
    """Memory of processes: private (``uss``), or with their parts of what is shared (``pss``)."""
    used = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            used += getattr(process.memory_full_info(), kind) / 2**20
    return used
