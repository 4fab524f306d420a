"""Layout of a graph of nested groups, each arranged by itself."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipelines.drawing import layers, text
from pipelines.drawing.layers import Point
from pipelines.drawing.model import Box, Edge

WIDTH, HEIGHT = 208.0, 54.0  # of a task
TITLE = 13.0  # the size of a group's name
TITLE_ROOM = 34.0  # the height of a group's head
NOTE_ROOM = 17.0  # what a line below its name adds
_PADDING = 18.0
_BESIDE = 190.0  # what stands beside a group's name: an icon, how it stands and for how long
_NARROWEST, _WIDEST_TITLE = 230.0, 480.0
_TWINS = 6  # so many that depend on the same, and have the same depend on them, are a block
_BLOCK_PADDING = 12.0
_SHAPE = 1.8  # a block's width is about so many times its height, but
_COLUMNS, _SCREEN = 4, 1100.0  # it is no narrower than so many of its boxes, or a screen


@dataclass(frozen=True)
class Rect:
    """A rectangle: its left upper corner, and its size."""

    x: float
    y: float
    width: float
    height: float


@dataclass
class GraphLayout:
    """Coordinates of all boxes and edges.

    Attributes:
        rects: The place of each box, by its path. The whole has none.
        routes: The points that each edge goes through, from above.
        blocks: Frames around what depends on the same: an edge to one goes to all within.
        width: Of all of it.
        height: Of all of it.
    """

    rects: dict[str, Rect] = field(default_factory=dict)
    routes: list[tuple[Edge, list[Point]]] = field(default_factory=list)
    blocks: list[Rect] = field(default_factory=list)
    width: float = 0.0
    height: float = 0.0


def head(box: Box) -> float:
    """Height of a group's head."""
    return TITLE_ROOM + (NOTE_ROOM if has_note(box) else 0.0)


def has_note(box: Box) -> bool:
    """Whether a group's head has a second line."""
    return bool(box.note or box.counts or box.hidden)


def layout(root: Box) -> GraphLayout:
    """Lay out a graph."""
    inner = _inside(root)
    found = GraphLayout(width=inner.width, height=inner.height)
    _move(inner, 0.0, 0.0, found)
    return found


@dataclass
class _GroupLayout:
    """The arrangement of what a group holds, from its own left upper corner on."""

    width: float
    height: float
    rects: dict[str, Rect] = field(default_factory=dict)
    routes: list[tuple[Edge, list[Point]]] = field(default_factory=list)
    blocks: list[Rect] = field(default_factory=list)
    groups: dict[str, _GroupLayout] = field(default_factory=dict)


def _inside(group: Box) -> _GroupLayout:
    groups = {child.path: _inside(child) for child in group.children if child.group}
    sizes = {
        child.path: _framed(child, groups[child.path]) if child.group else (WIDTH, HEIGHT)
        for child in group.children
    }
    inner = _arranged(sizes, group.edges)
    inner.groups = groups
    return inner


def _framed(box: Box, inner: _GroupLayout) -> tuple[float, float]:
    """The size of a group with its frame."""
    said = text.width(box.name, TITLE) + _BESIDE
    if box.note:
        said = max(said, text.width(box.note, TITLE - 2) + 2 * _PADDING)
    least = max(_NARROWEST, min(said, _WIDEST_TITLE))
    room = inner.height + 2 * _PADDING if inner.height else _PADDING
    return max(inner.width + 2 * _PADDING, least), head(box) + room - 4


def _arranged(sizes: dict[str, tuple[float, float]], edges: Sequence[Edge]) -> _GroupLayout:
    """Arrange what has nothing to do with each other by itself, and put that side by side."""
    apart = _apart(list(sizes), edges)
    if len(apart) <= 1:
        return _connected(sizes, edges)
    each = []
    for members in apart:
        among = set(members)
        own = [edge for edge in edges if edge.source in among]
        each.append(_connected({one: sizes[one] for one in members}, own))
    packed = _packed([(one.width, one.height) for one in each], 0.0)
    found = _GroupLayout(*packed.size)
    for one, (x, y) in zip(each, packed.corners, strict=True):
        _copy(one, x, y, found)
    return found


def _apart(names: list[str], edges: Sequence[Edge]) -> list[list[str]]:
    """The connected parts of a graph: those of several first, each in the order of the names."""
    leader = {name: name for name in names}

    def led(name: str) -> str:
        while leader[name] != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    for edge in edges:
        leader[led(edge.target)] = led(edge.source)
    parts: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        parts[led(name)].append(name)
    return sorted(parts.values(), key=lambda part: len(part) == 1)


