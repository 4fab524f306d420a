"""Drawable data of a tuning's trials."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass

from tuning import objectives
from tuning.objectives import Direction, Objective
from tuning.plots.scales import drawable
from tuning.space import Parameter
from tuning.trials import OBSERVED, Trial


@dataclass(frozen=True)
class TuningData:
    """Drawable data of a tuning.

    Attributes:
        trials: Its trials by number; values that cannot be drawn are None.
        parameters: Its search space.
        objectives: Its objectives.
    """

    trials: tuple[Trial, ...]
    parameters: tuple[Parameter, ...]
    objectives: tuple[Objective, ...]

    @functools.cached_property
    def observed(self) -> list[Trial]:
        """The trials that count and have values."""
        return [trial for trial in self.trials if trial.state in OBSERVED and trial.values]

    @functools.cached_property
    def best(self) -> Trial | None:
        """The best trial by the first objective."""
        first = [dataclasses.replace(trial, values=(value(trial),)) for trial in self.observed]
        found = objectives.best(first, self.objectives[:1])
        return next((one for one in self.observed if found and one.number == found.number), None)

    @functools.cached_property
    def varied(self) -> list[Parameter]:
        """The parameters of which the observed trials took more than one value."""
        taken = [trial.parameters for trial in self.observed]
        return [
            one
            for one in self.parameters
            if len({repr(point[one.name]) for point in taken if one.name in point}) > 1
        ]


def prepare(
    trials: Sequence[Trial],
    parameters: Sequence[Parameter],
    metric_names: Sequence[str],
    directions: Sequence[Direction],
) -> TuningData:
    """Drop values that cannot be drawn, and order the trials."""
    count = len(metric_names)

    def plain(trial: Trial) -> Trial:
        values = trial.values or ()
        if len(values) == count and all(map(drawable, values)):
            return trial
        return dataclasses.replace(trial, values=None)

    return TuningData(
        tuple(sorted(map(plain, trials), key=lambda trial: trial.number)),
        tuple(parameters),
        tuple(
            Objective(metric=name, direction=direction)
            for name, direction in zip(metric_names, directions, strict=True)
        ),
    )


def value(trial: Trial, place: int = 0) -> float:
    """An observed trial's value of an objective."""
    assert trial.values is not None
    return trial.values[place]


def count_trials(tuning: TuningData) -> str:
    """Describe the number of trials."""
    count = len(tuning.trials)
    return f"{count} trial{'s' if count != 1 else ''}, {len(tuning.observed)} with values"


def summarize(tuning: TuningData) -> str:
    """Describe the number of trials, and the best by the first objective."""
    if tuning.best is None:
        return f"{count_trials(tuning)}, of which none is allowed"
    first = tuning.best
    return f"{count_trials(tuning)}; the best is trial {first.number} with {value(first):.6g}"
