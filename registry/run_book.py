"""What a run leaves in MLflow beside its end, written in a thread of its own: nobody waits.

What MLflow cannot take now is tried again until the book is closed.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import Metric, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.tracking.rest_store import RestStore
from mlflow.utils.credentials import get_default_host_creds

from registry.trial_runs import is_refused

_RETRY_SECONDS = 1.0
_LARGEST_BATCH = 1000
_TRY_AGAIN = frozenset({408, 429})
_UNREADABLE = (FileNotFoundError, PermissionError, NotADirectoryError, ValueError)

# What is written, and what is done when MLflow has it.
_Entry = tuple[str, Callable[[], None], Callable[[], None]]


@dataclass(frozen=True)
class Value:
    """A value of a metric.

    Attributes:
        name: The metric.
        value: A finite number.
        step: Its step.
        at: When it was, in seconds since 1970.
    """

    name: str
    value: float
    step: int
    at: float


class RunBook:
    """Writes to one MLflow run, in order; several threads may use it."""

    def __init__(self, run_id: str, warn: Callable[[str], object]) -> None:
        """Begin to write; ``warn`` is told what MLflow refuses for good."""
        self._run_id = run_id
        self._warn = warn
        self._uri = os.environ["MLFLOW_TRACKING_URI"]
        self._store = RestStore(lambda: get_default_host_creds(self._uri))
        self._artifacts = ""
        self._queue: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._hurry = threading.Event()
        self._missing: list[str] = []
        self._at_work = ""
        self._thread = threading.Thread(target=self._write, daemon=True, name="run in MLflow")
        self._thread.start()

    def add(
        self, what: str, write: Callable[[], None], done: Callable[[], None] = lambda: None
    ) -> None:
        """Queue something; returns at once.

        Args:
            what: What it is, for people: named if it is missing in the end.
            write: Writes it by means of the book's other methods; done again where it failed.
            done: Called when MLflow has it.
        """
        self._queue.put((what, write, done))

    def metrics(self, values: Sequence[Value]) -> None:
        """Write values of metrics, within what was queued."""
        told = [Metric(one.name, one.value, int(one.at * 1000), one.step) for one in values]
        for at in range(0, len(told), _LARGEST_BATCH):
            self._store.log_batch(self._run_id, told[at : at + _LARGEST_BATCH], [], [])

    def tags(self, tags: Mapping[str, str]) -> None:
        """Write tags, within what was queued."""
        told = [RunTag(key, value) for key, value in tags.items()]
        self._store.log_batch(self._run_id, [], [], told)

    def file(self, path: Path, folder: str) -> None:
        """Upload a file, or what is in a folder, within what was queued.

        Args:
            path: It, on this machine.
            folder: Where it goes among the run's artifacts; "" for the top.
        """
        if not self._artifacts:
            self._artifacts = self._store.get_run(self._run_id).info.artifact_uri
        repository = get_artifact_repository(self._artifacts, self._uri)
        if path.is_dir():
            repository.log_artifacts(str(path), folder or None)
        else:
            repository.log_artifact(str(path), folder or None)

    def close(self, seconds: float) -> list[str]:
        """Write what is left, for so long at most; what MLflow has not got."""
        self._queue.put(None)
        self._thread.join(seconds)
        self._hurry.set()
        self._thread.join(_RETRY_SECONDS)
        left = [*self._missing, *([self._at_work] if self._thread.is_alive() else [])]
        while not self._queue.empty():
            entry = self._queue.get()
            left += [entry[0]] if entry is not None else []
        return left

    def _write(self) -> None:
        while (entry := self._queue.get()) is not None:
            what, write, done = entry
            self._at_work = what
            if self._hurry.is_set() or not self._attempt(what, write):
                self._missing.append(what)
            else:
                done()

    def _attempt(self, what: str, write: Callable[[], None]) -> bool:
        """Do it until it is done, or there is a hurry; whether MLflow has it."""
        while True:
            try:
                write()
            except Exception as error:  # noqa: BLE001 (the edge of the loop)
                if _is_final(error):
                    self._warn(f"MLflow has not taken {what}: {error}")
                    return False
                if self._hurry.wait(_RETRY_SECONDS):
                    return False
            else:
                return True


def _is_final(error: Exception) -> bool:
    """Whether trying again would change nothing."""
    if isinstance(error, MlflowException):
        return is_refused(error)
    response = getattr(error, "response", None)  # of what MLflow's client does not wrap
    if response is not None:
        return 400 <= response.status_code < 500 and response.status_code not in _TRY_AGAIN
    return isinstance(error, _UNREADABLE)
