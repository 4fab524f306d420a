"""Position of a run's node in its pipeline, derived from its path."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass

from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from pipelines import graph, naming
from pipelines.pipeline import ROOT, Pipeline


@dataclass(frozen=True)
class NodePosition:
    """Position of a node.

    Attributes:
        group: The path of the enclosing nested DAG, loop or iteration; "" for none. An
            iteration of a single task is shown as that task, so it is not a group.
        only: Whether it is such an iteration.
        after: The paths of its upstream nodes.
        names: The names of the tasks around it, the outermost first, and its own.
        iterations: The numbers of the iterations around it, the outermost first.
        component: What it runs.
        title: The display name; "" where a compiler made it, and for an iteration.
    """

    group: str
    only: bool
    after: tuple[str, ...]
    names: tuple[str, ...]
    iterations: tuple[int, ...]
    component: str
    title: str = ""


class NodePositions:
    """Positions of the nodes of a pipeline's runs."""

    def __init__(self, pipeline: Pipeline) -> None:
        """Read a valid pipeline."""
        self._pipeline = pipeline
        self._waits = functools.cache(self._upstream)
        self._counted = functools.cache(self._count)

    def of(self, path: str) -> NodePosition | None:
        """Return the position of a path; None if the pipeline has no such node."""
        parts = path.split("/")
        scope, group, component = "", "", ROOT
        names: list[str] = []
        iterations: list[int] = []
        after: tuple[str, ...] = ()
        only = False
        title = ""
        at = 0
        while at < len(parts):
            task = self._task(component, parts[at])
            if task is None:
                return None
            scope = "/".join(parts[:at])
            group = group if only else scope
            before = sorted(self._waits(component)[parts[at]])
            after = tuple(f"{scope}/{name}" if scope else name for name in before)
            names.append(parts[at])
            title = naming.display_name(parts[at], task)
            component, only = task.component_ref.name, False
            at += 1
            if task.WhichOneof("iterator") and at < len(parts):
                if not parts[at].isdecimal():
                    return None
                group, after, title = "/".join(parts[:at]), (), ""
                iterations.append(int(parts[at]))
                only = len(self._pipeline.component(component).dag.tasks) == 1
                at += 1
        return NodePosition(group, only, after, tuple(names), tuple(iterations), component, title)

    def times(self, name: str) -> int:
        """Count the pipeline's tasks of a name, nested DAGs excluded.

        Iterations of a loop count as one.
        """
        return self._counted(ROOT)[name]

    def outputs(self, component: str, schema: str) -> list[str]:
        """List the output artifacts of a component that have a type."""
        declared = self._pipeline.component(component).output_definitions.artifacts
        return [name for name, one in declared.items() if one.artifact_type.schema_title == schema]

    def _task(self, component: str, name: str) -> ir.PipelineTaskSpec | None:
        found = self._pipeline.component(component)
        if found.WhichOneof("implementation") != "dag" or name not in found.dag.tasks:
            return None
        return found.dag.tasks[name]

    def _upstream(self, component: str) -> dict[str, frozenset[str]]:
        return graph.upstream(self._pipeline.component(component).dag)

    def _count(self, component: str) -> Counter[str]:
        """Count names below a DAG, once for each component, which may be used repeatedly."""
        found: Counter[str] = Counter()
        for name, task in self._pipeline.component(component).dag.tasks.items():
            inner = task.component_ref.name
            if self._pipeline.component(inner).WhichOneof("implementation") == "dag":
                found.update(self._counted(inner))
            else:
                found[name] += 1
        return found
