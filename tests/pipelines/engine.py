"""Pipelines built by hand, and leaves that are functions: what the engine is tested with."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from infra.errors import ModelyardError
from pipelines import validation
from pipelines.artifacts import Bundle
from pipelines.execution import Execution, Leaf, NodeStatus
from pipelines.pipeline import Pipeline
from pipelines.states import TaskResult, TaskState

ITEM = "item"
YES, NO = "1 == 1", "1 == 2"  # conditions
OUT = "out"


@dataclass(frozen=True)
class Of:
    """The output of a task."""

    task: str
    output: str = OUT


@dataclass(frozen=True)
class Given:
    """What the DAG is given under a name."""

    name: str


@dataclass(frozen=True)
class Status:
    """How a task has ended."""

    task: str


@dataclass
class Node:
    """A task.

    Attributes:
        runs: A DAG; None is a leaf, whose output is ``out``.
        after: The tasks that it waits for beside those that it has inputs from.
        inputs: What it is given: ``Of``, ``Given``, ``Status`` or a constant.
        defaults: Inputs that it need not be given, with their defaults; None is no default.
        condition: When it runs; "" is always.
        regardless: Whether it runs however others have ended.
        retries: How often it is tried again.
        backoff: How long before the second attempt, in seconds.
        over: What it is a loop over: a list, or the name of an input; None if it is none.
        limit: How many iterations run at once; 0 is no limit.
    """

    runs: Dag | None = None
    after: tuple[str, ...] = ()
    inputs: dict[str, Any] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    condition: str = ""
    regardless: bool = False
    retries: int = 0
    backoff: float = 0
    over: list[Any] | str | None = None
    limit: int = 0


@dataclass
class Dag:
    """Tasks, and which of their outputs are handed on: one, or the first of several."""

    tasks: dict[str, Node]
    outputs: dict[str, Of | tuple[Of, ...]] = field(default_factory=dict)


def pipeline(dag: Dag) -> Pipeline:
    """A valid pipeline."""
    components: dict[str, Any] = {}
    root = _dag("", dag, components)
    spec = {
        "pipelineInfo": {"name": "built"}, "schemaVersion": "2.1.0", "root": root,
        "components": components,
    }  # fmt: skip
    container = {"container": {"image": "alpine", "command": ["true"]}}
    deployment = {"executors": {"exec": container}}
    found = Pipeline(
        json_format.ParseDict(spec, ir.PipelineSpec(), max_recursion_depth=1000),
        json_format.ParseDict(deployment, ir.PipelineDeploymentConfig()),
    )
    validation.check(found)
    return found


def _dag(path: str, dag: Dag, components: dict[str, Any]) -> dict[str, Any]:
    outputs = {}
    for name, chosen in dag.outputs.items():
        pairs = [
            {"producerSubtask": one.task, "outputParameterKey": one.output}
            for one in (chosen if isinstance(chosen, tuple) else (chosen,))
        ]
        several = {"valueFromOneof": {"parameterSelectors": pairs}}
        outputs[name] = several if len(pairs) > 1 else {"valueFromParameter": pairs[0]}
    tasks = {
        name: _task(f"{path}.{name}", name, node, components) for name, node in dag.tasks.items()
    }
    return {
        "dag": {"tasks": tasks, "outputs": {"parameters": outputs}},
        "outputDefinitions": {"parameters": {name: {} for name in dag.outputs}},
    }


def _task(path: str, name: str, node: Node, components: dict[str, Any]) -> dict[str, Any]:
    component = f"comp{path}"
    if node.runs is None:
        made = {"executorLabel": "exec", "outputDefinitions": {"parameters": {OUT: {}}}}
    else:
        made = _dag(path, node.runs, components)
    declared: dict[str, Any] = {key: {} for key in node.inputs}
    declared |= {
        key: {"isOptional": True} | ({} if value is None else {"defaultValue": value})
        for key, value in node.defaults.items()
    }
    if node.over is not None:
        declared[ITEM] = {}
    components[component] = made | {"inputDefinitions": {"parameters": declared}}
    trigger = {"condition": node.condition} if node.condition else {}
    if node.regardless:
        trigger["strategy"] = "ALL_UPSTREAM_TASKS_COMPLETED"
    task = {
        "taskInfo": {"name": name}, "componentRef": {"name": component}, "triggerPolicy": trigger,
        "dependentTasks": list(node.after),
        "inputs": {"parameters": {key: _input(value) for key, value in node.inputs.items()}},
    }  # fmt: skip
    if node.retries:
        task["retryPolicy"] = {
            "maxRetryCount": node.retries, "backoffDuration": f"{node.backoff}s",
        }  # fmt: skip
    if node.over is not None:
        raw = {"raw": json.dumps(node.over)}
        items = {"inputParameter": node.over} if isinstance(node.over, str) else raw
        task["parameterIterator"] = {"itemInput": ITEM, "items": items}
        task["iteratorPolicy"] = {"parallelismLimit": node.limit}
    return task


def _input(value: Any) -> dict[str, Any]:
    if isinstance(value, Of):
        wanted = {"producerTask": value.task, "outputParameterKey": value.output}
        return {"taskOutputParameter": wanted}
    if isinstance(value, Given):
        return {"componentInputParameter": value.name}
    if isinstance(value, Status):
        return {"taskFinalStatus": {"producerTask": value.task}}
    return {"runtimeValue": {"constant": value}}


# What a leaf does: its output, or an error.
Does = Callable[[Leaf], Any]


def says(leaf: Leaf) -> str:
    """What a leaf hands on if nothing else is said: its path, and what it was given."""
    given = ",".join(f"{key}={leaf.inputs.parameters[key]}" for key in leaf.inputs.parameters)
    return f"{leaf.path}({given})"


class Work:
    """Leaves that are done at once, where they are submitted.

    Attributes:
        began: The paths of the leaves that have begun, in order.
        told: Everything that was seen, in order.
    """

    def __init__(self, does: Does = says) -> None:
        self._does = does
        self.began: list[str] = []
        self.told: list[NodeStatus] = []

    def submit(self, leaf: Leaf) -> Future[TaskResult]:
        self.began.append(leaf.path)
        future: Future[TaskResult] = Future()
        try:
            future.set_result(self._end(leaf))
        except Exception as error:  # noqa: BLE001 (whatever a leaf does)
            future.set_exception(error)
        return future

    def _end(self, leaf: Leaf) -> TaskResult:
        return TaskResult(TaskState.SUCCEEDED, Bundle({OUT: self._does(leaf)}))

    def on_node_changed(self, node: NodeStatus) -> None:
        self.told.append(node)

    def fill(self, path: str, value: Any, parameters: Mapping[str, Any]) -> Any:
        return value

    @property
    def nodes(self) -> dict[str, NodeStatus]:
        """Each node as it was last seen."""
        return {node.path: node for node in self.told}

    @property
    def states(self) -> dict[str, str]:
        """How each node was last seen to stand."""
        return {path: str(node.state) for path, node in self.nodes.items()}


class Threads(Work):
    """Leaves that are done by threads.

    Attributes:
        most: How many have run at once at most.
    """

    def __init__(self, does: Does = says, threads: int = 64) -> None:
        super().__init__(does)
        self._pool = ThreadPoolExecutor(threads)
        self._lock = threading.Lock()
        self._running = 0
        self.most = 0

    def submit(self, leaf: Leaf) -> Future[TaskResult]:
        self.began.append(leaf.path)
        return self._pool.submit(self._counted, leaf)

    def _counted(self, leaf: Leaf) -> TaskResult:
        with self._lock:
            self._running += 1
            self.most = max(self.most, self._running)
        try:
            return self._end(leaf)
        finally:
            with self._lock:
                self._running -= 1


def execute(
    dag: Dag, work: Work, *, parallel: int = 1000, cancelled: threading.Event | None = None
) -> TaskResult:
    """Run a pipeline to its end."""
    return Execution(pipeline(dag), work, parallel=parallel, cancelled=cancelled).run(Bundle())


def failing(*paths: str) -> Does:
    """Leaves that fail at some places."""

    def does(leaf: Leaf) -> Any:
        if leaf.path in paths:
            raise ModelyardError(f"{leaf.path} broke.", code="Broke")
        return says(leaf)

    return does


def run(dag: Dag, does: Does = says, **options: Any) -> tuple[TaskResult, Work]:
    """Run a pipeline in this thread; how it ended, and what was seen."""
    work = Work(does)
    end = execute(dag, work, **options)
    assert not {"WAITING", "RUNNING"} & set(work.states.values())
    return end, work
