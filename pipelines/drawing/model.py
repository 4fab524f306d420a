"""Model of a graph of a pipeline or of a run, as plain data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pipelines.drawing import text

# Kinds of boxes.
PIPELINE = "pipeline"
TASK = "task"
IMPORTER = "importer"
DAG = "dag"
CONDITION = "condition"
LOOP = "loop"
ITERATION = "iteration"
EXIT = "exit"
MORE = "more"  # stands for iterations that are not shown


class NodeRow(Protocol):
    """A node of a run, such as ``registry.pipelines.pipeline_nodes.PipelineNode``."""

    @property
    def path(self) -> str:
        """Its path in the run."""

    @property
    def kind(self) -> str:
        """``task``, ``dag``, ``loop`` or ``iteration``."""

    @property
    def state(self) -> str:
        """Its state."""

    @property
    def reason(self) -> str:
        """Why it failed or was omitted."""

    @property
    def attempt(self) -> int:
        """Its attempt, from 1."""

    @property
    def began(self) -> float:
        """Seconds since 1970; 0 if it has not begun."""

    @property
    def ended(self) -> float:
        """Seconds since 1970; 0 if it has not ended."""


@dataclass(frozen=True)
class Edge:
    """Dependency between two boxes of a group.

    Attributes:
        source: The path of the box that comes first.
        target: The path of the other.
        kind: ``artifact`` or ``parameter`` if something is handed on, ``order`` if not.
        carried: The names of what is handed on.
    """

    source: str
    target: str
    kind: str
    carried: tuple[str, ...] = ()


@dataclass(frozen=True)
class Box:
    """A task, or a group of them.

    Attributes:
        path: Where it is: the names of the groups around it and the numbers of iterations, then
            its own; joined by ``/``. The pipeline's is empty.
        name: What people call it: the name that they gave it, or else its key in the pipeline.
        kind: ``pipeline``, ``task``, ``importer``, ``dag``, ``condition``, ``loop``,
            ``iteration``, ``exit``, or ``more`` for iterations that are not shown.
        component: The component that it runs.
        runs: What that is: an image, or where an importer imports from.
        requirements: The packages that it has installed.
        note: What it depends on or goes through, such as ``coin == 'heads'``.
        inputs: Where each input comes from, in words.
        outputs: The type of each output, in words.
        artifacts: Those of the outputs that are artifacts.
        state: How it stands; empty where nothing has run.
        reason: Why it failed or was left out.
        attempt: Which attempt of it.
        began: When it began, in seconds since 1970; 0 if it has not.
        ended: When it ended; 0 if it has not.
        group: Whether it is drawn as a frame around others.
        children: What it holds, each after those that it depends on.
        edges: Between its children.
        counts: Of a loop that has begun, how many iterations stand how.
        hidden: How many boxes it holds beside those that are shown.
    """

    path: str
    name: str
    kind: str
    component: str = ""
    runs: str = ""
    requirements: tuple[str, ...] = ()
    note: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    artifacts: tuple[str, ...] = ()
    state: str = ""
    reason: str = ""
    attempt: int = 1
    began: float = 0.0
    ended: float = 0.0
    group: bool = False
    children: tuple[Box, ...] = ()
    edges: tuple[Edge, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    hidden: int = 0

    @property
    def key(self) -> str:
        """The last part of its path, where it is called otherwise; else empty."""
        if self.kind in {PIPELINE, ITERATION, MORE}:
            return ""
        own = text.plain(self.path.rpartition("/")[2])
        return own if own != self.name else ""

    def seconds(self, now: float) -> float | None:
        """Its duration until its end or now; None if it has not begun."""
        if not self.began:
            return None
        return max(0.0, (self.ended or now) - self.began)

    def walk(self) -> Iterator[Box]:
        """Iterate over the box and its descendants, the outermost first."""
        yield self
        for child in self.children:
            yield from child.walk()
