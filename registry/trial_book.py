"""What trials leave in MLflow, written in a thread of its own, so that no trial waits for MLflow.

A trial that runs beside its tuning waits for nothing that MLflow does but the making of its run,
whose id its script is told.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.tracking.rest_store import RestStore
from mlflow.utils.credentials import get_default_host_creds

from registry.tracking import REASON_TAG, STATE_TAG, reopen_run
from registry.trial_runs import is_gone, is_refused

_FLUSH_SECONDS = 0.5
_LARGEST_BATCH = 1000  # of metrics, parameters and tags together
_KEPT_FOR_OTHERS = 200  # of a batch that has more than metrics
_RETRY_SECONDS = 1.0
_LONGEST_PARAMETER = 6000
_LATEST = 2**53 / 1000  # a script writes times into event files as it likes

# MLflow's word for a run in each state that is final.
_STATUSES = {
    "SUCCEEDED": "FINISHED",
    "EARLY_STOPPED": "FINISHED",
    "KILLED": "KILLED",
    "FAILED": "FAILED",
    "METRICS_UNAVAILABLE": "FAILED",
}


@dataclass
class _Waiting:
    """What is to be sent to a run."""

    metrics: list[Metric] = field(default_factory=list)
    parameters: list[Param] = field(default_factory=list)


@dataclass(frozen=True)
class _Batch:
    """What is sent to a run in one request."""

    metrics: list[Metric]
    parameters: list[Param] = field(default_factory=list)
    tags: list[RunTag] = field(default_factory=list)

    def parts(self) -> list[_Batch]:
        """The same in a request for each kind; none if there is one kind only."""
        found = [
            _Batch(self.metrics),
            _Batch([], self.parameters),
            _Batch([], [], self.tags),
        ]
        found = [one for one in found if one.metrics or one.parameters or one.tags]
        return found if len(found) > 1 else []


class TrialBook:
    """Writes to the MLflow runs of trials, in order; several threads may use it.

    What MLflow cannot take now is tried again. What it refuses for good is given up, and nothing
    else because of it.
    """

    def __init__(self, warn: Callable[[str], object]) -> None:
        """Begin to write; ``warn`` is told what is given up."""
        self._warn = warn
        self._uri = os.environ["MLFLOW_TRACKING_URI"]
        # MLflow's client asks for the run before it ends it or uploads to it; this does not.
        self._store = RestStore(lambda: get_default_host_creds(self._uri))
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._waiting: dict[str, _Waiting] = {}
        self._steps: dict[tuple[str, str], int] = {}
        self._gone: set[str] = set()
        self._lock = threading.Lock()
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True, name="trials in MLflow")
        self._thread.start()

    def begin(self, run_id: str, parameters: Mapping[str, Any]) -> None:
        """Write what a trial tries, with the first metrics that it reports."""
        told = [Param(key, str(value)[:_LONGEST_PARAMETER]) for key, value in parameters.items()]
        with self._lock:
            self._waiting.setdefault(run_id, _Waiting()).parameters += told

    def resume(self, run_id: str) -> Mapping[str, int]:
        """Go on with the run of an earlier attempt; the next step of each metric that it has.

        Raises:
            MlflowException: If it is gone, or MLflow cannot be asked.
        """
        steps = reopen_run(run_id).steps
        with self._lock:
            self._steps |= {(run_id, name): step for name, step in steps.items()}
        return steps

    def observe(
        self, run_id: str, name: str, value: float, step: int | None, at: float | None
    ) -> None:
        """Write a value of a metric; without a step it gets the next one, without a time now."""
        when = at if at is not None and 0 <= at < _LATEST else time.time()
        with self._lock:
            key = (run_id, name)
            step = self._steps.get(key, 0) if step is None else step
            self._steps[key] = max(step + 1, self._steps.get(key, 0))
            waiting = self._waiting.setdefault(run_id, _Waiting()).metrics
            waiting.append(Metric(name, value, int(when * 1000), step))
            full = len(waiting) == _LARGEST_BATCH
        if full:
            self._queue.put(lambda: self._send(run_id))

    def mark(self, run_id: str, state: str, reason: str) -> None:
        """Write how a trial has ended, beside what its run says itself."""
        self._queue.put(lambda: self._send(run_id, _tags(state, reason)))

    def conclude(self, run_id: str, state: str, reason: str, log: Path) -> None:
        """Write how a trial has ended, end its run, and keep its log, if there is one."""
        ended = int(time.time() * 1000)
        status = RunStatus.from_string(_STATUSES[state])

        def write() -> None:
            self._send(run_id, _tags(state, reason))
            if run_id in self._gone:
                return
            found = self._store.update_run_info(run_id, status, ended, None)
            if log.exists():
                logs = get_artifact_repository(f"{found.artifact_uri}/logs", self._uri)
                logs.log_artifact(str(log))

        self._queue.put(write)

    def close(self, timeout: float) -> bool:
        """Write what is left, for ``timeout`` seconds at most; whether MLflow has got it all."""
        self._queue.put(None)
        self._thread.join(timeout / 2)
        self._hurry.set()
        self._thread.join(timeout / 2)
        if self._thread.is_alive():
            self._warn("MLflow does not answer: it has not got everything about the trials.")
        return not self._thread.is_alive()

    def _write(self) -> None:
        flushed = time.monotonic()
        while True:
            try:
                write = self._queue.get(timeout=_FLUSH_SECONDS)
            except queue.Empty:
                pass
            else:
                if write is None:
                    self._flush()
                    return
                self._attempt(write)
            if time.monotonic() - flushed > _FLUSH_SECONDS:
                self._flush()
                flushed = time.monotonic()

    def _flush(self) -> None:
        with self._lock:
            runs = list(self._waiting)
        for run_id in runs:
            self._attempt(lambda run_id=run_id: self._send(run_id))  # type: ignore[misc]

    def _attempt(self, write: Callable[[], None]) -> None:
        """Do it until it is done; once there is a hurry, it is tried once."""
        while True:
            try:
                write()
            except OSError as error:
                self._warn(f"A trial's log was not kept: {error}")
            except Exception as error:  # noqa: BLE001 (the edge of the loop)
                if not _is_refused(error) and not self._hurry.wait(_RETRY_SECONDS):
                    continue
                self._warn(f"MLflow did not take what a trial left: {error}")
            return

    def _send(self, run_id: str, tags: list[RunTag] | None = None) -> None:
        """Send what waits for a run; after a failure it waits again, before what came since."""
        with self._lock:
            found = self._waiting.pop(run_id, None) or _Waiting()
        batches = _batches(found, tags or [])
        while batches and run_id not in self._gone:
            first = batches[0]
            try:
                self._store.log_batch(run_id, first.metrics, first.parameters, first.tags)
            except BaseException as error:
                if not _is_refused(error):
                    self._put_back(run_id, batches)
                    raise
                batches[1:1] = self._refused(run_id, first, error)
            del batches[0]

    def _refused(self, run_id: str, batch: _Batch, error: BaseException) -> list[_Batch]:
        """What is sent instead of a batch that MLflow refuses: its parts, if it has several."""
        if isinstance(error, MlflowException) and is_gone(error):
            self._gone.add(run_id)
            self._warn(f"MLflow has the run {run_id} of a trial no more.")
            return []
        parts = batch.parts()
        if not parts:
            self._warn(f"MLflow refuses what a trial left: {error}")
        return parts

    def _put_back(self, run_id: str, batches: list[_Batch]) -> None:
        with self._lock:
            since = self._waiting.setdefault(run_id, _Waiting())
            since.metrics[:0] = [metric for batch in batches for metric in batch.metrics]
            since.parameters[:0] = [one for batch in batches for one in batch.parameters]


def _tags(state: str, reason: str) -> list[RunTag]:
    return [RunTag(STATE_TAG, state), *([RunTag(REASON_TAG, reason)] if reason else [])]


def _batches(found: _Waiting, tags: list[RunTag]) -> list[_Batch]:
    """What waits, cut into requests; the tags come with the last, when all else is there."""
    size = _LARGEST_BATCH - _KEPT_FOR_OTHERS
    cuts = [found.metrics[at : at + size] for at in range(0, len(found.metrics), size)]
    batches = [_Batch(metrics) for metrics in cuts]
    if found.parameters or tags:
        last = batches.pop().metrics if batches else []
        batches.append(_Batch(last, found.parameters, tags))
    return batches


def _is_refused(error: BaseException) -> bool:
    return isinstance(error, MlflowException) and is_refused(error)
