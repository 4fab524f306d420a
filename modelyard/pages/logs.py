"""Logs of runs: the last lines of a failed one for its page, and the whole of any."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from starlette.responses import FileResponse, Response, StreamingResponse

from infra.errors import NotFoundError, StackError
from registry.runs import statuses
from registry.runs.run_views import RunView
from tasks.run_directory import RunDirectory

_TAIL = 20
_AT_ONCE = 200  # Prefect's own limit
_MOST = 50_000
_TYPE = "text/plain; charset=utf-8"
_ENDING = "Finished in state "  # Prefect's own line, which repeats the state's message


class LogSource(Protocol):
    """Prefect's lines: see ``servers.Servers``."""

    def run(self, run_id: str) -> RunView | None:
        """A run."""

    def log(self, run_id: str, limit: int, *, after: int = 0, newest: bool = False) -> list[str]:
        """Lines of its log."""


def address(run_id: str) -> str:
    """Return the path of a run's whole log."""
    return f"/runs/{run_id}/log"


def tail(servers: LogSource, run: RunView) -> tuple[str, ...]:
    """Return the last lines of a failed run; none of another, or that its message has already."""
    if not statuses.is_failure(run.state):
        return ()
    try:
        lines = servers.log(run.id, _TAIL, newest=True)
    except StackError:
        return ()  # the page says so
    told = tuple(line for line in lines if not line.startswith(_ENDING))
    return () if told and told[-1] in run.message else told


def whole(runs: Path, servers: LogSource, run_id: str) -> Response:
    """Return the whole log of a run, as ``modelyard runs logs`` prints it on this machine.

    Args:
        runs: The folder of the runs' folders.
        servers: Prefect.
        run_id: The run.

    Raises:
        NotFoundError: If there is no such run.
        StackError: If Prefect does not answer.
    """
    script = RunDirectory(runs / run_id).log
    if script.is_file():
        return FileResponse(script, media_type=_TYPE)
    if servers.run(run_id) is None:
        raise NotFoundError(
            f"There is no run {run_id}.", "modelyard runs list shows those there are."
        )
    lines = _lines(servers, run_id)
    first = list(itertools.islice(lines, 1))  # what is silent is told by a page
    return StreamingResponse(
        (f"{line}\n" for line in itertools.chain(first, lines)), media_type=_TYPE
    )


def _lines(servers: LogSource, run_id: str) -> Iterator[str]:
    for after in range(0, _MOST, _AT_ONCE):
        lines = servers.log(run_id, _AT_ONCE, after=after)
        yield from lines
        if len(lines) < _AT_ONCE:
            return
    yield f"The first {_MOST} lines. All of them: modelyard runs logs {run_id}"
