"""Slice plot: the objective over each parameter."""

from __future__ import annotations

import math
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tuning.plots import axis, scales, style
from tuning.plots.axis import ParameterAxis
from tuning.plots.scales import Scale
from tuning.plots.tuning_data import TuningData, summarize, value
from tuning.trials import TrialState

_MOST = 12
_COLUMNS = {1: 1, 2: 2, 3: 3, 4: 2, 5: 3, 6: 3, 7: 4, 8: 4, 9: 3, 10: 4, 11: 4, 12: 4}


@dataclass(frozen=True)
class Slices:
    """The first objective over each parameter.

    Attributes:
        metric: The objective's metric.
        axes: The parameters.
        left_out: How many more there are.
        values: The observed trials' values, in the order of the axes' places.
        states: Their states.
        allowed: Whether they violate no constraint.
        best: Which of them is the best one; None if there is none.
        scale: The values' scale.
    """

    metric: str
    axes: tuple[ParameterAxis, ...]
    left_out: int
    values: tuple[float, ...]
    states: tuple[TrialState, ...]
    allowed: tuple[bool, ...]
    best: int | None
    scale: Scale


def compute(tuning: TuningData) -> Slices | None:
    """Compute the plot's data; None for fewer than two values, or no varied parameter."""
    observed = tuning.observed
    made = (axis.compute(one, tuning) for one in tuning.varied)
    axes = [one for one in made if one is not None]
    if len(observed) < 2 or not axes:
        return None
    objective = tuning.objectives[0]
    numbers = [trial.number for trial in observed]
    return Slices(
        objective.metric,
        tuple(axes[:_MOST]),
        len(axes[_MOST:]),
        tuple(value(trial) for trial in observed),
        tuple(trial.state for trial in observed),
        tuple(trial.feasible for trial in observed),
        numbers.index(tuning.best.number) if tuning.best else None,
        scales.of_values((value(trial) for trial in observed), objective.direction),
    )


def draw(tuning: TuningData) -> bytes | None:
    """The plot; None if there is nothing to show."""
    found = compute(tuning)
    if found is None:
        return None
    name = style.shown(found.metric, 50)
    more = f"; {found.left_out} more parameters are not shown" if found.left_out else ""
    count = len(found.axes)
    what = "each hyperparameter" if count > 1 else style.shown(found.axes[0].name, 20)
    made = style.figure(f"{name} over {what}", summarize(tuning) + more)
    columns = _COLUMNS[count]
    rows = math.ceil(count / columns)
    grid = made.subplots(
        rows, columns, sharey=True, squeeze=False,
        gridspec_kw={"left": 0.085, "right": 0.975, "top": 0.82, "bottom": 0.1,
                     "wspace": 0.09, "hspace": 0.52},
    )  # fmt: skip
    for place, axes in enumerate(grid.flat):
        if place < count:
            _panel(axes, found, found.axes[place], columns)
        else:
            axes.set_axis_off()
    made.text(0.016, 0.46, name, rotation=90, va="center", **style.font())
    _legend(made, found)
    return style.png(made)


def _panel(axes: Axes, found: Slices, one: ParameterAxis, columns: int) -> None:
    style.quiet(axes, style.SMALL if columns > 2 else style.TICK)
    style.scaled(axes, "y", found.scale)
    style.scaled(axes, "x", one.scale if one.labels else scales.padded(one.scale))
    room = 124 // columns
    axes.set_xlabel(style.shown(one.name, room - 8), **style.font(style.TICK), labelpad=2)
    if one.labels:
        longest = room // len(one.labels)
        if any(len(label) > longest for label in one.labels):
            longest = max(3, longest - 1)
        labels = [style.shown(label, longest) for label in one.labels]
        axes.set_xticks(one.ticks, labels, **style.font(style.SMALL, style.QUIET))
        axes.grid(visible=False, axis="x")
    elif not one.scale.log:
        axes.set_xticks(scales.ticks(one.scale, 4, whole=one.whole))
    places = one.strewn()
    size = 40 if len(places) <= 60 else 16
    for state in dict.fromkeys(found.states):
        _, color, marker = style.STATES[state]
        for allowed in (True, False):
            rows = [
                row
                for row, known in enumerate(zip(found.states, found.allowed, strict=True))
                if known == (state, allowed)
            ]
            axes.scatter(
                [places[row] for row in rows],
                [found.scale.within(found.values[row]) for row in rows],
                s=size, marker=marker, facecolors=color if allowed else "white",
                edgecolors="none" if allowed else color, alpha=0.7, zorder=3, clip_on=False,
            )  # fmt: skip
    if found.best is not None:
        axes.scatter(
            [places[found.best]], [found.scale.within(found.values[found.best])],
            s=230, marker="*", color=style.ACCENT, edgecolors="white", linewidths=0.8, zorder=5,
        )  # fmt: skip


def _legend(made: Figure, found: Slices) -> None:
    entries = [
        style.mark(label, color, marker, markersize=9)
        for state, (label, color, marker) in style.STATES.items()
        if state in found.states
    ]
    if not all(found.allowed):
        entries.append(
            style.mark("not allowed", "white", "o", markeredgecolor=style.QUIET, markersize=9)
        )
    if found.best is not None:
        entries.append(style.mark("best", style.ACCENT, "*", markersize=15))
    style.legend(made, entries)
