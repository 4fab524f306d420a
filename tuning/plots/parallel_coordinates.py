"""Parallel coordinates plot of the parameters and the first objective."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from tuning.plots import axis, scales, style
from tuning.plots.axis import ParameterAxis
from tuning.plots.scales import Scale
from tuning.plots.tuning_data import TuningData, summarize, value

_MOST_AXES = 15
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.07, 0.9, 0.78, 0.05
# So many letters of names, and of labels, have room beside each other.
_NAMES, _LABELS = 105, 125
_LONGEST_LAST = 15  # of the first and the last name, which the edges cut


@dataclass(frozen=True)
class ParallelLines:
    """One line for each observed trial.

    Attributes:
        metric: The first objective's metric.
        axes: The parameters that are shown.
        left_out: How many more there are.
        numbers: The trials' numbers, the best one's last.
        values: Their values, in the same order.
        heights: Where each line crosses each axis, from 0 to 1; and last its value, likewise.
        goodness: From 0 for the worst to 1 for the best.
        scale: The values' scale.
    """

    metric: str
    axes: tuple[ParameterAxis, ...]
    left_out: int
    numbers: tuple[int, ...]
    values: tuple[float, ...]
    heights: tuple[tuple[float, ...], ...]
    goodness: tuple[float, ...]
    scale: Scale


def compute(tuning: TuningData) -> ParallelLines | None:
    """Compute the plot's data; None for fewer than two values, or no parameter."""
    observed = tuning.observed
    varied = {one.name for one in tuning.varied}
    chosen = sorted(tuning.parameters, key=lambda one: one.name not in varied)[:_MOST_AXES]
    chosen.sort(key=tuning.parameters.index)
    made = (axis.compute(one, tuning) for one in chosen)
    axes = tuple(one for one in made if one is not None)
    if len(observed) < 2 or not axes:
        return None
    objective = tuning.objectives[0]
    scale = scales.of_values((value(trial) for trial in observed), objective.direction)
    columns = [[one.scale.place(place) for place in one.strewn(0.12)] for one in axes]
    columns.append([scale.place(value(trial)) for trial in observed])
    sign = -1 if objective.direction == "minimize" else 1
    best = tuning.best
    order = sorted(
        range(len(observed)),
        key=lambda row: (best is not None and observed[row].number == best.number,
                         sign * value(observed[row])),
    )  # fmt: skip
    heights = [[column[row] for column in columns] for row in order]
    return ParallelLines(
        objective.metric,
        axes,
        len(tuning.parameters) - len(axes),
        tuple(observed[row].number for row in order),
        tuple(value(observed[row]) for row in order),
        tuple(map(tuple, heights)),
        tuple(one[-1] if sign > 0 else 1 - one[-1] for one in heights),
        scale,
    )


def draw(tuning: TuningData) -> bytes | None:
    """The plot; None if there is nothing to show."""
    found = compute(tuning)
    if found is None:
        return None
    name = style.shown(found.metric, 50)
    more = f"; {found.left_out} more parameters are not shown" if found.left_out else ""
    made = style.figure(f"Hyperparameters and {name}", summarize(tuning) + more)
    axes = made.add_axes((_LEFT, _BOTTOM, _RIGHT - _LEFT, _TOP - _BOTTOM))
    axes.set_xlim(0, len(found.axes))
    axes.set_ylim(0, 1)
    axes.set_axis_off()
    _lines(axes, found, highlight=tuning.best is not None)
    for place, one in enumerate(found.axes):
        _axis(axes, place, one, len(found.axes))
    _bar(made, found, rising=tuning.objectives[0].direction == "maximize")
    return style.png(made)


def _lines(axes: Axes, found: ParallelLines, *, highlight: bool) -> None:
    count = len(found.numbers)
    points = numpy.array(found.heights)
    xs = numpy.broadcast_to(numpy.arange(points.shape[1], dtype=float), points.shape)
    lines = list(numpy.stack([xs, points], axis=2))
    colors = style.RAMP(numpy.array(found.goodness))
    # Of many lines only the best ones stand out; they come last.
    faint, strong = min(0.9, max(0.05, 30 / count)), 0.9 if count <= 40 else 0.7
    colors[:, 3] = faint + (strong - faint) * numpy.linspace(0, 1, count) ** 6
    width = 2.0 if count <= 40 else 1.1
    axes.add_collection(LineCollection(lines, colors=colors, linewidths=width), autolim=False)
    if highlight:
        axes.plot(
            lines[-1][:, 0], lines[-1][:, 1], color=style.ACCENT, linewidth=3, clip_on=False,
            marker="o", markersize=7, markeredgecolor="white", zorder=5,
        )  # fmt: skip


def _axis(axes: Axes, place: int, one: ParameterAxis, count: int) -> None:
    axes.plot([place, place], [0, 1], color=style.QUIET, linewidth=1.3, zorder=3, clip_on=False)
    rows = _rows(count)
    room = min(_NAMES * rows // count - 1, _LONGEST_LAST if place == 0 else 40)
    axes.text(
        place, 1 + _lift(place, rows), style.shown(one.name, room),
        ha="center", va="bottom", **style.font(style.TICK, weight="bold"),
    )  # fmt: skip
    labels = one.labels or tuple(f"{tick:.4g}" for tick in one.ticks)
    longest = max(4, min(22, _LABELS // count - 1))
    for tick, label in zip(one.ticks, labels, strict=True):
        axes.annotate(
            style.shown(label, longest), (place, one.scale.place(tick)),
            xytext=(6, 0), textcoords="offset points", va="center", zorder=6,
            bbox={"facecolor": "white", "alpha": 0.85, "linewidth": 0, "pad": 1.2},
            **style.font(style.SMALL),
        )  # fmt: skip


def _rows(count: int) -> int:
    """In how many rows the names of so many axes stand."""
    return 1 if count <= 5 else 2


def _lift(place: int, rows: int) -> float:
    """How far above the axes a name stands."""
    return 0.02 + 0.055 * (place % rows)


def _bar(made: Figure, found: ParallelLines, *, rising: bool) -> None:
    """The values' axis, at which the lines end, as a bar of their colours."""
    bar = made.add_axes((_RIGHT, _BOTTOM, 0.016, _TOP - _BOTTOM))
    ramp = numpy.linspace(0, 1, 256)[:, None]
    bar.imshow(
        ramp if rising else 1 - ramp, cmap=style.RAMP, aspect="auto", origin="lower",
        extent=(0, 1, 0, 1), vmin=0, vmax=1,
    )  # fmt: skip
    bar.set_xticks([])
    for spine in bar.spines.values():
        spine.set_visible(False)
    ticks = [one for one in scales.ticks(found.scale) if not math.isnan(one)]
    bar.yaxis.tick_right()
    bar.set_yticks([found.scale.place(one) for one in ticks], [f"{one:.4g}" for one in ticks])
    bar.tick_params(labelsize=style.TICK, colors=style.QUIET, length=0)
    rows = _rows(len(found.axes))
    room = min(_NAMES * rows // len(found.axes) - 1, _LONGEST_LAST)
    made.text(
        _RIGHT + 0.008, _TOP + _lift(len(found.axes), rows) * (_TOP - _BOTTOM),
        style.shown(found.metric, room), ha="center", va="bottom",
        **style.font(style.TICK, weight="bold"),
    )  # fmt: skip
