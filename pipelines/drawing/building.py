"""Builder of the graph of a pipeline, or of a run."""

from __future__ import annotations

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from pipelines import graph, naming
from pipelines.drawing import describing, model, text
from pipelines.drawing.model import Box, Edge, NodeRow
from pipelines.pipeline import ROOT, Pipeline
from pipelines.states import BROKEN, DONE, UNDONE, TaskState

MOST_BOXES = 3000
MOST_ITERATIONS = 6  # of one loop, where it has many more
_DEEPEST = 40
_INHERITED = frozenset({TaskState.SKIPPED, TaskState.OMITTED, TaskState.CANCELLED})
_DIGITS = re.compile(r"(\d+)")


def draw(
    pipeline: Pipeline,
    rows: Iterable[NodeRow] | None = None,
    *,
    over: bool | None = None,
    keep: str = "",
    whole: bool = False,
) -> Box:
    """Build the graph of a pipeline, or of a run.

    A group is closed where everything within would be more than ``MOST_BOXES``, and of a loop
    with many iterations those are shown that failed, those that run, and the first ones.

    Args:
        pipeline: A valid pipeline.
        rows: What is known of the nodes of a run; None for the pipeline itself.
        over: Whether the run has ended, as far as is known: what ran when it was killed runs no
            more, whatever its row says.
        keep: The path of a node that is shown in any case.
        whole: Whether all iterations are shown.
    """
    known = None if rows is None else list(rows)
    return _Drawing(pipeline, known, over, keep, whole).whole()


def node_state(row: NodeRow, *, over: bool) -> str:
    """State of a node in a run; a running node of an ended run was killed with it."""
    return str(TaskState.CANCELLED) if over and row.state in UNDONE else row.state


def sort_tasks(pipeline: Pipeline, dag: ir.DagSpec) -> list[str]:
    """Sort the tasks of a DAG topologically, else in natural order."""
    above = graph.upstream(dag, pipeline)
    waits = {name: set(before) & set(dag.tasks) for name, before in above.items()}
    after: defaultdict[str, list[str]] = defaultdict(list)
    for name, before in waits.items():
        for one in before:
            after[one].append(name)
    ready = [(_natural(name), name) for name, before in waits.items() if not before]
    heapq.heapify(ready)
    found = []
    while ready:
        _, name = heapq.heappop(ready)
        found.append(name)
        for other in after[name]:
            waits[other].discard(name)
            if not waits[other]:
                heapq.heappush(ready, (_natural(other), other))
    return found


def _natural(name: str) -> list[tuple[int, str]]:
    return [
        (int(part[:18]), "") if part.isdecimal() else (-1, part) for part in _DIGITS.split(name)
    ]


def _edges(pipeline: Pipeline, path: str, dag: ir.DagSpec, order: list[str]) -> tuple[Edge, ...]:
    found = []
    waits = graph.upstream(dag, pipeline)
    number = {name: at for at, name in enumerate(order)}
    for name in order:
        task = dag.tasks[name]
        for before in sorted(waits[name] & set(order), key=number.__getitem__):
            kind, carried = _carried(task, before)
            found.append(Edge(_joined(path, before), _joined(path, name), kind, carried))
    return tuple(found)


def _carried(task: ir.PipelineTaskSpec, producer: str) -> tuple[str, tuple[str, ...]]:
    """List the names of what a task takes from another."""
    artifacts, parameters = set(), set()
    for artifact in task.inputs.artifacts.values():
        made = artifact.task_output_artifact
        if made.producer_task == producer:
            artifacts.add(text.plain(text.channel(made.output_artifact_key)))
    for parameter in task.inputs.parameters.values():
        if parameter.task_output_parameter.producer_task == producer:
            key = parameter.task_output_parameter.output_parameter_key
            parameters.add(text.plain(text.channel(key)))
        elif parameter.task_final_status.producer_task == producer:
            parameters.add("its end")
    kind = "artifact" if artifacts else "parameter" if parameters else "order"
    return kind, (*sorted(artifacts), *sorted(parameters))


