"""Who executes a run: a file lock that the kernel lets go of when its holder dies.

It answers "does anybody still execute this run?" without heartbeats, clocks or process ids that
may be somebody else's by now, and it keeps a second executor out.
"""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import IO

from infra.home import Home

# Asking whether a lock is held takes it for a moment, so one refusal proves nothing.
_PATIENCE_SECONDS = 2.0
_RETRY_SECONDS = 0.005

_kept: list[IO[str]] = []
_scope: ContextVar[list[IO[str]]] = ContextVar("locks of this call", default=_kept)


class AlreadyExecutedError(RuntimeError):
    """Another process executes this run."""


def _path(home: Home, flow_run_id: str) -> Path:
    return home.runs / flow_run_id / "executor.lock"


@contextlib.contextmanager
def scope() -> Iterator[None]:
    """Let go, at the end, of every lock that is taken inside."""
    taken: list[IO[str]] = []
    token = _scope.set(taken)
    try:
        yield
    finally:
        _scope.reset(token)
        for file in taken:
            file.close()


def take(home: Home, flow_run_id: str) -> None:
    """Become the run's one executor, until the scope or else the process ends.

    It is kept beyond the flow's own function because Prefect learns of the run's end only
    afterwards, and until then the run must not look abandoned.

    Raises:
        AlreadyExecutedError: If another is.
    """
    path = _path(home, flow_run_id)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = path.open("w")
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                file.close()
                raise AlreadyExecutedError(flow_run_id) from None
            time.sleep(_RETRY_SECONDS)
        else:
            _scope.get().append(file)
            return


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
