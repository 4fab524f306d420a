"""The metrics of a server: its requests, its models and its processes."""

from __future__ import annotations

import math
import os
import resource
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modelyard_runtime import predictions
from modelyard_runtime.frames import Columns
from modelyard_runtime.server import metrics
from modelyard_runtime.server.metric_cells import CellFile
from modelyard_runtime.server.metrics import (
    CounterCell,
    HistogramCells,
    MetricFamily,
    MetricKind,
    Metrics,
)
from modelyard_runtime.server.observation import ModelObserver, RequestRecord

_SECONDS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
)  # fmt: skip
_ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0)
_COUNTER, _GAUGE, _HISTOGRAM = MetricKind.COUNTER, MetricKind.GAUGE, MetricKind.HISTOGRAM
_OF_MODEL = ("model", "version")
_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
_REFRESH_SECONDS = 1.0
_MOST_CLASSES = 100
OTHER_CLASSES = "__other__"

REQUESTS = MetricFamily(
    "modelyard_requests", _COUNTER,
    "Requests that were answered; code is the HTTP status, or the name of gRPC's.",
    ("protocol", "method", "model", "code"),
)  # fmt: skip
REQUEST_SECONDS = MetricFamily(
    "modelyard_request_duration_seconds", _HISTOGRAM,
    "Time from a request's headers to its answer.", ("protocol", "method", "model"), _SECONDS,
)  # fmt: skip
IN_FLIGHT = MetricFamily(
    "modelyard_requests_in_flight", _GAUGE, "Requests being answered, this one among them."
)
QUEUE_SECONDS = MetricFamily(
    "modelyard_queue_duration_seconds", _HISTOGRAM,
    "Time that a request waited until it was predicted.", _OF_MODEL, _SECONDS,
)  # fmt: skip
PREDICT_SECONDS = MetricFamily(
    "modelyard_predict_duration_seconds", _HISTOGRAM,
    "Time that the model took for a batch.", _OF_MODEL, _SECONDS,
)  # fmt: skip
BATCH_ROWS = MetricFamily(
    "modelyard_batch_rows", _HISTOGRAM, "Rows that were predicted together.", _OF_MODEL, _ROWS
)
QUEUE_REQUESTS = MetricFamily(
    "modelyard_queue_requests", _GAUGE, "Requests that wait to be predicted.", _OF_MODEL
)
REFUSED = MetricFamily(
    "modelyard_requests_refused", _COUNTER,
    "Requests that were refused because too many waited.", _OF_MODEL,
)  # fmt: skip
OVERDUE = MetricFamily(
    "modelyard_requests_overdue", _COUNTER,
    "Requests that were given up because they took too long.", _OF_MODEL,
)  # fmt: skip
PREDICTIONS = MetricFamily(
    "modelyard_predictions", _COUNTER,
    f"Rows that were predicted as a class; {OTHER_CLASSES} has those of what is beyond the first "
    f"{_MOST_CLASSES} classes.",
    (*_OF_MODEL, "class"),
)  # fmt: skip
CONFIDENCE = MetricFamily(
    "modelyard_prediction_confidence", _HISTOGRAM,
    "Probability of the class that a row was predicted as.", _OF_MODEL, _SHARES,
)  # fmt: skip
CLASS_CONFIDENCE = MetricFamily(
    "modelyard_class_confidence", _HISTOGRAM,
    "The same for each class: the sum, and the number of rows.", (*_OF_MODEL, "class"),
)  # fmt: skip
MODEL_READY = MetricFamily(
    "modelyard_model_ready", _GAUGE, "Processes in which the model is loaded.", _OF_MODEL
)
LOAD_SECONDS = MetricFamily(
    "modelyard_model_load_seconds", _GAUGE,
    "Time that the model took to load, in the slowest process.", _OF_MODEL, combine=max,
)  # fmt: skip
CPU_SECONDS = MetricFamily(
    "process_cpu_seconds", _COUNTER, "Processor time of all processes, of user and system."
)
MEMORY_BYTES = MetricFamily(
    "process_resident_memory_bytes", _GAUGE, "Resident memory of all processes."
)
START_SECONDS = MetricFamily(
    "process_start_time_seconds", _GAUGE, "When the oldest process started, since 1970.",
    combine=min,
)  # fmt: skip

FAMILIES = (
    REQUESTS, REQUEST_SECONDS, IN_FLIGHT, QUEUE_SECONDS, PREDICT_SECONDS, BATCH_ROWS,
    QUEUE_REQUESTS, REFUSED, OVERDUE, PREDICTIONS, CONFIDENCE, CLASS_CONFIDENCE, MODEL_READY,
    LOAD_SECONDS, CPU_SECONDS, MEMORY_BYTES, START_SECONDS,
)  # fmt: skip


