"""Monitoring of a run: what its processes use, in MLflow, and its nodes, in the catalogue.

MLflow shows metrics whose names begin with ``system/`` as system metrics.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from infra import container_usage, site
from infra.leash_client import Leash
from infra.mlflow import MlflowException
from infra.workloads.process_group import ProcessObserver, ProcessSpec
from infra.workloads.usage_monitor import Report, UsageMonitor
from registry import tracking
from registry.mlflow_writer import MlflowWriter
from registry.runs import run_nodes
from registry.runs.run_nodes import NodeSlot
from registry.tracking import Tracked

_PREFIX = "system/"

# Each has series of its own: a run of thousands of tasks must not flood MLflow.
_MOST_COMPONENTS = 100

# A run does not wait longer for its last samples.
_CLOSE_SECONDS = 10.0

_logger = logging.getLogger(__name__)


def write(writer: MlflowWriter, run_id: str, prefix: str, values: Mapping[str, float]) -> None:
    """Queue system metrics of a run; ``prefix`` names a component of it, such as ``node-1/``."""
    at = time.time()
    for name, value in values.items():
        writer.log_metric(run_id, f"{_PREFIX}{prefix}{name}", value, at=at)


class _NodeRows:
    """Writes the rows of the nodes of this machine in a thread: no run waits or fails for them."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True, name="node-rows")
        self._thread.start()

    def begin(self, slot: NodeSlot) -> None:
        """Record the start of a node."""
        self._queue.put(partial(slot.take, run_nodes.own_holder(), socket.gethostname(), {}))

    def end(self, slot: NodeSlot, code: int | None) -> None:
        """Record the end of a node, with its exit status; None if it has none."""
        self._queue.put(partial(slot.end, code=code, tail=()))

    def close(self) -> None:
        """Write what is queued, and stop."""
        self._queue.put(None)
        self._thread.join(_CLOSE_SECONDS)

    def _work(self) -> None:
        for do in iter(self._queue.get, None):
            try:
                do()
            except Exception as error:  # noqa: BLE001 (the edge of the loop)
                _logger.warning("The run's nodes could not be recorded: %s", error)


class RunMonitor:
    """Makes the observers of a run's processes."""

    def __init__(
        self,
        usage: UsageMonitor,
        rows: _NodeRows,
        slot: NodeSlot,
        report: Callable[[str, Mapping[str, float]], None],
    ) -> None:
        """Monitor with ``usage``; ``report`` receives a component's prefix and its metrics."""
        self._usage = usage
        self._rows = rows
        self._slot = slot
        self._report = report
        self._components: set[str] = set()

    def component(self, name: str) -> ProcessObserver:
        """Observe the processes of a component, whose metrics are named ``system/NAME/...``.

        After the first hundred names, components count for the whole run only.
        """
        if len(self._components) < _MOST_COMPONENTS:
            self._components.add(name)
        known = name in self._components
        return self._usage.component(partial(self._report, f"{name}/") if known else None)

    def reported(self, report: Report) -> ProcessObserver:
        """Observe the processes of a component, such as a trial, which ``report`` records."""
        return self._usage.component(report)

    def nodes(self, count: int) -> ProcessObserver:
        """Observe the script's processes of a run with ``count`` nodes on this machine."""
        if site.has_several_pods():
            return self._usage.component(None)
        usage = [self.component(f"node-{number}") for number in range(count)]
        whole = [self._usage.component(None)]
        return _NodesObserver(usage if count > 1 else whole, self._rows, self._slot)


class _NodesObserver:
    """Observer of nodes that are process groups of one machine: their usage, and their rows."""

    def __init__(self, usage: Sequence[ProcessObserver], rows: _NodeRows, slot: NodeSlot) -> None:
        self._usage = usage
        self._rows = rows
        self._slot = slot
        self._running: Counter[int] = Counter()
        self._codes: Counter[int] = Counter()

    def on_started(self, process: ProcessSpec, leash: Leash) -> None:
        """Record the node's start with its first process."""
        node = process.node
        self._usage[node].on_started(process, leash)
        self._running[node] += 1
        if self._running[node] == 1:
            self._rows.begin(replace(self._slot, number=node))

    def on_ended(self, process: ProcessSpec, leash: Leash, code: int) -> None:
        """Record the node's end with its last process."""
        node = process.node
        self._usage[node].on_ended(process, leash, code)
        self._running[node] -= 1
        self._codes[node] = self._codes[node] or code
        if self._running[node] == 0:
            self._rows.end(replace(self._slot, number=node), self._codes[node])


@contextlib.contextmanager
def monitored(
    tracked: Tracked, slot: NodeSlot, warn: Callable[[str], object]
) -> Iterator[RunMonitor]:
    """Monitor a run within the context.

    Args:
        tracked: Its MLflow run.
        slot: This machine's node of it. Pods of a distributed run have claimed theirs, and report
            their end themselves; they have series of their own, ``system/node-NUMBER/...``.
        warn: Receives what MLflow does not accept.
    """
    writer = MlflowWriter(warn)
    writer.track(tracked)
    report = partial(write, writer, tracked.run_id)
    is_alone = not site.has_several_pods()
    container = container_usage.find() if site.in_pod() else None
    usage = UsageMonitor(partial(report, "" if is_alone else f"node-{slot.number}/"), container)
    rows = _NodeRows()
    usage.start()
    if is_alone:
        rows.begin(slot)
    try:
        yield RunMonitor(usage, rows, slot, report)
    finally:
        usage.close(_CLOSE_SECONDS)
        if is_alone:
            rows.end(slot, None)
        rows.close()
        writer.close(_CLOSE_SECONDS)


@contextlib.contextmanager
def pod_monitored(
    run_id: str, name: str, gpus: Sequence[str], warn: Callable[[str], object]
) -> Iterator[None]:
    """Monitor a pod that works for a run and is none of its nodes, within the context.

    Args:
        run_id: The MLflow run, which another process has opened.
        name: The pod's: its metrics are ``system/NAME/...``.
        gpus: Its GPUs, as in ``CUDA_VISIBLE_DEVICES``.
        warn: Receives what MLflow does not accept.

    A pod whose usage cannot be recorded works without.
    """
    try:
        tracked = tracking.tracked(run_id)
    except MlflowException as error:
        warn(f"The pod's resource usage is not recorded: {error}")
        yield
        return
    writer = MlflowWriter(warn)
    try:
        writer.track(tracked)
        report = partial(write, writer, run_id, f"{name}/")
        usage = UsageMonitor(report, container_usage.find() if site.in_pod() else None)
        usage.start()
        try:
            with usage.observing_descendants(gpus):
                yield
        finally:
            usage.close(_CLOSE_SECONDS)
    finally:
        writer.close(_CLOSE_SECONDS)
