"""Figures of regressions, compared with scikit-learn's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import metrics as oracle

from tasks.evaluation.figures import Figures
from tasks.evaluation.regression_metrics import NAMES, RegressionSums


def figures(targets: Any, predictions: Any, batch: int = 7) -> Figures:
    sums = RegressionSums()
    for at in range(0, len(targets), batch):
        own = slice(at, at + batch)
        sums.add(np.array(targets[own], float), np.array(predictions[own], float))
    return sums.figures()


@pytest.mark.parametrize("offset", [0, 1e6])
def test_every_figure_is_scikit_learns(offset: float) -> None:
    random = np.random.default_rng(3)
    targets = random.gamma(2, 30, 5000) + offset
    predictions = np.abs(targets + random.normal(0, 9, 5000))

    found = figures(targets, predictions).values

    assert found == pytest.approx(
        {
            "mae": oracle.mean_absolute_error(targets, predictions),
            "mape": oracle.mean_absolute_percentage_error(targets, predictions),
            "r2": oracle.r2_score(targets, predictions),
            "rmse": oracle.root_mean_squared_error(targets, predictions),
            "rmsle": oracle.root_mean_squared_log_error(targets, predictions),
        },
        rel=1e-9,
    )


def test_negative_values_have_no_logarithmic_error() -> None:
    found = figures([1, -2, -3], [1, -2, 4])

    assert found.values["rmsle"] is None
    assert found.undefined["rmsle"] == "2 targets are below 0, and 1 predictions are below 0."
    assert found.values["mae"] == pytest.approx(7 / 3)


def test_targets_of_0_have_no_percentage_error() -> None:
    found = figures([0, 1], [1, 1])

    assert found.values["mape"] is None
    assert found.undefined["mape"] == "1 targets are 0."


@pytest.mark.parametrize(
    ("targets", "reason"),
    [
        ([2, 2, 2], "All targets are the same."),
        ([2], "There is one row alone."),
        ([1e-200, 2e-200], "The targets differ too little: the squares are 0."),
        ([0.1] * 9, "All targets are the same."),
    ],
)
def test_targets_without_spread_have_no_r2(targets: list[float], reason: str) -> None:
    found = figures(targets, [1] * len(targets))

    assert found.values["r2"] is None
    assert found.undefined["r2"] == reason
    assert found.values["rmse"] == pytest.approx(abs(targets[0] - 1))


def test_no_rows_have_no_figures() -> None:
    found = figures([], [])

    assert found.values == dict.fromkeys(NAMES)
    assert set(found.undefined.values()) == {"There are no rows."}
