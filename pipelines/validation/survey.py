"""Facts about a pipeline as a whole, for the checks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property

from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from pipelines.pipeline import ROOT, Pipeline

_CHANNEL = "pipelinechannel--"
DEEPEST = 100


def bare(name: str) -> str:
    """Remove the prefix that the compiler gives to the inputs that it adds."""
    return name.removeprefix(_CHANNEL)


def is_added(name: str) -> bool:
    """Whether the compiler has added an input, for a placeholder in a constant."""
    return name.startswith(_CHANNEL)


def item_input(task: ir.PipelineTaskSpec) -> str:
    """Return the input of a loop's item; "" if the task is not a loop."""
    kind = task.WhichOneof("iterator")
    return str(getattr(task, kind).item_input) if kind else ""


class Survey:
    """A pipeline and facts derived from it.

    Attributes:
        pipeline: The pipeline.
        reached: The components that tasks reach, the root first.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.reached = self._reach()

    def place(self, component: str) -> str:
        """Place of a component in the file."""
        return ROOT if component == ROOT else f"components.{component}"

    def known(self, component: str) -> ir.ComponentSpec | None:
        """Return the component of a name; None if there is none."""
        if component and component in self.pipeline.spec.components:
            return self.pipeline.component(component)
        return None

    def tasks(self, component: str) -> Iterator[tuple[str, ir.PipelineTaskSpec]]:
        """The tasks of a component that is a DAG, in the order of their names."""
        yield from sorted(self.pipeline.component(component).dag.tasks.items())

    def _reach(self) -> list[str]:
        found = [ROOT]
        seen = {ROOT}
        for component in found:
            for _, task in self.tasks(component):
                name = task.component_ref.name
                if name not in seen and self.known(name) is not None:
                    seen.add(name)
                    found.append(name)
        return found

    def uses(self) -> Iterator[tuple[str, str, ir.PipelineTaskSpec]]:
        """All tasks as (enclosing component, name, task)."""
        for component in self.reached:
            for name, task in self.tasks(component):
                yield component, name, task

    @cached_property
    def loose(self) -> frozenset[tuple[str, str]]:
        """Inputs whose declared types are unreliable: parts of loops' items.

        The compiler declares an item as a text where it does not know what the list has in it,
        and so on for what is made of it. The values may be anything.
        """
        found: set[tuple[str, str]] = set()
        grown = True
        while grown:
            before = len(found)
            for component, _, task in self.uses():
                runs = task.component_ref.name
                if item := item_input(task):
                    found.add((runs, item))
                for key, spec in task.inputs.parameters.items():
                    origin = (component, spec.component_input_parameter)
                    if spec.parameter_expression_selector or origin in found:
                        found.add((runs, key))
            grown = len(found) > before
        return frozenset(found)

    @cached_property
    def has_workspace(self) -> bool:
        """Whether the pipeline has a workspace."""
        workspace = self.pipeline.config.get("workspace")
        return isinstance(workspace, dict) and bool(workspace.get("size"))

    @cached_property
    def added(self) -> dict[str, set[str]]:
        """Inputs that tasks pass to each component, declared or not."""
        found: dict[str, set[str]] = {name: set() for name in self.reached}
        for _, _, task in self.uses():
            if task.component_ref.name in found:
                found[task.component_ref.name].update(task.inputs.parameters)
        return found

    @cached_property
    def extent(self) -> tuple[int, int]:
        """How many tasks run if no condition holds them back, and how deep they are nested.

        Loops count the items that are known. What is deeper than ``DEEPEST`` is not looked at.
        """
        known: dict[str, tuple[int, int]] = {}

        def of(name: str, above: tuple[str, ...]) -> tuple[int, int]:
            if name in above or len(above) > DEEPEST:
                return 0, 1
            if name not in known:
                size, depth = 0, 0
                for _, task in self.tasks(name):
                    runs = task.component_ref.name
                    if self.known(runs) is not None:
                        below = of(runs, (*above, name))
                        size += _items(task) * (1 + below[0])
                        depth = max(depth, below[1])
                known[name] = size, depth + 1
            return known[name]

        return of(ROOT, ())


def _items(task: ir.PipelineTaskSpec) -> int:
    raw = task.parameter_iterator.items.raw
    try:
        given = json.loads(raw) if raw else None
    except (ValueError, RecursionError):
        return 1
    return len(given) if isinstance(given, list) else 1
