"""Orphaned processes of a dead stack, found by a mark in their environment.

Leashes end all processes of a stack with it. If a leash is killed as well, its processes are found
by this mark, which every process of the stack and every script inherits.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

import psutil

from infra.home import Home

VARIABLE = "MODELYARD_PART"
_RUN_VARIABLE = "MODELYARD_RUN"
_GRACE_SECONDS = 5.0


def mark(home: Home, part: str) -> dict[str, str]:
    """Build the variables that mark a process as part of the stack in ``home``."""
    return {VARIABLE: f"{part}@{home.root}"}


def inherited_mark() -> dict[str, str]:
    """Return the mark of this process's own part, for its children; none outside a stack."""
    return {VARIABLE: os.environ[VARIABLE]} if VARIABLE in os.environ else {}


def run_mark(home: Home, flow_run_id: str) -> dict[str, str]:
    """Build the variables that mark a process as part of a run in ``home``."""
    return {_RUN_VARIABLE: f"{flow_run_id}@{home.root}"}


def _marked(home: Home, variable: str) -> list[tuple[psutil.Process, str]]:
    """List other processes with a mark of this home, each with the mark's value."""
    suffix = f"@{home.root}"
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            value = process.environ().get(variable, "")
            if value.endswith(suffix) and process.pid != os.getpid():
                found.append((process, value.removesuffix(suffix)))
    return found


def end(home: Home) -> int:
    """End every process that bears the mark of this home; how many there were."""
    count = 0
    deadline = time.monotonic() + _GRACE_SECONDS
    while (found := _marked(home, VARIABLE)) and time.monotonic() < deadline:
        count += len(found)
        _kill([process for process, _ in found])
    return count


def end_part(home: Home, part: str) -> int:
    """End what is left of one part, so that it can start again; how many processes there were."""
    left = [process for process, name in _marked(home, VARIABLE) if name == part]
    _kill(left)
    return len(left)


def end_runs(home: Home, alive: Callable[[str], bool]) -> int:
    """End every script's process whose run is not ``alive`` any more; how many there were."""
    orphans = [process for process, run in _marked(home, _RUN_VARIABLE) if not alive(run)]
    _kill(orphans)
    return len(orphans)


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=1)
