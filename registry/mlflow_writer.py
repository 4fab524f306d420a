"""Write to MLflow runs from a background thread, so that no caller waits for MLflow.

One rule for everything that is written:

- Writes of a run arrive in the order in which they were made. Metrics and parameters are batched:
  they wait for what follows, half a second at most.
- A transient failure (no connection, a retryable status, an unreadable answer) is retried until
  :meth:`MlflowWriter.close` runs out of time.
- A batch that MLflow refuses is sent again in its parts, so that one bad name costs nothing else.
- Whatever MLflow refuses for good, or has not accepted by the end of ``close``, is reported.
- A deleted run is reported once; later writes to it are dropped.
"""

from __future__ import annotations

import math
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from infra.http_status import is_retryable
from infra.mlflow import Metric, MlflowClient, MlflowException, artifacts
from registry.tracking import Tracked, reopen_run

T = TypeVar("T")

_FLUSH_SECONDS = 0.5
_RETRY_SECONDS = 1.0
_UNREADABLE = (FileNotFoundError, PermissionError, NotADirectoryError, ValueError)
# MLflow takes 1000 metrics, 100 parameters and 100 tags in a request, 1000 of all together.
_METRICS_PER_BATCH = 800
_OTHERS_PER_BATCH = 100
_LONGEST_PARAMETER = 6000
_LATEST_TIME = 2**53 / 1000  # scripts write any time into event files
_MOST_REPORTED = 10


@dataclass(frozen=True)
class MetricValue:
    """A value of a metric.

    Attributes:
        name: The metric.
        value: The value; NaN and infinities are allowed.
        step: Its step.
        at: Its time, in seconds since 1970.
    """

    name: str
    value: float
    step: int
    at: float

    def entity(self) -> Metric:
        """Convert to MLflow's own type; a time out of range becomes the present."""
        at = self.at if 0 <= self.at < _LATEST_TIME else time.time()
        return Metric(self.name, self.value, int(at * 1000), self.step)


@dataclass
class _Batch:
    """Metrics, parameters and tags of one run that are sent in one request.

    Attributes:
        metrics: The metrics.
        params: The parameters.
        tags: The tags.
        due: ``time.monotonic()`` at which it is sent, if nothing has sent it before.
    """

    metrics: list[Metric] = field(default_factory=list)
    params: list[tuple[str, str]] = field(default_factory=list)
    tags: list[tuple[str, str]] = field(default_factory=list)
    due: float = 0.0

    def parts(self) -> list[_Batch]:
        """Split by kind; empty if there is only one kind."""
        parts = [_Batch(metrics=self.metrics), _Batch(params=self.params), _Batch(tags=self.tags)]
        parts = [part for part in parts if part.metrics or part.params or part.tags]
        return parts if len(parts) > 1 else []


@dataclass(frozen=True)
class _Write:
    """A queued write.

    Attributes:
        name: Its name in warnings.
        perform: Does it; called again after a transient failure.
        on_written: Called once MLflow has accepted it.
    """

    name: str
    perform: Callable[[], None]
    on_written: Callable[[], None] = lambda: None


_WAKE = _Write("", lambda: None)  # something is pending, and due in a while


