"""Reliability curves are those of scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from tasks.evaluation import calibration


@pytest.mark.parametrize("rows", [1, 7, 5000])
def test_curves_are_scikit_learns(rows: int) -> None:
    random = np.random.default_rng(rows)
    scores = random.dirichlet([0.5, 1, 2], rows)
    targets = random.integers(0, 3, rows)
    scores[0] = [0, 1, 0]

    found = calibration.of({"target": targets, "probabilities": scores}, ["a", "b", "c"])

    for at, one in enumerate(found.values()):
        shares, means = calibration_curve(targets == at, scores[:, at], n_bins=10)
        assert one["shares"] == pytest.approx(shares)
        assert one["probabilities"] == pytest.approx(means)
        assert sum(one["records"]) == rows
    assert list(found) == ["a", "b", "c"]


def test_rows_without_probabilities_are_left_out() -> None:
    scores = np.array([[0.2, 0.8], [np.nan, 0.5], [0.3, 0.7]])

    found = calibration.of({"target": np.array([1, 0, 0]), "probabilities": scores}, ["no", "yes"])

    assert found["yes"] == {"probabilities": [0.7, 0.8], "shares": [0, 1], "records": [1, 1]}


def test_without_any_there_is_none() -> None:
    assert calibration.of({"id": np.empty(0)}, ["no", "yes"]) == {}
