"""Plot of hyperparameter importances, by PED-ANOVA."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import optuna
from matplotlib.axes import Axes
from optuna.distributions import BaseDistribution

from tuning.plots import style
from tuning.plots.tuning_data import TuningData, value
from tuning.space import Value

FEWEST = 10
_MOST = 4  # objectives, each in a panel of its own
_MOST_BARS = 15

# It announces each study that is made, and these are gone in a moment.
logging.getLogger("optuna.storages._in_memory").setLevel(logging.WARNING)


@dataclass(frozen=True)
class Importances:
    """Importances of the parameters for one objective.

    Attributes:
        metric: The objective's metric.
        shares: Each parameter's share of all, the largest first; together they are 1.
    """

    metric: str
    shares: tuple[tuple[str, float], ...]


def compute(tuning: TuningData, place: int = 0) -> Importances | None:
    """Compute the importances for one objective; None with too little data.

    There must be ten observed trials, with more than one value, and two parameters that varied.
    """
    objective = tuning.objectives[place]
    varied = {one.name: one.distribution() for one in tuning.varied}
    trials = [
        trial
        for trial in tuning.observed
        if all(_contained(trial.parameters.get(name), one) for name, one in varied.items())
    ]
    values = {value(trial, place) for trial in trials}
    if len(trials) < FEWEST or len(values) < 2 or len(varied) < 2:
        return None
    study = optuna.create_study(direction=objective.direction)
    study.add_trials(
        [
            optuna.create_trial(
                params={name: trial.parameters[name] for name in varied},
                distributions=dict(varied),
                value=value(trial, place),
            )
            for trial in trials
        ]
    )
    from optuna.importance import get_param_importances  # noqa: PLC0415 (scikit-learn)

    found = get_param_importances(study)
    order = {name: number for number, name in enumerate(varied)}
    shares = sorted(found.items(), key=lambda pair: (-pair[1], order[pair[0]]))
    return Importances(objective.metric, tuple(shares))


def _contained(given: Value | None, distribution: BaseDistribution) -> bool:
    """Whether a distribution has a value; those of an earlier tuning may lie outside."""
    try:
        return given is not None and distribution._contains(distribution.to_internal_repr(given))
    except ValueError:
        return False


def draw(tuning: TuningData) -> bytes | None:
    """The plot; None if there is nothing to show."""
    found = [compute(tuning, place) for place in range(len(tuning.objectives))[:_MOST]]
    panels = [one for one in found if one]
    if not panels:
        return None
    name = style.shown(panels[0].metric, 40)
    what = name if len(panels) == 1 else "the objectives"
    made = style.figure(
        f"Which hyperparameters matter for {what}",
        f"share in what sets the best tenth of {len(tuning.observed)} trials apart (PED-ANOVA)",
    )
    width = 0.965 / len(panels)
    names = 0.25 if len(panels) == 1 else 0.45 * width
    for place, panel in enumerate(panels):
        axes = made.add_axes((place * width + names, 0.1, width - names, 0.72))
        _panel(axes, panel, int(120 * names), 1.06 + 0.06 * len(panels))
        if len(panels) > 1:
            title = style.shown(panel.metric, 60 // len(panels))
            axes.set_title(title, loc="left", **style.font(), pad=14)
    return style.png(made)


def _panel(axes: Axes, panel: Importances, longest: int, room: float) -> None:
    style.quiet(axes)
    axes.grid(visible=False)
    shares = panel.shares[:_MOST_BARS]
    places = range(len(shares))
    axes.barh(
        places, [share for _, share in shares], height=0.62,
        color=[style.ACCENT, *[style.PLAIN] * (len(shares) - 1)],
    )  # fmt: skip
    for place, (_, share) in zip(places, shares, strict=True):
        axes.annotate(
            f"{share:.0%}", (share, place), xytext=(8, 0), textcoords="offset points",
            va="center", **style.font(style.TICK),
        )  # fmt: skip
    names = [style.shown(name, longest) for name, _ in shares]
    axes.set_yticks(places, names, **style.font(style.TICK))
    axes.set_ylim(max(len(shares), 4) - 0.4, -0.6)
    axes.set_xlim(0, shares[0][1] * room)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
