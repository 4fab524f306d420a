"""Plot of the objectives' history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tuning.plots import scales, style
from tuning.plots.scales import Scale
from tuning.plots.tuning_data import TuningData, count_trials, summarize, value
from tuning.trials import Trial, TrialState

_MOST = 4  # objectives, each in a panel of its own


@dataclass(frozen=True)
class HistoryPoint:
    """A trial with a value."""

    number: int
    value: float
    state: TrialState
    feasible: bool


@dataclass(frozen=True)
class History:
    """One objective's values by the trials' numbers.

    Attributes:
        metric: The objective's metric.
        points: The trials with a value.
        without: The numbers and states of the other ones.
        best: The best value so far, of those that are allowed: where it begins, and what it is.
        scale: The values' scale.
        last: The last trial's number.
    """

    metric: str
    points: tuple[HistoryPoint, ...]
    without: tuple[tuple[int, TrialState], ...]
    best: tuple[tuple[int, float], ...]
    scale: Scale
    last: int


def compute(tuning: TuningData, place: int = 0) -> History | None:
    """Compute the data of one objective; None if no trial has a value."""
    observed = tuning.observed
    if not observed:
        return None
    objective = tuning.objectives[place]
    numbers = {trial.number for trial in observed}
    best: list[tuple[int, float]] = []
    for trial in observed:
        found = value(trial, place)
        if trial.feasible and (not best or objective.better(found, than=best[-1][1])):
            best.append((trial.number, found))
    return History(
        objective.metric,
        tuple(
            HistoryPoint(trial.number, value(trial, place), trial.state, trial.feasible)
            for trial in observed
        ),
        tuple((one.number, one.state) for one in tuning.trials if one.number not in numbers),
        tuple(best),
        scales.of_values((value(trial, place) for trial in observed), objective.direction),
        max(trial.number for trial in tuning.trials),
    )


def draw(tuning: TuningData) -> bytes | None:
    """The plot; None if there is nothing to show."""
    found = [compute(tuning, place) for place in range(len(tuning.objectives))[:_MOST]]
    panels = [one for one in found if one]
    if not panels:
        return None
    name = style.shown(panels[0].metric, 60)
    title = f"{name} by trial" if len(panels) == 1 else "Objectives by trial"
    beyond = sum(panel.scale.beyond for panel in panels)
    more = f"; {beyond} values lie beyond the axis" if beyond else ""
    made = style.figure(
        title, (summarize(tuning) if len(panels) == 1 else count_trials(tuning)) + more
    )
    grid = made.subplots(
        len(panels), 1, sharex=True, squeeze=False,
        gridspec_kw={"left": 0.085, "right": 0.975, "top": 0.82, "bottom": 0.1, "hspace": 0.16},
    )  # fmt: skip
    for axes, panel in zip(grid[:, 0], panels, strict=True):
        _panel(axes, panel, 46 // len(panels))
    grid[-1, 0].set_xlabel("trial", **style.font())
    _legend(made, panels, tuning.trials)
    return style.png(made)


def _panel(axes: Axes, panel: History, longest: int) -> None:
    style.quiet(axes)
    style.scaled(axes, "y", panel.scale)
    margin = max(0.6, 0.015 * panel.last)
    axes.set_xlim(-margin, panel.last + margin)
    style.counted(axes)
    axes.set_ylabel(style.shown(panel.metric, longest), **style.font())
    size = 70 if len(panel.points) <= 60 else 32
    for state, (_, color, marker) in style.STATES.items():
        for feasible in (True, False):
            some = [one for one in panel.points if (one.state, one.feasible) == (state, feasible)]
            axes.scatter(
                [one.number for one in some], [panel.scale.within(one.value) for one in some],
                s=size, marker=marker, facecolors=color if feasible else "white",
                edgecolors="white" if feasible else color, linewidths=0.7 if feasible else 1.4,
                zorder=3, clip_on=False,
            )  # fmt: skip
        absent = [number for number, other in panel.without if other is state]
        axes.scatter(
            absent, [0.0] * len(absent), s=size, marker=marker, color=color, zorder=4,
            transform=axes.get_xaxis_transform(), clip_on=False, linewidths=0,
        )  # fmt: skip
    if panel.best:
        steps = [*panel.best, (panel.last, panel.best[-1][1])]
        axes.step(
            [number for number, _ in steps], [panel.scale.within(one) for _, one in steps],
            where="post", color=style.ACCENT, linewidth=2.2, zorder=5,
        )  # fmt: skip


def _legend(made: Figure, panels: Sequence[History], trials: Sequence[Trial]) -> None:
    states = {trial.state for trial in trials}
    entries = [
        style.mark(label, color, marker, markersize=9)
        for state, (label, color, marker) in style.STATES.items()
        if state in states
    ]
    if not all(point.feasible for point in panels[0].points):
        entries.append(
            style.mark("not allowed", "white", "o", markeredgecolor=style.QUIET, markersize=9)
        )
    if panels[0].best:
        entries.append(style.line("best so far", style.ACCENT, linewidth=2.2))
    style.legend(made, entries)
