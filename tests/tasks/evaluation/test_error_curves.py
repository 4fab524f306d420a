"""How errors of a regression are distributed."""

from __future__ import annotations

import numpy as np
import pytest

from registry.evaluation_results import ErrorCurvesView
from tasks.evaluation import error_curves


def test_errors_are_described_by_quantiles_bins_and_some_rows() -> None:
    random = np.random.default_rng(0)
    targets = random.normal(0, 5, 2000)
    residuals = random.normal(1, 2, 2000)

    found = ErrorCurvesView(
        **error_curves.of({"target": targets, "prediction": targets + residuals})
    )

    assert found.quantiles[50] == pytest.approx(np.median(np.abs(residuals)))
    assert found.quantiles[-1] == pytest.approx(np.abs(residuals).max())
    assert sum(found.counts) == 2000
    assert found.edges[0] == pytest.approx(np.quantile(residuals, 0.005))
    middle = found.edges[int(np.argmax(found.counts))]
    assert middle == pytest.approx(1, abs=1)
    assert found.targets == targets[:500].tolist()
    assert found.predictions[0] == targets[0] + residuals[0]


@pytest.mark.parametrize("error", [0.0, 1e-12, 1e6])
def test_errors_that_are_all_alike_fill_one_bin(error: float) -> None:
    targets = np.zeros(5)

    found = error_curves.of({"target": targets, "prediction": targets + error})

    assert max(found["counts"]) == 5
    assert found["edges"][0] < error < found["edges"][-1]


def test_errors_without_bounds_are_left_out() -> None:
    targets = np.array([-1e308, 0.0])

    found = error_curves.of({"target": targets, "prediction": np.array([1e308, 2.0])})

    assert found["quantiles"][0] == found["quantiles"][-1] == 2
    assert found["targets"] == [0]


@pytest.mark.parametrize("sample", [{}, {"target": np.empty(0), "prediction": np.empty(0)}])
def test_without_rows_there_are_none(
    sample: dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]],
) -> None:
    assert error_curves.of(sample) == {}
