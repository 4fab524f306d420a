"""Prefect task runs of a pipeline run's nodes: one per node, over all attempts.

Prefect's engine runs each task in a thread, so it has no task runs for nodes without one: nested
DAGs, loops, iterations, omitted tasks. This module emits the state events of every node as that
engine does. The id of a task run is derived from the run and the node's path, so that a retry
updates the same task run.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import State, TaskRun, TaskRunResult
from prefect.events import Event
from prefect.logging.loggers import PrefectLogAdapter, task_run_logger
from prefect.states import AwaitingRetry, Cancelled, Completed, Failed, Retrying, Running
from prefect.utilities.engine import emit_task_run_state_change_event

from infra.texts import make_storable
from pipelines.artifacts import Bundle
from pipelines.execution import NodeStatus
from pipelines.node_positions import NodePositions
from pipelines.states import TaskResult, TaskState
from registry.pipelines.pipeline_nodes import task_run_id

_LAST_SECONDS = 30.0
_LONGEST_LINE = 300
_SOONER = timedelta(microseconds=1)

_FINAL: dict[TaskState, Callable[[str], State[Any]]] = {
    TaskState.SUCCEEDED: lambda line: Completed(message=line or None),
    TaskState.CACHED: lambda line: Completed(
        name="Cached", message=f"Reused the outputs of an equal task. {line}"
    ),
    TaskState.SKIPPED: lambda why: Completed(name="Skipped", message=why),
    TaskState.FAILED: lambda why: Failed(message=why),
    TaskState.OMITTED: lambda why: Cancelled(name="Omitted", message=why),
    TaskState.CANCELLED: lambda why: Cancelled(message=why),
}


def state_of(node: NodeStatus) -> State[Any] | None:
    """Prefect state of a node; None while it has not started."""
    if node.state == TaskState.RUNNING:
        return Retrying() if node.attempt > 1 else Running()
    if node.state == TaskState.WAITING:
        return AwaitingRetry() if node.attempt > 1 else None
    return _FINAL[node.state](node.reason or outputs_line(node.outputs))


def outputs_line(outputs: Bundle) -> str:
    """Output parameters in one line, truncated."""
    line = ", ".join(f"{name} = {_text(value)}" for name, value in outputs.parameters.items())
    line = make_storable(line)  # Prefect rejects a state with characters that cannot be stored
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}..."


def has_whole_line(outputs: Bundle) -> bool:
    """Whether :func:`outputs_line` shows all output parameters."""
    return not outputs_line(outputs).endswith("...")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


class TaskRuns:
    """Runs leaves in threads, and reports every node to Prefect."""

    def __init__(self, flow_run_id: str, places: NodePositions, parallel: int) -> None:
        """Start the reporting thread; must be called in the thread of the flow.

        Args:
            flow_run_id: The flow run.
            places: Places of the pipeline's nodes.
            parallel: The most leaves that run at once.
        """
        self._flow_run_id = flow_run_id
        self._places = places
        self._threads = ThreadPoolExecutor(parallel, thread_name_prefix="component")
        self._queue: queue.SimpleQueue[tuple[NodeStatus, State[Any]] | None] = queue.SimpleQueue()
        self._open: dict[str, tuple[TaskRun, State[Any], Event | None]] = {}
        # The context has the flow run that the events belong to.
        self._reporter = threading.Thread(
            target=copy_context().run, args=(self._report_all,), daemon=True, name="task runs"
        )
        self._reporter.start()

    def submit(self, do: Callable[[], TaskResult]) -> Future[TaskResult]:
        """Run a leaf in a thread."""
        return self._threads.submit(copy_context().run, do)

    def logger(self, path: str) -> PrefectLogAdapter | logging.LoggerAdapter[Any]:
        """Logger of a node's task run."""
        return task_run_logger(self._made(path, "task"))

    def on_node_changed(self, node: NodeStatus) -> None:
        """Queue the state of a node for reporting."""
        if not node.path:  # the pipeline itself, which is the flow run
            return
        state = state_of(node)
        if state is not None:
            self._queue.put((node, state))

    def close(self) -> None:
        """Report the queued states; all submitted leaves must have ended."""
        self._threads.shutdown(wait=True)
        self._queue.put(None)
        self._reporter.join(_LAST_SECONDS)

    def _report_all(self) -> None:
        while (queued := self._queue.get()) is not None:
            try:
                self._report(*queued)
            except Exception as error:  # noqa: BLE001 (the edge of the loop)
                logging.getLogger(__name__).warning(
                    "A task's state was not reported to Prefect: %s", error
                )
        for path in list(self._open):  # the run was interrupted
            run, _, _ = self._open[path]
            self._change(path, run, Cancelled(message="The run was stopped."))

    def _report(self, node: NodeStatus, state: State[Any]) -> None:
        spot = self._places.of(node.path) if node.kind == "iteration" else None
        if spot is not None and spot.only:
            return
        known = self._open.get(node.path)
        run = known[0] if known else self._made(node.path, node.kind)
        if state.is_running():
            run.run_count = node.attempt
            run.start_time = run.start_time or state.timestamp  # type: ignore[assignment]
        self._change(node.path, run, state)

    def _change(self, path: str, run: TaskRun, state: State[Any]) -> None:
        _, before, event = self._open.get(path, (run, None, None))
        if before is not None and state.timestamp <= before.timestamp:
            state.timestamp = before.timestamp + _SOONER
        if before is not None and before.is_running():
            run.total_run_time += state.timestamp - before.timestamp
        if state.is_final():
            run.start_time = run.start_time or state.timestamp  # type: ignore[assignment]
            run.end_time = state.timestamp  # type: ignore[assignment]
        state.state_details.task_run_id, state.state_details.flow_run_id = run.id, run.flow_run_id
        emitted = emit_task_run_state_change_event(
            task_run=run, initial_state=before, validated_state=state, follows=event
        )
        if state.is_final():
            self._open.pop(path, None)
        else:
            self._open[path] = (run, state, emitted)

    def _made(self, path: str, kind: str) -> TaskRun:
        """Make the task run of a node, named by its path and its display name.

        Its inputs are the enclosing group and the nodes that it depends on.
        """
        spot = self._places.of(path)
        inputs = {}
        if spot is not None and spot.group:
            inputs["__parents__"] = [TaskRunResult(id=self._id(spot.group))]
        if spot is not None and spot.after:
            inputs["after"] = [TaskRunResult(id=self._id(other)) for other in spot.after]
        own = self._id(path)
        return TaskRun(
            id=own,
            name=f"{path} ({spot.title})" if spot is not None and spot.title else path,
            flow_run_id=UUID(self._flow_run_id),
            task_key=f"pipeline-{kind}",
            dynamic_key=path,
            tags=[] if kind == "task" else [kind],
            task_inputs=inputs,
            expected_start_time=datetime.now(UTC),
        )

    def _id(self, path: str) -> UUID:
        return task_run_id(self._flow_run_id, path)
