"""Engine that schedules the tasks of a pipeline's graph.

One thread decides. A task that takes time (a component, an importer) is a leaf and is submitted to
the handler; its result comes back as an event. Nested DAGs, branches and loops are scopes without
a thread, so their depth and number cost only memory.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias

from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from infra.errors import BadInputError, ModelyardError
from pipelines import conditions, graph, naming, resolution, selection
from pipelines.artifacts import Bundle
from pipelines.pipeline import ROOT, Pipeline
from pipelines.states import BROKEN, TaskResult, TaskState

_REGARDLESS = ir.PipelineTaskSpec.TriggerPolicy.TriggerStrategy.ALL_UPSTREAM_TASKS_COMPLETED
_POLL_SECONDS = 0.5
_STOPPED = TaskResult(TaskState.CANCELLED, reason="The run was stopped.")


@dataclass(frozen=True)
class Leaf:
    """An executable task: a component or an importer.

    Attributes:
        path: Its path in the run: the names of the enclosing tasks and the numbers of the
            iterations, then its own name; joined by ``/``.
        task: The task.
        component: The name of its component.
        inputs: Its inputs.
        given: The input parameters of its DAG.
        beside: Outputs of the upstream tasks of its DAG, by task and output name.
        attempt: Its attempt, from 1.
    """

    path: str
    task: ir.PipelineTaskSpec
    component: str
    inputs: Bundle
    given: Mapping[str, Any] = field(default_factory=dict)
    beside: Mapping[tuple[str, str], Any] = field(default_factory=dict)
    attempt: int = 1


@dataclass(frozen=True)
class NodeStatus:
    """Status of a node, reported at every change.

    Attributes:
        path: Its path in the run.
        name: Its display name, or its key in the pipeline.
        kind: ``task``, ``dag``, ``loop`` or ``iteration``.
        state: Its state.
        reason: Why it failed or was omitted.
        attempt: Its attempt, from 1.
        inputs: Its inputs, as far as they are resolved.
        outputs: Its outputs.
        began: When it began, in seconds since 1970; 0 if it has not.
        ended: When it ended; 0 if it has not.
    """

    path: str
    name: str
    kind: str
    state: TaskState
    reason: str = ""
    attempt: int = 1
    inputs: Bundle = field(default_factory=Bundle)
    outputs: Bundle = field(default_factory=Bundle)
    began: float = 0.0
    ended: float = 0.0


class ExecutionHandler(Protocol):
    """Handler of an execution: runs leaves and receives node statuses."""

    def submit(self, leaf: Leaf) -> Future[TaskResult]:
        """Start a leaf; the future holds an error only if it could not run at all."""

    def on_node_changed(self, node: NodeStatus) -> None:
        """Handle a node's change. Called in the engine's thread: must be quick, and not raise."""

    def fill(self, path: str, value: Any, parameters: Mapping[str, Any]) -> Any:
        """Fill the placeholders in a constant of a task."""


_OnEnd: TypeAlias = Callable[[TaskResult], None]


@dataclass
class _Task:
    """A task of a scope, and its progress."""

    name: str
    spec: ir.PipelineTaskSpec
    path: str
    before: frozenset[str]
    left: set[str]
    attempt: int = 1
    began: float = 0.0
    inputs: Bundle = field(default_factory=Bundle)
    given: Mapping[str, Any] = field(default_factory=dict)
    beside: Mapping[tuple[str, str], Any] = field(default_factory=dict)


@dataclass
class _Scope:
    """A running DAG."""

    path: str
    dag: ir.DagSpec
    given: Bundle
    tasks: dict[str, _Task]
    after: Mapping[str, Sequence[str]]
    ended: _OnEnd
    ends: dict[str, TaskResult] = field(default_factory=dict)


@dataclass
class _Loop:
    """A running loop."""

    path: str
    component: str
    task: _Task
    each: list[Bundle]
    limit: int
    ended: _OnEnd
    begun: int = 0
    ends: dict[int, TaskResult] = field(default_factory=dict)


# Upstream tasks and downstream tasks of each task of a DAG.
_Waits: TypeAlias = tuple[Mapping[str, frozenset[str]], Mapping[str, Sequence[str]]]


class Execution:
    """One run of a pipeline."""

    def __init__(
        self,
        pipeline: Pipeline,
        handler: ExecutionHandler,
        *,
        parallel: int,
        cancelled: threading.Event | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Prepare the execution.

        Args:
            pipeline: A valid pipeline.
            handler: Runs leaves and receives statuses.
            parallel: The maximum number of concurrent leaves.
            cancelled: When set, no further leaf starts.
            now: Returns the present, in seconds since 1970.
        """
        self._pipeline = pipeline
        self._handler = handler
        self._parallel = parallel
        self._cancelled = cancelled or threading.Event()
        self._now = now
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._ready: deque[tuple[_Task, Leaf, _OnEnd]] = deque()
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._running = 0
        self._known: dict[str, _Waits] = {}

    def run(self, arguments: Bundle) -> TaskResult:
        """Run the pipeline to its end, with complete arguments.

        If this thread is interrupted, the active leaves are ended before the exception propagates.
        """
        final: list[TaskResult] = []
        self._soon(lambda: self._open("", ROOT, arguments, final.append))
        try:
            self._until(lambda: bool(final))
        except BaseException:
            self._cancelled.set()
            self._until(lambda: self._running == 0)
            raise
        return final[0]

    def _until(self, over: Callable[[], bool]) -> None:
        while not over():
            self._begin_ready()
            with contextlib.suppress(queue.Empty):
                self._events.get(timeout=self._seconds())()

    def _soon(self, event: Callable[[], None]) -> None:
        """Enqueue an event; events that it causes run after it."""
        self._events.put(event)

    def _after(self, seconds: float, event: Callable[[], None]) -> None:
        """Enqueue an event after a delay, or as soon as the run is stopped."""
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._numbers), event))

    def _seconds(self) -> float:
        """Seconds until the next delayed event or poll."""
        if not self._later:
            return _POLL_SECONDS
        return min(_POLL_SECONDS, max(0.0, self._later[0][0] - time.monotonic()))

    # Scopes

    def _open(self, path: str, component: str, given: Bundle, ended: _OnEnd) -> None:
        """Start a DAG."""
        dag = self._pipeline.component(component).dag
        before, after = self._waits(component)
        tasks = {
            name: _Task(
                name, dag.tasks[name], f"{path}/{name}" if path else name, waits, set(waits)
            )
            for name, waits in before.items()
        }
        scope = _Scope(path, dag, given, tasks, after, ended)
        for task in tasks.values():
            self._report(task, TaskState.WAITING)
        if not tasks:
            self._close(scope)
        for task in tasks.values():
            if not task.left:
                self._soon(lambda task=task: self._reach(scope, task))  # type: ignore[misc]

    def _waits(self, component: str) -> _Waits:
        """Compute upstream and downstream tasks of a DAG, in the order of their names."""
        if component not in self._known:
            dag = self._pipeline.component(component).dag
            upstream = graph.upstream(dag, self._pipeline)
            before = {name: upstream[name] for name in sorted(upstream)}
            after: dict[str, list[str]] = {}
            for name, waits in before.items():
                for one in waits:
                    after.setdefault(one, []).append(name)
            self._known[component] = (before, after)
        return self._known[component]

    def _close(self, scope: _Scope) -> None:
        """End a DAG whose tasks have all ended."""
        states = {end.state for end in scope.ends.values()}
        if broken := states & BROKEN:
            state = TaskState.CANCELLED if broken == {TaskState.CANCELLED} else TaskState.FAILED
            reasons = [
                f"{name}: {end.reason}" for name, end in scope.ends.items()
                if end.state == TaskState.FAILED
            ]  # fmt: skip
            scope.ended(TaskResult(state, reason="; ".join(sorted(reasons))))
            return
        try:
            scope.ended(TaskResult(TaskState.SUCCEEDED, resolution.outputs(scope.dag, scope.ends)))
        except ModelyardError as error:
            scope.ended(TaskResult(TaskState.FAILED, reason=str(error)))

    def _finish(self, scope: _Scope, task: _Task, end: TaskResult) -> None:
        """Record a task's result, and start the tasks that waited for it."""
        scope.ends[task.name] = end
        self._report(task, end.state, end)
        for name in scope.after.get(task.name, ()):
            other = scope.tasks[name]
            other.left.discard(task.name)
            if not other.left:
                self._soon(lambda other=other: self._reach(scope, other))  # type: ignore[misc]
        if len(scope.ends) == len(scope.tasks):
            self._soon(lambda: self._close(scope))

    # Tasks

    def _reach(self, scope: _Scope, task: _Task) -> None:
        """Run or omit a task whose upstream tasks have ended."""
        ends = {name: scope.ends[name] for name in task.before}
        if self._cancelled.is_set():
            self._finish(scope, task, _STOPPED)
            return
        if task.spec.trigger_policy.strategy != _REGARDLESS:
            broken = sorted(name for name, end in ends.items() if end.state in BROKEN)
            if broken:
                reason = f"{', '.join(broken)} did not succeed."
                self._finish(scope, task, TaskResult(TaskState.OMITTED, reason=reason))
                return
        component = self._pipeline.component(task.spec.component_ref.name)
        try:
            task.inputs = resolution.inputs(
                task.name, task.spec, component, scope.given, ends,
                lambda value, parameters: self._handler.fill(task.path, value, parameters),
            )  # fmt: skip
            condition = task.spec.trigger_policy.condition
            if condition and not conditions.evaluate(
                condition, task.inputs.parameters, task.inputs.artifacts
            ):
                self._finish(
                    scope, task, TaskResult(TaskState.SKIPPED, reason="Its condition is false.")
                )
                return
            settings = graph.settings_outputs(self._pipeline, task.spec)
            resolution.check_settings(task.name, settings, ends)
        except resolution.InputMissingError as error:
            skipped = any(end.state == TaskState.SKIPPED for end in ends.values())
            state = TaskState.SKIPPED if skipped else TaskState.FAILED
            self._finish(scope, task, TaskResult(state, reason=str(error)))
            return
        except ModelyardError as error:
            self._finish(scope, task, TaskResult(TaskState.FAILED, reason=str(error)))
            return
        self._expand(scope, task)

    def _expand(self, scope: _Scope, task: _Task) -> None:
        """Run a task whose inputs are resolved."""
        task.began = task.began or self._now()
        policy = task.spec.retry_policy  # of a leaf, which sees to it itself, or of a DAG
        retries = policy.max_retry_count if self._is_dag(task.spec.component_ref.name) else 0

        def ended(end: TaskResult) -> None:
            if end.state == TaskState.FAILED and task.attempt <= retries:
                task.attempt += 1
                self._after(backoff(policy, task.attempt - 1), lambda: self._expand(scope, task))
            else:
                self._finish(scope, task, end)

        task.given = scope.given.parameters
        task.beside = {
            (before, key): value
            for before in sorted(task.before)
            for key, value in scope.ends[before].outputs.parameters.items()
        }
        name = task.spec.component_ref.name
        if self._kind(task) == "loop":
            self._report(task, TaskState.RUNNING)
            try:
                self._iterate(task, name, ended)
            except ModelyardError as error:
                self._finish(scope, task, TaskResult(TaskState.FAILED, reason=str(error)))
        else:
            self._run(task, task.path, name, task.inputs, ended)

    def _run(self, task: _Task, path: str, component: str, inputs: Bundle, ended: _OnEnd) -> None:
        """Run a component once: a DAG as a scope, others as a leaf."""
        if self._is_dag(component):
            if path == task.path:
                self._report(task, TaskState.RUNNING)
            self._open(path, component, inputs, ended)
        else:
            leaf = Leaf(path, task.spec, component, inputs, task.given, task.beside)
            self._ready.append((task, leaf, ended))

    def _kind(self, task: _Task) -> str:
        if task.spec.WhichOneof("iterator"):
            return "loop"
        return "dag" if self._is_dag(task.spec.component_ref.name) else "task"

    def _is_dag(self, component: str) -> bool:
        return bool(self._pipeline.component(component).WhichOneof("implementation") == "dag")

    # Loops

    def _iterate(self, task: _Task, component: str, ended: _OnEnd) -> None:
        """Start a loop.

        Raises:
            ModelyardError: If its items are not a list.
        """
        each = selection.iterations(task.spec, task.inputs, self._pipeline.component(component))
        limit = task.spec.iterator_policy.parallelism_limit or len(each)
        loop = _Loop(task.path, component, task, each, limit, ended)
        if not each:
            self._end_loop(loop)
        for _ in range(min(loop.limit, len(each))):
            self._next_iteration(loop)

    def _next_iteration(self, loop: _Loop) -> None:
        number = loop.begun
        loop.begun += 1
        path, began = f"{loop.path}/{number}", self._now()
        name = f"{loop.task.name}[{number}]"

        def report(state: TaskState, end: TaskResult | None = None) -> None:
            outputs, reason = (end.outputs, end.reason) if end else (Bundle(), "")
            self._handler.on_node_changed(
                NodeStatus(
                    path, name, "iteration", state, reason, 1, loop.each[number], outputs, began,
                    self._now() if end else 0.0,
                )
            )  # fmt: skip

        def ended(end: TaskResult) -> None:
            report(end.state, end)
            loop.ends[number] = end
            if loop.begun < len(loop.each):
                self._next_iteration(loop)
            elif len(loop.ends) == len(loop.each):
                self._end_loop(loop)

        report(TaskState.RUNNING)
        self._soon(lambda: self._run(loop.task, path, loop.component, loop.each[number], ended))

    def _end_loop(self, loop: _Loop) -> None:
        ends = [loop.ends[number] for number in range(len(loop.each))]
        broken = [number for number, end in enumerate(ends) if end.state in BROKEN]
        if broken:
            cancelled = all(ends[number].state == TaskState.CANCELLED for number in broken)
            state = TaskState.CANCELLED if cancelled else TaskState.FAILED
            reasons_ = "; ".join(f"[{number}] {ends[number].reason}" for number in broken[:5])
            reason = f"{len(broken)} of {len(ends)} iterations did not succeed: {reasons_}"
            loop.ended(TaskResult(state, reason=reason))
            return
        definitions = self._pipeline.component(loop.component).output_definitions
        outputs = [end.outputs for end in ends]
        loop.ended(
            TaskResult(TaskState.SUCCEEDED, selection.collect_outputs(definitions, outputs))
        )

    # Leaves

    def _begin_ready(self) -> None:
        """Start ready leaves up to the limit."""
        stopped = self._cancelled.is_set()
        while self._later and (stopped or self._later[0][0] <= time.monotonic()):
            heapq.heappop(self._later)[2]()
        if stopped:
            self._drop()
        while self._ready and self._running < self._parallel:
            self._begin(*self._ready.popleft())

    def _drop(self) -> None:
        """Drop the leaves that have not started."""
        left, self._ready = self._ready, deque()
        for _, _, ended in left:
            self._soon(lambda ended=ended: ended(_STOPPED))  # type: ignore[misc]

    def _begin(self, task: _Task, leaf: Leaf, ended: _OnEnd) -> None:
        self._running += 1
        self._report_leaf(task, leaf, TaskState.RUNNING)
        future = self._handler.submit(leaf)
        future.add_done_callback(
            lambda done: self._soon(lambda: self._leaf_ended(task, leaf, ended, done))
        )

    def _leaf_ended(
        self, task: _Task, leaf: Leaf, ended: _OnEnd, done: Future[TaskResult]
    ) -> None:
        self._running -= 1
        final = False
        try:
            end = done.result()
        except Exception as error:  # noqa: BLE001 (the edge of a leaf: its run continues)
            final = isinstance(error, BadInputError)  # another attempt would be refused as well
            state = TaskState.CANCELLED if self._cancelled.is_set() else TaskState.FAILED
            reason = str(error) if isinstance(error, ModelyardError) else repr(error)
            end = TaskResult(state, reason=reason)
        policy = leaf.task.retry_policy
        if end.state == TaskState.FAILED and not final and leaf.attempt <= policy.max_retry_count:
            again = replace(leaf, attempt=leaf.attempt + 1)
            self._report_leaf(task, again, TaskState.WAITING)
            wait = backoff(policy, leaf.attempt)
            self._after(wait, lambda: self._ready.append((task, again, ended)))
            return
        ended(end)

    # Statuses

    def _report(self, task: _Task, state: TaskState, end: TaskResult | None = None) -> None:
        outputs, reason = (end.outputs, end.reason) if end else (Bundle(), "")
        name = naming.display_name(task.name, task.spec) or task.name
        self._handler.on_node_changed(
            NodeStatus(
                task.path, name, self._kind(task), state, reason, task.attempt, task.inputs,
                outputs, task.began, self._now() if end else 0.0,
            )
        )  # fmt: skip

    def _report_leaf(self, task: _Task, leaf: Leaf, state: TaskState) -> None:
        if leaf.path == task.path:  # else it is an iteration, which its loop reports
            task.attempt = leaf.attempt
            self._report(task, state)


def backoff(policy: ir.PipelineTaskSpec.RetryPolicy, attempt: int) -> float:
    """Compute the delay after an attempt in seconds, by exponential backoff."""
    first = policy.backoff_duration.ToTimedelta().total_seconds()
    factor = policy.backoff_factor or 2.0
    most = policy.backoff_max_duration.ToTimedelta().total_seconds() or 3600.0
    try:
        return float(min(most, first * factor ** (attempt - 1)))
    except OverflowError:
        return most if first else 0.0
