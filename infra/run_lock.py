"""Who executes a run: a file lock that the kernel lets go of when its holder dies.

It answers "does anybody still execute this run?" without heartbeats, clocks or process ids that
may be somebody else's by now, and it keeps a second executor out.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from infra.home import Home


class AlreadyExecutedError(RuntimeError):
    """Another process executes this run."""


def _path(home: Home, flow_run_id: str) -> Path:
    return home.runs / flow_run_id / "executor.lock"


@contextlib.contextmanager
def holding(home: Home, flow_run_id: str) -> Iterator[None]:
    """Be the run's one executor for the while.

    Raises:
        AlreadyExecutedError: If there is one.
    """
    path = _path(home, flow_run_id)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyExecutedError(flow_run_id) from None
        yield


def held(home: Home, flow_run_id: str) -> bool | None:
    """Whether somebody executes the run now; None if nobody on this machine ever did."""
    try:
        with _path(home, flow_run_id).open("r") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    except FileNotFoundError:
        return None
    return False