class MlflowWriter:
    """Writes to MLflow runs in a background thread; several threads may use one writer."""

    def __init__(
        self, warn: Callable[[str], object], *, flush_seconds: float | None = None
    ) -> None:
        """Start the thread.

        Args:
            warn: Receives what MLflow refuses or never accepts.
            flush_seconds: The longest that metrics and parameters wait for what they can be sent
                with; half a second by default.
        """
        self._warn = warn
        self._flush_seconds = _FLUSH_SECONDS if flush_seconds is None else flush_seconds
        self._uri = os.environ["MLFLOW_TRACKING_URI"]
        self._client = MlflowClient(self._uri)
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._pending: dict[str, _Batch] = {}
        self._steps: dict[tuple[str, str], int] = {}
        self._artifact_uris: dict[str, str] = {}
        self._deleted: set[str] = set()
        self._missing: list[str] = []
        self._current = ""
        self._out_of_time = threading.Event()
        self._gave_up = False
        self._thread = threading.Thread(target=self._work, daemon=True, name="mlflow-writer")
        self._thread.start()

    def track(self, tracked: Tracked) -> None:
        """Continue the steps of a run's metrics from those that it has."""
        with self._lock:
            self._steps |= {(tracked.run_id, name): step for name, step in tracked.steps.items()}

    def reopen(self, run_id: str) -> Mapping[str, int]:
        """Reopen the run of an earlier attempt; the next step of each of its metrics.

        Raises:
            MlflowException: If the run is deleted, or MLflow does not answer.
        """
        tracked = reopen_run(run_id)
        self.track(tracked)
        return tracked.steps

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Queue parameters; sent with the metrics that follow."""
        entities = [(key, str(value)[:_LONGEST_PARAMETER]) for key, value in params.items()]
        with self._lock:
            self._batch(run_id).params += entities

    def log_metric(
        self,
        run_id: str,
        name: str,
        value: float,
        step: int | None = None,
        at: float | None = None,
    ) -> None:
        """Queue a value of a metric.

        Args:
            run_id: The run.
            name: The metric's name.
            value: The value.
            step: Its step; the one after the metric's largest by default.
            at: Its time, in seconds since 1970; now by default.
        """
        with self._lock:
            key = (run_id, name)
            step = self._steps.get(key, 0) if step is None else step
            self._steps[key] = max(step + 1, self._steps.get(key, 0))
            metrics = self._batch(run_id).metrics
            metrics.append(
                MetricValue(name, value, step, time.time() if at is None else at).entity()
            )
            full = len(metrics) == _METRICS_PER_BATCH
        if full:
            self._queue.put(self._flushing(run_id))

    def _batch(self, run_id: str) -> _Batch:
        """The pending batch of a run; a new one wakes the thread, which waits for nothing else."""
        if run_id not in self._pending:
            self._pending[run_id] = _Batch(due=time.monotonic() + self._flush_seconds)
            self._queue.put(_WAKE)
        return self._pending[run_id]

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Queue tags, sent after what was queued for the run before."""
        self._queue.put(self._flushing(run_id, tags))

    def end_run(
        self, run_id: str, status: str, tags: Mapping[str, str], log: Path | None = None
    ) -> None:
        """Queue the end of a run.

        Args:
            run_id: The run.
            status: MLflow's status: ``FINISHED``, ``FAILED`` or ``KILLED``.
            tags: Set before the run is ended.
            log: A file to upload to its folder ``logs``, if it exists.
        """
        ended_at = int(time.time() * 1000)

        def end() -> None:
            self._send(run_id, tags)
            if run_id not in self._deleted:
                info = self._client.update_run(run_id, status, end_time=ended_at)
                self._artifact_uris[run_id] = info.artifact_uri

        def upload() -> None:
            if run_id not in self._deleted and log is not None:
                self.upload(run_id, log, "logs")

        self._queue.put(_Write(f"the end of run {run_id}", end))
        if log is not None and log.exists():
            self._queue.put(_Write(f"the log of run {run_id}", upload))

    def submit(
        self,
        name: str,
        perform: Callable[[], None],
        on_written: Callable[[], None] = lambda: None,
    ) -> None:
        """Queue a write that uses :meth:`write_metrics`, :meth:`write_tags` and :meth:`upload`.

        Args:
            name: Its name in warnings, such as ``the outputs``.
            perform: Does it; called again after a transient failure.
            on_written: Called once MLflow has accepted it.
        """
        self._queue.put(_Write(name, perform, on_written))

    def write_metrics(self, run_id: str, values: Sequence[MetricValue]) -> None:
        """Send values of metrics now; for use in a submitted write."""
        for at in range(0, len(values), _METRICS_PER_BATCH):
            batch = [value.entity() for value in values[at : at + _METRICS_PER_BATCH]]
            self._client.log_batch(run_id, batch)

    def write_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Send tags now; for use in a submitted write."""
        self._client.log_batch(run_id, tags=tags.items())

    def upload(self, run_id: str, path: Path, folder: str) -> None:
        """Upload a file, or a folder's content, now; for use in a submitted write.

        Args:
            run_id: The run.
            path: The file or folder on this machine.
            folder: The folder among the run's artifacts; "" for the top.
        """
        if run_id not in self._artifact_uris:
            self._artifact_uris[run_id] = self._client.get_run(run_id).info.artifact_uri
        repository = artifacts.repository(self._artifact_uris[run_id], self._uri)
        if path.is_dir():
            repository.log_artifacts(str(path), folder or None)
        else:
            repository.log_artifact(str(path), folder or None)

    def close(self, seconds: float, hint: str = "") -> list[str]:
        """Send what is queued, and stop; warn of what MLflow has not accepted.

        Args:
            seconds: The longest that this takes. Failures are retried for half of it.
            hint: Added to the warning.

        Returns:
            The names of the writes that MLflow has not accepted.
        """
        self._queue.put(None)
        self._thread.join(seconds / 2)
        self._out_of_time.set()
        self._thread.join(seconds / 2)
        missing = [*self._missing, *([self._current] if self._thread.is_alive() else [])]
        while not self._queue.empty():
            write = self._queue.get()
            missing += [write.name] if write is not None and write is not _WAKE else []
        missing = list(dict.fromkeys(missing))
        if missing:
            more = f" and {len(missing) - _MOST_REPORTED} more" if missing[_MOST_REPORTED:] else ""
            listed = ", ".join(missing[:_MOST_REPORTED])
            self._warn(f"MLflow has not received {listed}{more}. {hint}".rstrip())
        return missing

    def _work(self) -> None:
        while True:
            try:
                write = self._queue.get(timeout=self._seconds_until_due())
            except queue.Empty:
                pass
            else:
                if write is None:
                    self._flush(math.inf)
                    return
                self._perform(write)
            self._flush(time.monotonic())

    def _seconds_until_due(self) -> float | None:
        """Seconds until a batch is due; None if there is none."""
        with self._lock:
            due = min((batch.due for batch in self._pending.values()), default=None)
        return None if due is None else max(0.0, due - time.monotonic())

    def _flush(self, now: float) -> None:
        """Send what is due."""
        with self._lock:
            runs = [run_id for run_id, batch in self._pending.items() if batch.due <= now]
        for run_id in runs:
            self._perform(self._flushing(run_id))

    def _flushing(self, run_id: str, tags: Mapping[str, str] | None = None) -> _Write:
        what = "tags" if tags else "metrics and parameters"
        return _Write(f"{what} of run {run_id}", lambda: self._send(run_id, tags or {}))

    def _perform(self, write: _Write) -> None:
        self._current = write.name
        if self._retry(write):
            write.on_written()
        else:
            self._missing.append(write.name)

    def _retry(self, write: _Write) -> bool:
        """Retry a write on transient failures; whether MLflow has accepted it.

        Out of time, the first failure ends all: each further one could take as long.
        """
        while not self._gave_up:
            try:
                write.perform()
            except Exception as error:  # noqa: BLE001 (the edge of the loop)
                if is_permanent(error):
                    self._warn(f"MLflow has not accepted {write.name}: {error}")
                    return False
                self._gave_up = self._out_of_time.wait(_RETRY_SECONDS)
            else:
                return True
        return False

    def _send(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Send what is pending for a run; on a failure it is pending again, in its order."""
        with self._lock:
            pending = self._pending.pop(run_id, None) or _Batch()
        batches = _cut(pending, list(tags.items()))
        while batches and run_id not in self._deleted:
            try:
                batch = batches[0]
                self._client.log_batch(run_id, batch.metrics, batch.params, batch.tags)
            except BaseException as error:
                if not is_permanent(error):
                    self._put_back(run_id, batches)
                    raise
                batches[1:1] = self._parts_of_refused(run_id, batches[0], error)
            del batches[0]

    def _parts_of_refused(self, run_id: str, batch: _Batch, error: BaseException) -> list[_Batch]:
        """Batches to send instead of one that MLflow refuses."""
        if isinstance(error, MlflowException) and is_deleted(error):
            self._deleted.add(run_id)
            self._warn(f"The MLflow run {run_id} is deleted: nothing more is written to it.")
            return []
        parts = batch.parts()
        if not parts:
            self._warn(f"MLflow refuses values of run {run_id}: {error}")
        return parts

    def _put_back(self, run_id: str, batches: list[_Batch]) -> None:
        with self._lock:
            since = self._pending.setdefault(run_id, _Batch())
            since.metrics[:0] = [metric for batch in batches for metric in batch.metrics]
            since.params[:0] = [param for batch in batches for param in batch.params]


