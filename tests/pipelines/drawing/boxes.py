"""Boxes, graphs and rows that tests are made of."""

from __future__ import annotations

import itertools
import random
import re
from xml.etree import ElementTree as ET

from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from pipelines import reading
from pipelines.drawing.layout import GraphLayout, Rect
from pipelines.drawing.model import Box, Edge
from pipelines.pipeline import Pipeline
from registry.pipelines.pipeline_nodes import PipelineNode
from tests.pipelines import corpus

SVG = "{http://www.w3.org/2000/svg}"


def read(name: str) -> Pipeline:
    return reading.read_bytes(corpus.compiled(name), f"{name}.yaml")


def task(name: str, group: str = "", **told: object) -> Box:
    return Box(f"{group}/{name}" if group else name, name, "task", **told)  # type: ignore[arg-type]


def group(name: str, *names: str, edges: str = "", around: str = "", **told: object) -> Box:
    """A group of tasks; ``edges`` as ``a>b c>d``."""
    path = f"{around}/{name}" if around else name
    children = tuple(task(one, path) for one in names)
    kind = str(told.pop("kind", "dag"))
    return Box(
        path, name, kind, group=True, children=children, edges=edges_of(edges, path), **told
    )  # type: ignore[arg-type]


def edges_of(written: str, path: str = "") -> tuple[Edge, ...]:
    found = []
    for pair in written.split():
        source, target = ((f"{path}/{end}" if path else end) for end in pair.split(">"))
        found.append(Edge(source, target, "parameter", ("Output",)))
    return tuple(found)


def whole(*children: Box, edges: str = "", **told: object) -> Box:
    return Box(
        "", str(told.pop("name", "all")), "pipeline", group=True, children=children,
        edges=edges_of(edges), **told,
    )  # type: ignore[arg-type]  # fmt: skip


def node(path: str, state: str = "SUCCEEDED", kind: str = "task", **told: object) -> PipelineNode:
    """What is known of a node of a run."""
    return PipelineNode("run", path, path.rpartition("/")[2], kind, state, **told)  # type: ignore[arg-type]


def flat(waits: dict[str, list[str]], components: dict[str, str] | None = None) -> Pipeline:
    """A pipeline of one DAG: its tasks, and what each waits for."""
    spec, deployment = ir.PipelineSpec(), ir.PipelineDeploymentConfig()
    spec.pipeline_info.name = "flat"
    spec.components["leaf"].executor_label = "leaf"
    deployment.executors["leaf"].container.image = "busybox"
    for name, before in waits.items():
        made = spec.root.dag.tasks[name]
        made.component_ref.name = (components or {}).get(name, "leaf")
        made.dependent_tasks.extend(before)
    return Pipeline(spec, deployment)


def nested(depth: int, width: int) -> Pipeline:
    """A pipeline whose groups hold ``width`` groups each, ``depth`` deep."""
    made = flat({})
    for level in range(depth):
        component = made.spec.root if level == 0 else made.spec.components[f"level-{level}"]
        below = f"level-{level + 1}" if level + 1 < depth else "leaf"
        for number in range(width):
            component.dag.tasks[f"t{number}"].component_ref.name = below
    return made


def random_tree(seed: int, tasks: int) -> Box:
    """Tasks in groups in groups, with edges among the neighbours."""
    chance = random.Random(seed)

    def fill(path: str, left: int, depth: int) -> tuple[tuple[Box, ...], tuple[Edge, ...]]:
        children = []
        for number in range(left):
            here = f"{path}/n{number}" if path else f"n{number}"
            if depth and chance.random() < 0.2:
                inner, edges = fill(here, chance.randint(0, 5), depth - 1)
                children.append(
                    Box(here, f"n{number}", "dag", group=True, children=inner, edges=edges)
                )
            else:
                children.append(Box(here, f"n{number}", "task"))
        pairs = itertools.combinations(children, 2)
        density = min(0.5, 3 / max(left, 1))
        edges = tuple(Edge(a.path, b.path, "order") for a, b in pairs if chance.random() < density)
        return tuple(children), edges

    children, edges = fill("", tasks, 3)
    return Box("", "all", "pipeline", group=True, children=children, edges=edges)


def check(root: Box, placed: GraphLayout) -> None:
    """What holds for every layout."""
    rects = placed.rects
    assert set(rects) == {box.path for box in root.walk() if box.path}
    frames = {"": Rect(0, 0, placed.width, placed.height), **rects}
    for box in root.walk():
        around = frames[box.path]
        for child in box.children:
            assert inside(rects[child.path], around), (child.path, box.path)
        apart([rects[child.path] for child in box.children])
    for _, points in placed.routes:
        heights = [y for _, y in points]
        assert heights == sorted(heights)
        assert heights[-1] > heights[0]
        assert all(-0.1 <= x <= placed.width + 0.1 for x, _ in points)


def inside(inner: Rect, outer: Rect) -> bool:
    slack = 0.01
    return (
        inner.x >= outer.x - slack
        and inner.y >= outer.y - slack
        and inner.x + inner.width <= outer.x + outer.width + slack
        and inner.y + inner.height <= outer.y + outer.height + slack
    )


def apart(rects: list[Rect]) -> None:
    """No two overlap."""
    ordered = sorted(rects, key=lambda rect: rect.x)
    for at, one in enumerate(ordered):
        for other in itertools.islice(ordered, at + 1, None):
            if other.x >= one.x + one.width - 0.01:
                break
            below = other.y >= one.y + one.height - 0.01 or one.y >= other.y + other.height - 0.01
            assert below, (one, other)


def parsed(written: str) -> ET.Element:
    return ET.fromstring(written)


def texts(written: str) -> list[str]:
    """What is written in a graph, without titles and style."""
    return ["".join(one.itertext()) for one in parsed(written).iter(f"{SVG}text")]


def titles(written: str) -> list[str]:
    return [one.text or "" for one in parsed(written).iter(f"{SVG}title")]


def without_style(written: str) -> str:
    return re.sub(r"<style>.*?</style>", "", written)
