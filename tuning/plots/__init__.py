"""Plots of a tuning's trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tuning.objectives import Direction
from tuning.plots import (
    early_stopping,
    history,
    importances,
    parallel_coordinates,
    pareto_front,
    slices,
)
from tuning.plots.tuning_data import TuningData, prepare
from tuning.space import Parameter
from tuning.trials import Trial

__all__ = ["FILES", "plots"]

_PLOTS: Mapping[str, Callable[[TuningData], bytes | None]] = {
    "history.png": history.draw,
    "parallel-coordinates.png": parallel_coordinates.draw,
    "importances.png": importances.draw,
    "early-stopping.png": early_stopping.draw,
    "pareto-front.png": pareto_front.draw,
    "slices.png": slices.draw,
}

FILES = tuple(_PLOTS)


def plots(
    trials: Sequence[Trial],
    parameters: Sequence[Parameter],
    metric_names: Sequence[str],
    directions: Sequence[Direction],
) -> dict[str, bytes]:
    """Draw the plots that have data, as PNGs of 1600 by 900 by file name.

    Args:
        trials: The tuning's trials.
        parameters: Its search space.
        metric_names: The objectives' metrics.
        directions: For each whether smaller or larger values are better.
    """
    tuning = prepare(trials, parameters, metric_names, directions)
    drawn = {name: draw(tuning) for name, draw in _PLOTS.items()}
    return {name: png for name, png in drawn.items() if png is not None}
