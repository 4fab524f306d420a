"""File lock of the process that executes a run.

The kernel releases it when its holder dies. So it shows whether a run is still executed, without
heartbeats, clocks or reusable process ids, and it excludes a second executor.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import IO

from infra.home import Home

# The lock that a fork client acquires, then the inherited open file in its forked process.
PATH_VARIABLE = "MODELYARD_RUN_LOCK"
DESCRIPTOR_VARIABLE = "MODELYARD_RUN_LOCK_FD"

# A check acquires the lock for a moment, so one refusal proves nothing.
_PATIENCE_SECONDS = 2.0
_RETRY_SECONDS = 0.005

_kept: list[IO[str]] = []
_inherited: set[Path] = set()
_scope: ContextVar[list[IO[str]]] = ContextVar("locks of this call", default=_kept)


class AlreadyExecutedError(RuntimeError):
    """Another process executes this run."""


def path(home: Home, flow_run_id: str) -> Path:
    """Path of the run's lock file."""
    return home.runs / flow_run_id / "executor.lock"


def inherit(home: Home, flow_run_id: str) -> None:
    """Adopt the lock that the fork client passed to this process; else acquire it.

    Raises:
        AlreadyExecutedError: If another process holds it.
    """
    descriptor = os.environ.pop(DESCRIPTOR_VARIABLE, "")
    if not descriptor:
        acquire(home, flow_run_id)
        return
    os.set_inheritable(int(descriptor), False)
    _kept.append(os.fdopen(int(descriptor), "w"))
    _inherited.add(path(home, flow_run_id))


@contextlib.contextmanager
def scope() -> Iterator[None]:
    """Release, at the end, every lock acquired within."""
    taken: list[IO[str]] = []
    token = _scope.set(taken)
    try:
        yield
    finally:
        _scope.reset(token)
        for file in taken:
            file.close()


def acquire(home: Home, flow_run_id: str) -> None:
    """Acquire the run's lock, until the scope or else the process ends.

    It is held beyond the flow's own function, because Prefect learns of the run's end only
    afterwards, and until then the run must not look abandoned.

    Raises:
        AlreadyExecutedError: If another process holds it.
    """
    lock = path(home, flow_run_id)
    if lock in _inherited:
        return
    file = _open_locked(lock)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while file is None:
        if time.monotonic() > deadline:
            raise AlreadyExecutedError(flow_run_id)
        time.sleep(_RETRY_SECONDS)
        file = _open_locked(lock)
    _scope.get().append(file)


def _open_locked(lock: Path) -> IO[str] | None:
    """Open and lock the lock file; None if it is held. It never exists unlocked at first."""
    with contextlib.suppress(FileNotFoundError):
        return _locked(lock.open("r+"))
    lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=lock.parent, prefix=lock.name)
    try:
        file = _locked(os.fdopen(descriptor, "r+"))
        os.link(name, lock)
    except FileExistsError:
        return None
    finally:
        Path(name).unlink()
    return file


def _locked(file: IO[str]) -> IO[str] | None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def is_held(home: Home, flow_run_id: str) -> bool | None:
    """Whether a process executes the run; None if none on this machine ever did."""
    try:
        with path(home, flow_run_id).open("r") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    except FileNotFoundError:
        return None
    return False
