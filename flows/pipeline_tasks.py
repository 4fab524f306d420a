"""The nodes of a pipeline run as task runs of Prefect's: one of each, whichever attempt it is.

Prefect's own engine runs a task in a thread of its own from beginning to end, so it has no task
run for what takes no thread: a nested DAG, a loop, an iteration, a task that was left out. Here
every node tells Prefect its states as that engine does, by events. A task run's id is made of
the run and of the node's path, so that a retry goes on with the same one.
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
_LONGEST_TOLD = 300
_SOONER = timedelta(microseconds=1)

_FINAL: dict[TaskState, Callable[[str], State[Any]]] = {
    TaskState.SUCCEEDED: lambda told: Completed(message=told or None),
    TaskState.CACHED: lambda told: Completed(
        name="Cached", message=f"An equal task has handed this on before. {told}"
    ),
    TaskState.SKIPPED: lambda why: Completed(name="Skipped", message=why),
    TaskState.FAILED: lambda why: Failed(message=why),
    TaskState.OMITTED: lambda why: Cancelled(name="Omitted", message=why),
    TaskState.CANCELLED: lambda why: Cancelled(message=why),
}


def state_of(node: NodeStatus) -> State[Any] | None:
    """A node's state in Prefect's words; None while it has not begun."""
    if node.state == TaskState.RUNNING:
        return Retrying() if node.attempt > 1 else Running()
    if node.state == TaskState.WAITING:
        return AwaitingRetry() if node.attempt > 1 else None
    return _FINAL[node.state](node.reason or outputs_told(node.outputs))


def outputs_told(outputs: Bundle) -> str:
    """Output parameters in a line."""
    told = ", ".join(f"{name} = {_text(value)}" for name, value in outputs.parameters.items())
    told = make_storable(told)  # or Prefect would not be told of the end at all
    return told if len(told) <= _LONGEST_TOLD else f"{told[:_LONGEST_TOLD]}..."


def told_whole(outputs: Bundle) -> bool:
    """Whether that line has all of them."""
    return not outputs_told(outputs).endswith("...")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


class TaskRuns:
    """Runs leaves in threads, and tells Prefect of every node."""

    def __init__(self, flow_run_id: str, places: NodePositions, parallel: int) -> None:
        """Be ready; to be made in the thread of the flow.

        Args:
            flow_run_id: The flow run.
            places: Where its nodes are.
            parallel: How many leaves run at once at most.
        """
        self._flow_run_id = flow_run_id
        self._places = places
        self._threads = ThreadPoolExecutor(parallel, thread_name_prefix="component")
        self._queue: queue.SimpleQueue[tuple[NodeStatus, State[Any]] | None] = queue.SimpleQueue()
        self._open: dict[str, tuple[TaskRun, State[Any], Event | None]] = {}
        # Events are those of the flow run that the context knows.
        telling = threading.Thread(
            target=copy_context().run, args=(self._tell_all,), daemon=True, name="task runs"
        )
        telling.start()
        self._telling = telling

    def submit(self, do: Callable[[], TaskResult]) -> Future[TaskResult]:
        """Run a leaf."""
        return self._threads.submit(copy_context().run, do)

    def logger(self, path: str) -> PrefectLogAdapter | logging.LoggerAdapter[Any]:
        """A logger whose lines are those of a node's task run."""
        return task_run_logger(self._made(path, "task"))

    def on_node_changed(self, node: NodeStatus) -> None:
        """Take notice of a node's state; Prefect is told soon."""
        if not node.path:  # the pipeline itself, which is the flow run
            return
        state = state_of(node)
        if state is not None:
            self._queue.put((node, state))

    def close(self) -> None:
        """Tell what is left. What runs was waited for by whoever has submitted it."""
        self._threads.shutdown(wait=True)
        self._queue.put(None)
        self._telling.join(_LAST_SECONDS)

    def _tell_all(self) -> None:
        while (told := self._queue.get()) is not None:
            try:
                self._tell(*told)
            except Exception as error:  # noqa: BLE001 (the edge of the loop)
                logging.getLogger(__name__).warning("Prefect was not told: %s", error)
        for path in list(self._open):  # the run was interrupted
            run, _, _ = self._open[path]
            self._change(path, run, Cancelled(message="The run was stopped."))

    def _tell(self, node: NodeStatus, state: State[Any]) -> None:
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
        told = emit_task_run_state_change_event(
            task_run=run, initial_state=before, validated_state=state, follows=event
        )
        if state.is_final():
            self._open.pop(path, None)
        else:
            self._open[path] = (run, state, told)

    def _made(self, path: str, kind: str) -> TaskRun:
        """A node's task run, called by its path and the name that people gave it.

        It has the group that it is in and the nodes that it waits for.
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
