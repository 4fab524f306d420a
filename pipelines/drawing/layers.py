"""Layered layout of boxes, dependents below their dependencies. Pure, deterministic.

The steps are those of Sugiyama, Tagawa and Toda (1981): a layer for each box, an order within each
layer by barycentres, then places (``spreading``). An edge that passes layers has a lane there,
which the edges of one box share.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pipelines.drawing import spreading

K = TypeVar("K", bound=Hashable)

GAP = 26.0  # between neighbours
ROW_GAP = 52.0  # between layers
_LANE = 14.0  # the width that an edge takes where it passes a layer
_MOST_LANES = 20_000
_SWEEPS = 4
_MANY = 4_000  # from so many edges on, fewer sweeps must do

Point = tuple[float, float]


@dataclass
class Arrangement(Generic[K]):
    """Coordinates of boxes and edges.

    Attributes:
        places: The left upper corner of each.
        routes: For each edge the points that it goes through, from the lower side of the one to
            the upper side of the other.
        width: Of all of it.
        height: Of all of it.
    """

    places: dict[K, Point] = field(default_factory=dict)
    routes: dict[tuple[K, K], list[Point]] = field(default_factory=dict)
    width: float = 0.0
    height: float = 0.0


def layers(names: Sequence[K], edges: Iterable[tuple[K, K]]) -> dict[K, int]:
    """Compute each box's layer, from 0: just below the lowest that it depends on.

    What depends on nothing is just above the first that depends on it.

    Raises:
        ValueError: If there is a cycle.
    """
    after: dict[K, list[K]] = {name: [] for name in names}
    left = dict.fromkeys(names, 0)
    for source, target in edges:
        after[source].append(target)
        left[target] += 1
    roots = [name for name in names if not left[name]]
    found = dict.fromkeys(roots, 0)
    ready = list(roots)
    for name in ready:
        for target in after[name]:
            found[target] = max(found.get(target, 0), found[name] + 1)
            left[target] -= 1
            if not left[target]:
                ready.append(target)
    if len(ready) < len(after):
        raise ValueError("there is a cycle")
    for name in roots:
        if after[name]:
            found[name] = min(found[target] for target in after[name]) - 1
    return found


def arrange(
    sizes: Mapping[K, tuple[float, float]], edges: Sequence[tuple[K, K]]
) -> Arrangement[K]:
    """Arrange boxes of these sizes.

    Args:
        sizes: Width and height of each, in the order in which equals are to stand.
        edges: Which depends on which, the latter second; no edge twice, and no cycle.

    Raises:
        ValueError: If there is a cycle.
    """
    if not sizes:
        return Arrangement()
    grid = _Grid(sizes, edges)
    grid.order()
    return grid.placed()


class _Grid(Generic[K]):
    """Boxes and lanes in layers. Both are numbers here: first the boxes, then the lanes."""

    def __init__(
        self, sizes: Mapping[K, tuple[float, float]], edges: Sequence[tuple[K, K]]
    ) -> None:
        self._names = list(sizes)
        self._edges = edges
        number = {name: at for at, name in enumerate(self._names)}
        layer = layers(self._names, edges)
        self._layer = [layer[name] for name in self._names]
        self._widths = [sizes[name][0] for name in self._names]
        self._heights = [sizes[name][1] for name in self._names]
        pairs = [(number[source], number[target]) for source, target in edges]
        self._lanes: dict[tuple[int, int], int] = {}
        self._links = self._linked(pairs)
        self.rows: list[list[int]] = [[] for _ in range(max(self._layer) + 1)]
        for one, at in enumerate(self._layer):
            self.rows[at].append(one)
        self._above: list[list[int]] = [[] for _ in self._layer]
        self._below: list[list[int]] = [[] for _ in self._layer]
        for upper, lower in self._links:
            self._below[upper].append(lower)
            self._above[lower].append(upper)

    def _linked(self, pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Edges between neighbouring layers: long ones go through lanes, one for each source."""
        reach: defaultdict[int, int] = defaultdict(int)
        for source, target in pairs:
            reach[source] = max(reach[source], self._layer[target])
        total = sum(max(0, last - self._layer[one] - 1) for one, last in reach.items())
        if total > _MOST_LANES:
            return [(a, b) for a, b in pairs if self._layer[b] == self._layer[a] + 1]
        links = []
        for source in sorted(reach):
            before = source
            for at in range(self._layer[source] + 1, reach[source]):
                lane = self._lanes[source, at] = len(self._layer)
                self._layer.append(at)
                self._widths.append(_LANE)
                self._heights.append(0.0)
                links.append((before, lane))
                before = lane
        for source, target in pairs:
            links.append((self._lanes.get((source, self._layer[target] - 1), source), target))
        return links

    # The order within the layers

    def order(self) -> None:
        """Order each layer so that few edges cross."""
        self._order_by_walking()
        best, fewest = [list(row) for row in self.rows], self._crossings()
        for _ in range(_SWEEPS if len(self._links) < _MANY else 1):
            if not fewest:
                break
            self._sweep(range(1, len(self.rows)), self._above)
            self._sweep(range(len(self.rows) - 2, -1, -1), self._below)
            crossings = self._crossings()
            if crossings < fewest:
                best, fewest = [list(row) for row in self.rows], crossings
        self.rows = best

    def _order_by_walking(self) -> None:
        """Begin with the order in which a walk from above meets them: trees cross nothing."""
        met = [False] * len(self._layer)
        rows: list[list[int]] = [[] for _ in self.rows]
        for start in (one for row in self.rows for one in row if not self._above[one]):
            stack = [start]
            while stack:
                one = stack.pop()
                if met[one]:
                    continue
                met[one] = True
                rows[self._layer[one]].append(one)
                stack.extend(reversed(self._below[one]))
        self.rows = rows

    def _sweep(self, order: Iterable[int], near: list[list[int]]) -> None:
        position = [0.0] * len(self._layer)
        for row in self.rows:
            for at, one in enumerate(row):
                position[one] = at
        for at in order:
            row = self.rows[at]
            centre = {
                one: sum(position[other] for other in near[one]) / len(near[one])
                if near[one]
                else position[one]
                for one in row
            }
            row.sort(key=centre.__getitem__)
            for place, one in enumerate(row):
                position[one] = place

    def _crossings(self) -> int:
        """How many pairs of edges cross."""
        position = [0] * len(self._layer)
        for row in self.rows:
            for at, one in enumerate(row):
                position[one] = at
        found = 0
        for row in self.rows:
            ends: list[int] = []
            for one in row:
                targets = sorted(position[lower] for lower in self._below[one])
                found += sum(len(ends) - bisect.bisect_right(ends, target) for target in targets)
                for target in targets:
                    bisect.insort(ends, target)
        return found

    # Places

    def placed(self) -> Arrangement[K]:
        """Give each box a place and each edge a route."""
        lanes = [one >= len(self._names) for one in range(len(self._layer))]

        def distance(left: int, right: int) -> float:
            gap = GAP / 2 if lanes[left] or lanes[right] else GAP
            return (self._widths[left] + self._widths[right]) / 2 + gap

        centres = spreading.centres(self.rows, self._above, self._below, distance, lanes)
        left = min(centre - width / 2 for centre, width in zip(centres, self._widths, strict=True))
        centres = [centre - left for centre in centres]
        bands = []
        y = 0.0
        for row in self.rows:
            tallest = max(self._heights[one] for one in row)
            bands.append((y, y + tallest))
            y += tallest + ROW_GAP
        return Arrangement(
            places={
                name: (centres[one] - self._widths[one] / 2, bands[self._layer[one]][0])
                for one, name in enumerate(self._names)
            },
            routes=self._routes(centres, bands),
            width=max(at + width / 2 for at, width in zip(centres, self._widths, strict=True)),
            height=bands[-1][1],
        )

    def _routes(self, centres: list[float], bands: list[Point]) -> dict[tuple[K, K], list[Point]]:
        number = {name: at for at, name in enumerate(self._names)}
        found = {}
        for edge in self._edges:
            source, target = number[edge[0]], number[edge[1]]
            first, last = self._layer[source], self._layer[target]
            points = [(centres[source], bands[first][0] + self._heights[source])]
            if self._heights[source] < bands[first][1] - bands[first][0]:
                points.append((centres[source], bands[first][1]))
            for at in range(first + 1, last):
                lane = self._lanes.get((source, at))
                if lane is not None:
                    points += [(centres[lane], bands[at][0]), (centres[lane], bands[at][1])]
            points.append((centres[target], bands[last][0]))
            found[edge] = points
        return found
