"""Plot of the Pareto front of several objectives."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tuning import objectives
from tuning.plots import scales, style
from tuning.plots.scales import Scale
from tuning.plots.tuning_data import TuningData, value

_MOST_PANELS = 6


@dataclass(frozen=True)
class ObjectivePair:
    """Two of the objectives.

    Attributes:
        names: Their metrics.
        dominated: The values of allowed trials that another one beats in every objective.
        forbidden: Those of trials that violate a constraint.
        front: Those of the front, from the left to the right.
        scales: Their scales.
        steps: Whether the front is a line here: with two objectives, and no others.
        rises: For each whether larger is better.
    """

    names: tuple[str, str]
    dominated: tuple[tuple[float, float], ...]
    forbidden: tuple[tuple[float, float], ...]
    front: tuple[tuple[float, float], ...]
    scales: tuple[Scale, Scale]
    steps: bool
    rises: tuple[bool, bool]


def compute(tuning: TuningData) -> tuple[ObjectivePair, ...]:
    """Every pair of objectives; none for one objective, or fewer than two trials with values."""
    observed = tuning.observed
    if len(tuning.objectives) < 2 or len(observed) < 2:
        return ()
    best = {trial.number for trial in objectives.front(observed, tuning.objectives)}
    pairs = itertools.combinations(range(len(tuning.objectives)), 2)
    return tuple(_pair(tuning, first, second, best) for first, second in pairs)[:_MOST_PANELS]


def _pair(tuning: TuningData, first: int, second: int, best: set[int]) -> ObjectivePair:
    both = (tuning.objectives[first], tuning.objectives[second])
    points = {
        trial.number: (value(trial, first), value(trial, second)) for trial in tuning.observed
    }
    allowed = {trial.number for trial in tuning.observed if trial.feasible}
    first_scale, second_scale = (
        scales.of_values((point[side] for point in points.values()), both[side].direction)
        for side in (0, 1)
    )
    return ObjectivePair(
        (both[0].metric, both[1].metric),
        tuple(point for number, point in points.items() if number in allowed - best),
        tuple(point for number, point in points.items() if number not in allowed),
        tuple(sorted(point for number, point in points.items() if number in best)),
        (first_scale, second_scale),
        len(tuning.objectives) == 2,
        (both[0].direction == "maximize", both[1].direction == "maximize"),
    )


def draw(tuning: TuningData) -> bytes | None:
    """The plot; None if there is nothing to show."""
    pairs = compute(tuning)
    if not pairs:
        return None
    size = len(objectives.front(tuning.observed, tuning.objectives))
    names = " and ".join(
        style.shown(one.metric, 50 // min(3, len(tuning.objectives)))
        for one in tuning.objectives[:3]
    )
    more = " and more" if len(tuning.objectives) > 3 else ""
    made = style.figure(
        f"The front of {names}{more}",
        f"{len(tuning.observed)} trials with values, {size} of them on the front: none is better "
        "than these in every objective",
    )
    columns = min(3, len(pairs))
    rows = math.ceil(len(pairs) / columns)
    grid = made.subplots(
        rows, columns, squeeze=False,
        gridspec_kw={"left": 0.085, "right": 0.975, "top": 0.82, "bottom": 0.1,
                     "wspace": 0.28, "hspace": 0.3},
    )  # fmt: skip
    for place, axes in enumerate(grid.flat):
        if place < len(pairs):
            _panel(axes, pairs[place], 46 // max(rows, columns) + 4)
        else:
            axes.set_axis_off()
    _legend(made, pairs)
    return style.png(made)


def _panel(axes: Axes, pair: ObjectivePair, longest: int) -> None:
    style.quiet(axes)
    for which, scale, name, rises in zip("xy", pair.scales, pair.names, pair.rises, strict=True):
        style.scaled(axes, which, scale)
        label = f"{style.shown(name, longest)} ({'larger' if rises else 'smaller'} is better)"
        getattr(axes, f"set_{which}label")(label, **style.font(style.TICK))

    def scatter(points: tuple[tuple[float, float], ...], **how: Any) -> None:
        axes.scatter(
            [pair.scales[0].within(one) for one, _ in points],
            [pair.scales[1].within(one) for _, one in points],
            clip_on=False, **how,
        )  # fmt: skip

    many = len(pair.dominated) + len(pair.forbidden) > 60
    plain = {"s": 32 if many else 60, "zorder": 3}
    scatter(pair.dominated, color=style.PLAIN, edgecolors="white", linewidths=0.7, **plain)
    scatter(pair.forbidden, facecolors="white", edgecolors=style.QUIET, linewidths=1.3, **plain)
    if pair.steps and pair.front:
        # Between two points of the front nothing better is known than the worse of each value.
        where: Literal["pre", "post"] = "pre" if pair.rises[0] else "post"
        axes.step(
            [pair.scales[0].within(one) for one, _ in pair.front],
            [pair.scales[1].within(one) for _, one in pair.front],
            where=where, color=style.ACCENT, linewidth=1.8, zorder=4,
        )  # fmt: skip
    scatter(pair.front, s=95, color=style.ACCENT, edgecolors="white", linewidths=0.9, zorder=5)


def _legend(made: Figure, pairs: tuple[ObjectivePair, ...]) -> None:
    entries = [style.mark("on the front", style.ACCENT, "o", markersize=11)]
    if pairs[0].dominated:
        entries.append(style.mark("others", style.PLAIN, "o", markersize=9))
    if pairs[0].forbidden:
        entries.append(
            style.mark("not allowed", "white", "o", markeredgecolor=style.QUIET, markersize=9)
        )
    style.legend(made, entries)