class ServerMetrics:
    """The metrics of a server: counts its requests, and has a :class:`ModelMetrics` per model."""

    reads_scopes = False

    def __init__(self, folder: Path | None = None) -> None:
        """Count in ``folder``, which the server's processes share; None for the only one.

        Raises:
            OSError: If nothing can be written there.
        """
        self._metrics = Metrics(FAMILIES, CellFile(folder))
        self._requests: dict[tuple[str, ...], tuple[CounterCell, HistogramCells]] = {}
        self._lock = threading.Lock()
        self._in_flight = self._metrics.gauge(IN_FLIGHT)
        self._cpu = self._metrics.gauge(CPU_SECONDS)
        self._cpu_before = self._cpu.value  # of processes that have ended
        self._memory = self._metrics.gauge(MEMORY_BYTES)
        self._metrics.gauge(START_SECONDS).set(time.time())
        self._refreshed = 0.0

    def of_model(self, name: str, version: str) -> ModelMetrics:
        """The metrics of a model."""
        return ModelMetrics(self._metrics, name, version)

    def on_begin(self, _: RequestRecord) -> None:
        """A request is there."""
        with self._lock:  # requests of gRPC begin in threads
            self._in_flight.add()

    def on_end(self, record: RequestRecord) -> None:
        """It is answered."""
        with self._lock:
            self._in_flight.add(-1.0)
        key = (record.protocol, record.method, record.model, record.code)
        found = self._requests.get(key)
        if found is None:
            found = self._requests[key] = (
                self._metrics.counter(REQUESTS, *key),
                self._metrics.histogram(REQUEST_SECONDS, *key[:3]),
            )
        count, seconds = found
        count.add()
        seconds.observe(record.seconds)
        # Other processes show these numbers, and cannot ask for them.
        if record.began > self._refreshed + _REFRESH_SECONDS:
            self._refresh()

    def expose(self, accept: str) -> tuple[bytes, str]:
        """The text of all metrics, and its type, as a header ``Accept`` prefers it."""
        self._refresh()
        is_open = metrics.accepts_open_metrics(accept)
        kind = metrics.OPEN_METRICS if is_open else metrics.PROMETHEUS_TEXT
        return self._metrics.expose(open_metrics=is_open), kind

    def _refresh(self) -> None:
        self._refreshed = time.perf_counter()
        self._cpu.set(self._cpu_before + time.process_time())
        self._memory.set(float(_resident_bytes()))


class ModelMetrics(ModelObserver):
    """The metrics of one model."""

    def __init__(self, written: Metrics, name: str, version: str) -> None:
        """Count the model of a name and version."""
        labels = (name, version)
        self._queue_seconds = written.histogram(QUEUE_SECONDS, *labels)
        self._predict_seconds = written.histogram(PREDICT_SECONDS, *labels)
        self._rows = written.histogram(BATCH_ROWS, *labels)
        self._waiting = written.gauge(QUEUE_REQUESTS, *labels)
        self._refused = written.counter(REFUSED, *labels)
        self._overdue = written.counter(OVERDUE, *labels)
        self._ready = written.gauge(MODEL_READY, *labels)
        self._load_seconds = written.gauge(LOAD_SECONDS, *labels)
        self._predictions = PredictionMetrics(written, name, version)

    def on_loaded(self, seconds: float) -> None:
        """The model is loaded, which took ``seconds``."""
        self._ready.set(1.0)
        self._load_seconds.set(seconds)

    def on_waiting(self, requests: int) -> None:
        """So many requests wait now."""
        self._waiting.set(float(requests))

    def on_refused(self) -> None:
        """A request is refused, because too many wait."""
        self._refused.add()

    def on_overdue(self) -> None:
        """A request is given up, because it took too long."""
        self._overdue.add()

    def on_batch(self, waits: Sequence[float]) -> None:
        """A batch of requests is predicted, which have waited so many seconds."""
        for seconds in waits:
            self._queue_seconds.observe(seconds)

    def on_predicted(self, rows: int, seconds: float, outputs: Columns) -> None:
        """The model has answered so many ``rows`` within ``seconds``."""
        self._predict_seconds.observe(seconds)
        self._rows.observe(rows)
        self._predictions.add(predictions.named(outputs))


class PredictionMetrics:
    """What a model predicts: how often each class, and with what confidence."""

    def __init__(self, written: Metrics, name: str, version: str) -> None:
        """Count the predictions of a model."""
        self._metrics = written
        self._labels = (name, version)
        self._confidence = written.histogram(CONFIDENCE, *self._labels)
        self._classes: dict[Any, tuple[CounterCell, HistogramCells]] = {}

    def add(self, outputs: Columns) -> None:
        """Count a batch's outputs, if they are classes."""
        classes = predictions.classes(outputs)
        if classes is None:
            return
        found = predictions.confidences(outputs)
        confidences = [math.nan] * len(classes) if found is None else found.tolist()
        for value, confidence in zip(classes, confidences, strict=False):
            count, of_class = self._of_class(value)
            count.add()
            if not math.isnan(confidence):
                self._confidence.observe(confidence)
                of_class.observe(confidence)

    def _of_class(self, value: Any) -> tuple[CounterCell, HistogramCells]:
        if found := self._classes.get(value):
            return found
        if len(self._classes) >= _MOST_CLASSES and value != OTHER_CLASSES:
            return self._of_class(OTHER_CLASSES)
        labels = (*self._labels, predictions.class_name(value))
        self._classes[value] = (
            self._metrics.counter(PREDICTIONS, *labels),
            self._metrics.histogram(CLASS_CONFIDENCE, *labels),
        )
        return self._classes[value]


def _resident_bytes() -> int:
    """Resident memory of this process; where the system does not say, the most that it had."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return found if sys.platform == "darwin" else found * 1024