def _joined(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


class _Drawing:
    """Builder of one graph."""

    def __init__(
        self,
        pipeline: Pipeline,
        rows: list[NodeRow] | None,
        over: bool | None,
        keep: str,
        whole: bool,
    ) -> None:
        self._pipeline = pipeline
        self._rows = None if rows is None else {row.path: row for row in rows}
        self._over = ("" in self._rows if over is None else over) if self._rows else bool(over)
        self._keep = keep
        self._all = whole
        self._iterations: defaultdict[str, list[int]] = defaultdict(list)
        for row in rows or ():
            if row.kind == model.ITERATION:
                loop, _, number = row.path.rpartition("/")
                if number.isdecimal():
                    self._iterations[loop].append(int(number))
        self._sizes: dict[tuple[str, int], int] = {}
        self._orders: dict[str, list[str]] = {}
        self._depth = self._affordable()

    def whole(self) -> Box:
        """Build the pipeline's box with its content."""
        spec = self._pipeline.spec.root
        outputs, artifacts = describing.outputs(spec)
        box = Box(
            "", text.plain(self._pipeline.name), model.PIPELINE, component=ROOT, outputs=outputs,
            artifacts=artifacts, note=text.plain(self._pipeline.spec.pipeline_info.description),
            group=True,
        )  # fmt: skip
        return self._filled(self._standing_of_the_whole(box), ROOT, 1)

    def _standing_of_the_whole(self, box: Box) -> Box:
        if self._rows is None:
            return box
        row = self._rows.get("")
        if not self._over:
            state = str(TaskState.RUNNING if self._rows else TaskState.WAITING)
        else:
            state = row.state if row is not None else str(TaskState.CANCELLED)
        began = min((one.began for one in self._rows.values() if one.began), default=0.0)
        ended = max((one.ended for one in self._rows.values()), default=0.0) if self._over else 0.0
        reason = row.reason if row is not None and self._over else ""
        return replace(box, state=state, reason=reason, began=began, ended=ended)

    # How much of it is shown

    def _affordable(self) -> int:
        """Depth to which all groups can be open."""
        depth = 1
        while depth < _DEEPEST and self._within(ROOT, depth + 1) <= MOST_BOXES:
            depth += 1
        return depth

    def _within(self, component: str, depth: int) -> int:
        """How many boxes a DAG holds down to a depth; each loop is counted as if it were long."""
        if depth == 0:
            return 0
        key = (component, depth)
        if key not in self._sizes:
            dag = self._pipeline.component(component).dag
            found = 0
            for task in dag.tasks.values():
                loops = task.WhichOneof("iterator") and self._iterations
                inner = self._within(task.component_ref.name, depth - 1)
                found += 1 + (MOST_ITERATIONS * (1 + inner) if loops else inner)
            self._sizes[key] = found
        return self._sizes[key]

    def _shown(self, loop: str) -> list[int]:
        """Numbers of a loop's iterations that are shown."""
        numbers = sorted(self._iterations[loop])
        if self._all or len(numbers) <= MOST_ITERATIONS + 2:
            return numbers
        numbers.sort(key=lambda number: (self._rank(f"{loop}/{number}"), number))
        shown = set(numbers[:MOST_ITERATIONS])
        for number in numbers:
            path = f"{loop}/{number}"
            if self._keep == path or self._keep.startswith(f"{path}/"):
                shown.add(number)
        return sorted(shown)

    def _rank(self, path: str) -> int:
        state = self._state(path, "")
        return 0 if state in BROKEN else 1 if state == TaskState.RUNNING else 2

    # Boxes

    def _filled(self, box: Box, component: str, depth: int) -> Box:
        """Fill a group with its DAG's boxes, or close it."""
        if depth > self._depth:
            return replace(box, hidden=self._within(component, 1))
        dag = self._pipeline.component(component).dag
        if component not in self._orders:
            self._orders[component] = sort_tasks(self._pipeline, dag)
        order = self._orders[component]
        calls = naming.labels(dag)
        children = [self._task(box, name, dag.tasks[name], depth, calls) for name in order]
        return replace(
            box,
            children=tuple(children),
            edges=_edges(self._pipeline, box.path, dag, order),
            group=True,
        )

    def _task(
        self, parent: Box, name: str, task: ir.PipelineTaskSpec, depth: int,
        calls: Mapping[str, str],
    ) -> Box:  # fmt: skip
        component = self._pipeline.component(task.component_ref.name)
        runs, requirements = describing.runs(component, self._pipeline)
        outputs, artifacts = describing.outputs(component)
        box = self._standing(
            Box(
                _joined(parent.path, name), naming.display_name_or_key(name, task),
                describing.kind(task, self._pipeline), text.plain(task.component_ref.name), runs,
                requirements, describing.note(task), describing.inputs(task, calls), outputs,
                artifacts,
            ),
            parent.state,
        )  # fmt: skip
        if box.kind == model.LOOP:
            return self._loop(box, task.component_ref.name, depth)
        if component.WhichOneof("implementation") == "dag":
            return self._filled(replace(box, group=True), task.component_ref.name, depth + 1)
        return box

    def _loop(self, box: Box, component: str, depth: int) -> Box:
        numbers = self._iterations.get(box.path, [])
        if not numbers:
            return self._loop_without_iterations(box, component, depth)
        states = {number: self._state(f"{box.path}/{number}", box.state) for number in numbers}
        box = replace(box, group=True, counts=Counter(states.values()))
        shown = self._shown(box.path)
        if depth >= self._depth:
            return replace(box, hidden=len(numbers))
        children = [self._iteration(box, number, component, depth) for number in shown]
        if rest := len(numbers) - len(shown):
            counts = Counter(state for number, state in states.items() if number not in shown)
            children.append(
                Box(f"{box.path}/*", f"{rest} more", model.MORE, counts=counts, hidden=rest)
            )
        return replace(box, children=tuple(children))

    def _loop_without_iterations(self, box: Box, component: str, depth: int) -> Box:
        declared = self._pipeline.component(component)
        ended = box.state in DONE or box.state == TaskState.FAILED
        if ended:  # it was over nothing, or over what is no list
            return replace(box, group=True)
        if declared.WhichOneof("implementation") != "dag":
            return box
        return self._filled(replace(box, group=True), component, depth + 1)

    def _iteration(self, loop: Box, number: int, component: str, depth: int) -> Box:
        box = self._standing(
            Box(f"{loop.path}/{number}", f"[{number}]", model.ITERATION, loop.component),
            loop.state,
        )
        if self._pipeline.component(component).WhichOneof("implementation") != "dag":
            return box
        return self._filled(replace(box, group=True), component, depth + 1)

    # How they stand

    def _standing(self, box: Box, around: str) -> Box:
        if self._rows is None:
            return box
        state = self._state(box.path, around)
        row = self._rows.get(box.path)
        if row is None:
            return replace(box, state=state)
        ended = row.ended
        if not ended and row.began and state not in UNDONE:  # it was killed
            ended = row.began
        return replace(
            box, state=state, reason=text.plain(row.reason), attempt=row.attempt,
            began=row.began, ended=ended,
        )  # fmt: skip

    def _state(self, path: str, around: str) -> str:
        """State of a node; an unknown one has the state of its group."""
        row = (self._rows or {}).get(path)
        if row is not None:
            return node_state(row, over=self._over)
        if around in _INHERITED:
            return around
        return str(TaskState.CANCELLED if self._over else TaskState.WAITING)


def as_data(root: Box, now: float) -> dict[str, object]:
    """Convert a graph to plain JSON values, for ``modelyard pipeline graph --json``."""
    nodes: list[object] = []
    edges: list[object] = []
    for box in root.walk():
        if box.path:
            nodes.append(_node(box, now))
        edges.extend(
            {"source": one.source, "target": one.target, "kind": one.kind, "names": one.carried}
            for one in box.edges
        )
    return {"name": root.name, "state": root.state, "nodes": nodes, "edges": edges}


def _node(box: Box, now: float) -> Mapping[str, object]:
    seconds = box.seconds(now)
    return {
        "path": box.path,
        "name": box.name,
        "kind": box.kind,
        "state": box.state,
        "reason": box.reason,
        "attempt": box.attempt,
        "seconds": None if seconds is None else round(seconds, 3),
        "component": box.component,
        "runs": box.runs,
        "requirements": box.requirements,
        "note": box.note,
        "inputs": box.inputs,
        "outputs": box.outputs,
        "artifacts": box.artifacts,
        "counts": box.counts,
        "hidden": box.hidden,
    }