def is_permanent(error: BaseException) -> bool:
    """Whether a retry would fail as well: a refusal, or a local file that cannot be read."""
    if isinstance(error, MlflowException):
        return _is_refusal(error.status_code)
    response = getattr(error, "response", None)  # of requests, where MLflow does not wrap it
    if response is not None:
        return _is_refusal(response.status_code)
    return isinstance(error, _UNREADABLE)


def is_deleted(error: MlflowException) -> bool:
    """Whether MLflow answers that the run is deleted, or never existed."""
    return error.is_missing or "in the 'active' state" in str(error)


def _is_refusal(status: int) -> bool:
    return status >= 400 and not is_retryable(status)


def _cut(pending: _Batch, tags: list[tuple[str, str]]) -> list[_Batch]:
    """Cut into requests that MLflow accepts; tags come last, when all else has arrived."""
    batches = [_Batch(metrics=one) for one in _chunks(pending.metrics, _METRICS_PER_BATCH)]
    batches += [_Batch(params=one) for one in _chunks(pending.params, _OTHERS_PER_BATCH)]
    batches += [_Batch(tags=one) for one in _chunks(tags, _OTHERS_PER_BATCH)]
    if sum(bool(kind) for kind in (pending.metrics, pending.params, tags)) == len(batches):
        # One of each kind fits into a single request.
        return [_Batch(pending.metrics, pending.params, tags)] if batches else []
    return batches


def _chunks(items: list[T], size: int) -> list[list[T]]:
    return [items[at : at + size] for at in range(0, len(items), size)]