def _connected(sizes: dict[str, tuple[float, float]], edges: Sequence[Edge]) -> _GroupLayout:
    blocks = _twins(list(sizes), edges)
    packed = {
        members[0]: _packed([sizes[one] for one in members], _BLOCK_PADDING) for members in blocks
    }
    stands_for = {one: members[0] for members in blocks for one in members}
    outer = {
        name: packed[name].size if name in packed else size
        for name, size in sizes.items()
        if stands_for.get(name, name) == name
    }
    merged: dict[tuple[str, str], Edge] = {}
    for edge in edges:
        ends = (
            stands_for.get(edge.source, edge.source), stands_for.get(edge.target, edge.target)
        )  # fmt: skip
        merged.setdefault(ends, edge)
    placed = layers.arrange(outer, list(merged))
    found = _GroupLayout(placed.width, placed.height)
    found.routes = [(merged[ends], points) for ends, points in placed.routes.items()]
    members_of = {members[0]: members for members in blocks}
    for name, (x, y) in placed.places.items():
        if name not in packed:
            found.rects[name] = Rect(x, y, *sizes[name])
            continue
        found.blocks.append(Rect(x, y, *packed[name].size))
        for one, (dx, dy) in zip(members_of[name], packed[name].corners, strict=True):
            found.rects[one] = Rect(x + dx, y + dy, *sizes[one])
    return found


def _twins(names: list[str], edges: Sequence[Edge]) -> list[list[str]]:
    """Those that depend on the same and have the same depend on them, where they are many."""
    before: defaultdict[str, set[str]] = defaultdict(set)
    after: defaultdict[str, set[str]] = defaultdict(set)
    for edge in edges:
        before[edge.target].add(edge.source)
        after[edge.source].add(edge.target)
    alike: defaultdict[tuple[frozenset[str], frozenset[str]], list[str]] = defaultdict(list)
    for name in names:
        alike[frozenset(before[name]), frozenset(after[name])].append(name)
    return [members for members in alike.values() if len(members) >= _TWINS]


@dataclass
class _Packing:
    """Boxes side by side, in lines."""

    corners: list[Point]
    size: tuple[float, float]


def _packed(sizes: list[tuple[float, float]], padding: float) -> _Packing:
    """Put boxes in lines, so that all of it has a pleasant shape, with room around it."""
    gap = layers.GAP
    area = sum((width + gap) * (height + gap) for width, height in sizes)
    widest = max(width for width, _ in sizes)
    least = min(_COLUMNS * (widest + gap), _SCREEN)
    room = max(math.sqrt(area * _SHAPE), least, widest)
    found = _in_lines(sizes, room, gap)
    while len(found.lines) > 1:  # as narrow as so many lines can be
        narrower = _in_lines(sizes, found.width - 1, gap)
        if len(narrower.lines) > len(found.lines) or narrower.width >= found.width:
            break
        found = narrower
    corners, y, right = [], 0.0, 0.0
    for line in found.lines:
        x = 0.0
        for width, _ in line:
            corners.append((x + padding, y + padding))
            x += width + gap
        right = max(right, x - gap)
        y += max(height for _, height in line) + gap
    return _Packing(corners, (right + 2 * padding, y - gap + 2 * padding))


@dataclass
class _Lines:
    """Sizes in lines, and how wide the widest is."""

    lines: list[list[tuple[float, float]]]
    width: float


def _in_lines(sizes: list[tuple[float, float]], room: float, gap: float) -> _Lines:
    lines: list[list[tuple[float, float]]] = [[]]
    x = widest = 0.0
    for size in sizes:
        if lines[-1] and x + size[0] > room:
            lines.append([])
            x = 0.0
        lines[-1].append(size)
        widest = max(widest, x + size[0])
        x += size[0] + gap
    return _Lines(lines, widest)


def _copy(
    held: _GroupLayout | GraphLayout, x: float, y: float, found: _GroupLayout | GraphLayout
) -> None:
    for edge, points in held.routes:
        found.routes.append((edge, [(x + px, y + py) for px, py in points]))
    for block in held.blocks:
        found.blocks.append(Rect(x + block.x, y + block.y, block.width, block.height))
    for path, rect in held.rects.items():
        found.rects[path] = Rect(x + rect.x, y + rect.y, rect.width, rect.height)


def _move(inner: _GroupLayout, x: float, y: float, found: GraphLayout) -> None:
    """Add what a group holds, whose own corner is at a place, and all within."""
    _copy(inner, x, y, found)
    for path, group in inner.groups.items():
        rect = inner.rects[path]
        left = x + rect.x + (rect.width - group.width) / 2
        below = y + rect.y + rect.height - _PADDING - group.height
        _move(group, left, below, found)
