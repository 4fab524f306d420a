"""Logs of runs: a training's script log wherever it is, otherwise the lines in Prefect."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from infra import home as homes
from infra.mlflow import MlflowException
from infra.mlflow.artifacts import ArtifactRepository
from infra.workloads.process_group import LineSplitter
from registry import tracking
from registry.runs import runs
from tasks.run_directory import RunDirectory

_FOLDER = "logs"
_OF_A_NODE = re.compile(rf"{_FOLDER}/train-node-(\d+)\.log")
_PIECE_BYTES = 2**16
_POLL_SECONDS = 0.5
_LAST_LINES_SECONDS = 1.0


class PrefectLines:
    """The lines that Prefect has of a run, each once."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._shown = 0

    def new(self) -> Iterator[str]:
        """Yield the lines that have come since the last call."""
        while lines := runs.logs(self._run_id, after=self._shown):
            self._shown += len(lines)
            yield from lines


class _ScriptLog:
    """The log file of a run's script on this machine, each line once."""

    def __init__(self, run_id: str) -> None:
        self.file = RunDirectory(homes.current().runs / run_id).log
        self._position = 0
        self._lines = LineSplitter()

    def new(self) -> Iterator[str]:
        """Yield the lines that were written since the last call."""
        with self.file.open("rb") as file:
            file.seek(self._position)
            while piece := file.read(_PIECE_BYTES):
                self._position += len(piece)
                yield from self._lines.feed(piece)

    def rest(self) -> list[str]:
        """Return the last line, if it has no end."""
        return self._lines.close()


def read(run_id: str) -> Iterator[str]:
    """Yield the lines that a run's log has now.

    A script's log is its file on this machine, or that among the artifacts of its MLflow run,
    which is there once the run has ended. Without either, the lines are those that Prefect has.

    Args:
        run_id: The flow run.

    Raises:
        MlflowException: If MLflow does not answer.
    """
    script = _ScriptLog(run_id)
    if script.file.exists():
        yield from script.new()
        yield from script.rest()
        return
    repository, names = _artifacts(run_id)
    if repository is None or not names:
        yield from PrefectLines(run_id).new()
        return
    for name in names:
        node = _OF_A_NODE.fullmatch(name)
        prefix = f"[node {node[1]}] " if node else ""
        yield from (f"{prefix}{line}" for line in _split(repository.read(name)))


def follow(run_id: str, pause: Callable[[float], None] = time.sleep) -> Iterator[str]:
    """Yield the lines of a run's log as they come, until it has ended.

    Where the script's log is not on this machine, or not yet, the lines are those that Prefect
    has.

    Args:
        run_id: The flow run.
        pause: Waits for so many seconds.
    """
    if runs.ended(run_id):
        yield from read(run_id)
        return
    script, prefect = _ScriptLog(run_id), PrefectLines(run_id)
    ended = False
    while not ended:
        ended = runs.ended(run_id)
        if ended:  # Prefect's last lines arrive just after the final state
            pause(_LAST_LINES_SECONDS)
        lines = [] if script.file.exists() else list(prefect.new())
        # Prefect has the lines of a script as well: its file decides, once it is there.
        yield from script.new() if script.file.exists() else lines
        if not ended:
            pause(_POLL_SECONDS)
    yield from script.rest()


def _artifacts(run_id: str) -> tuple[ArtifactRepository | None, list[str]]:
    """Return where the artifacts of a run are, and the names of its script's logs there."""
    mlflow_run_id = runs.mlflow_run_id(run_id)
    if mlflow_run_id is None:
        return None, []
    try:
        repository = tracking.client().repository(mlflow_run_id)
        found = [one.path for one in repository.list_artifacts(_FOLDER)]
    except MlflowException as error:
        if not error.is_missing:
            raise
        return None, []
    head = f"{_FOLDER}/{RunDirectory(Path()).log.name}"
    named = [name for name in sorted(found) if name == head or _OF_A_NODE.fullmatch(name)]
    return repository, sorted(named, key=lambda name: name != head)


def _split(pieces: Iterable[bytes]) -> Iterator[str]:
    lines = LineSplitter()
    for piece in pieces:
        yield from lines.feed(piece)
    yield from lines.close()
