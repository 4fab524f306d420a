"""Plot of the trials' reports, and of where trials were stopped early."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from tuning.plots import scales, style
from tuning.plots.scales import Scale, drawable
from tuning.plots.tuning_data import TuningData
from tuning.trials import Trial, TrialState

_MOST_POINTS = 400  # of a curve: more could not be told apart


@dataclass(frozen=True)
class Curve:
    """Drawable reports of a trial: steps, counted from 1, and values."""

    number: int
    state: TrialState
    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Curves:
    """All trials' reports.

    Attributes:
        metric: The first objective's metric.
        curves: Those of trials that reported something that can be drawn.
        best: The best trial's number; None if there is none.
        median: The median of the completed trials' running averages, step by step.
        scale: The values' scale.
        longest: How many reports the longest curve has.
    """

    metric: str
    curves: tuple[Curve, ...]
    best: int | None
    median: tuple[tuple[int, float], ...]
    scale: Scale
    longest: int


def compute(tuning: TuningData) -> Curves | None:
    """Compute the plot's data; None if no trial reported twice."""
    reporting = [trial for trial in tuning.trials if any(map(drawable, trial.reports))]
    longest = max((len(trial.reports) for trial in reporting), default=0)
    if longest < 2:
        return None
    curves = tuple(_curve(trial) for trial in reporting)
    values = [one for curve in curves for one in curve.values]
    return Curves(
        tuning.objectives[0].metric,
        curves,
        tuning.best.number if tuning.best else None,
        _median(reporting, longest),
        scales.of_values(values, tuning.objectives[0].direction),
        longest,
    )


def _thinned(count: int) -> list[int]:
    """Some places of ``count``, evenly, with the first and the last."""
    if count <= _MOST_POINTS:
        return list(range(count))
    return [round(place * (count - 1) / (_MOST_POINTS - 1)) for place in range(_MOST_POINTS)]


def _curve(trial: Trial) -> Curve:
    drawn = [(step, value) for step, value in enumerate(trial.reports, 1) if drawable(value)]
    kept = [drawn[place] for place in _thinned(len(drawn))]
    return Curve(
        trial.number, trial.state, tuple(step for step, _ in kept), tuple(one for _, one in kept)
    )


def _median(trials: Sequence[Trial], longest: int) -> tuple[tuple[int, float], ...]:
    """The line that the median rule judges by.

    A trial that ended sooner counts with the average of all that it reported.
    """
    averages = [
        _averages(trial.reports) for trial in trials if trial.state is TrialState.SUCCEEDED
    ]
    found = []
    for place in _thinned(longest):
        known = [each[min(place, len(each) - 1)] for each in averages]
        finite = [value for value in known if not math.isnan(value)]
        if finite:
            found.append((place + 1, statistics.median(finite)))
    return tuple(found)


def _averages(reports: Sequence[float]) -> list[float]:
    """The average of the reports so far that can be drawn, report by report; NaN before any."""
    kept = [drawable(report) for report in reports]
    sums = itertools.accumulate(
        report if keep else 0.0 for report, keep in zip(reports, kept, strict=True)
    )
    counts = itertools.accumulate(kept)
    return [
        total / count if count else math.nan for total, count in zip(sums, counts, strict=True)
    ]


def draw(tuning: TuningData) -> bytes | None:
    """The plot; None if there is nothing to show."""
    found = compute(tuning)
    if found is None:
        return None
    name = style.shown(found.metric, 50)
    stopped = sum(one.state is TrialState.EARLY_STOPPED for one in found.curves)
    made = style.figure(
        f"{name}, report by report",
        f"{len(found.curves)} trials that reported, {stopped} of them stopped early",
    )
    axes = made.add_axes((0.085, 0.1, 0.89, 0.72))
    style.quiet(axes)
    style.scaled(axes, "y", found.scale)
    margin = 0.012 * (found.longest - 1)
    axes.set_xlim(1 - margin, found.longest + margin)
    style.counted(axes)
    axes.set_xlabel("report", **style.font())
    axes.set_ylabel(name, **style.font())
    _curves(axes, found)
    _highlights(axes, found)
    _legend(made, found)
    return style.png(made)


def _points(curve: Curve, scale: Scale) -> list[tuple[int, float]]:
    return list(zip(curve.steps, map(scale.within, curve.values), strict=True))


def _curves(axes: Axes, found: Curves) -> None:
    few = len(found.curves) <= 30
    for state, (_, color, marker) in style.STATES.items():
        some = [one for one in found.curves if one.state is state]
        lines = LineCollection(
            [_points(one, found.scale) for one in some],
            colors=color, linewidths=1.6 if few else 0.9, alpha=0.75 if few else 0.4,
        )  # fmt: skip
        axes.add_collection(lines, autolim=False)
        # A single report is no line, and where a trial was ended is of interest.
        ends = [
            (one.steps[-1], one.values[-1])
            for one in some
            if state is not TrialState.SUCCEEDED or len(one.values) == 1
        ]
        axes.scatter(
            [step for step, _ in ends], [found.scale.within(value) for _, value in ends],
            s=90 if few else 36, marker=marker, color=color, edgecolors="white", linewidths=0.7,
            zorder=4,
        )  # fmt: skip


def _highlights(axes: Axes, found: Curves) -> None:
    for curve in found.curves:
        if curve.number == found.best:
            points = _points(curve, found.scale)
            axes.plot(*zip(*points, strict=True), color=style.ACCENT, linewidth=3, zorder=5)
    axes.plot(
        [step for step, _ in found.median],
        [found.scale.within(value) for _, value in found.median],
        color=style.INK, linewidth=2, linestyle=(0, (5, 3)), zorder=6,
    )  # fmt: skip


def _legend(made: Figure, found: Curves) -> None:
    states = {curve.state for curve in found.curves}
    entries = [
        style.line(label, color, linewidth=2)
        if state is TrialState.SUCCEEDED
        else style.mark(label, color, marker, markersize=9)
        for state, (label, color, marker) in style.STATES.items()
        if state in states
    ]
    if found.best is not None:
        entries.append(style.line(f"the best, trial {found.best}", style.ACCENT, linewidth=3))
    if found.median:
        entries.append(
            style.line("median of running averages", style.INK, linewidth=2, linestyle="--")
        )
    style.legend(made, entries)
