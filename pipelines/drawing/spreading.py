"""Horizontal coordinates of the boxes of each layer, given their order.

Each layer in turn is drawn to its neighbours. What is found for it is exact: of all places that
keep the distances, those with the least sum of squared ways from where the boxes would like to be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

_ROUNDS = 3
_LANE_WEIGHT = 3.0  # long edges are rather straight than short ones
_LOOSE = 0.01  # what has no neighbours in that direction gives way

Distance = Callable[[int, int], float]


def spread(
    desired: Sequence[float], weights: Sequence[float], distances: Sequence[float]
) -> list[float]:
    """Find positions near the desired ones, in the same order, that keep their distances.

    Minimizes the weighted sum of squared differences by pooling adjacent violators (Ayer et al.,
    1955), in linear time.

    Args:
        desired: Where each would like to be.
        weights: How much it would; positive.
        distances: From each to the next; one fewer.
    """
    offsets = [0.0]
    for distance in distances:
        offsets.append(offsets[-1] + distance)
    blocks: list[tuple[float, float, int]] = []  # mean, weight, how many
    for wish, weight, offset in zip(desired, weights, offsets, strict=True):
        mean, total, many = wish - offset, weight, 1
        while blocks and blocks[-1][0] >= mean:
            before, heavy, count = blocks.pop()
            mean = (before * heavy + mean * total) / (heavy + total)
            total, many = heavy + total, many + count
        blocks.append((mean, total, many))
    means = [mean for mean, _, many in blocks for _ in range(many)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=True)]


def centres(
    rows: Sequence[Sequence[int]],
    above: Sequence[Sequence[int]],
    below: Sequence[Sequence[int]],
    distance: Distance,
    lanes: Sequence[bool],
) -> list[float]:
    """Compute the centre of each box and lane, by the numbers of ``rows``.

    Args:
        rows: The layers, each in its order.
        above: The neighbours of each in the layer above.
        below: The same below.
        distance: How far the middles of two neighbours of a layer must be apart.
        lanes: Which are lanes.
    """
    found = [0.0] * len(lanes)
    gaps = [[distance(*pair) for pair in pairwise(row)] for row in rows]
    for row, own in zip(rows, gaps, strict=True):
        x = -sum(own) / 2
        for one, gap in zip(row, [*own, 0.0], strict=True):
            found[one] = x
            x += gap

    def draw(at: int, *sides: Sequence[Sequence[int]]) -> None:
        desired, weights = [], []
        for one in rows[at]:
            near = [other for side in sides for other in side[one]]
            desired.append(_mean(found[other] for other in near) if near else found[one])
            weights.append((_LANE_WEIGHT if lanes[one] else 1.0) * (len(near) or _LOOSE))
        for one, x in zip(rows[at], spread(desired, weights, gaps[at]), strict=True):
            found[one] = x

    for _ in range(_ROUNDS):
        for at in range(1, len(rows)):
            draw(at, above)
        for at in range(len(rows) - 2, -1, -1):
            draw(at, below)
    for at in range(len(rows)):
        draw(at, above, below)
    return found


def _mean(numbers: Iterable[float]) -> float:
    listed = list(numbers)
    return sum(listed) / len(listed)
