"""Statistics of results: small, and right for any number of records and parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from modelyard_runtime.frames import Columns, objects

from tasks.batch_inference import result_plots
from tasks.batch_inference.result_statistics import ResultStatistics, combined


def _summary(*batches: Columns, seconds: float = 0.5) -> Mapping[str, Any]:
    made = ResultStatistics()
    for batch in batches:
        made.add(batch, seconds)
    return made.summary()


def test_classes_have_their_shares_and_a_mean_confidence() -> None:
    labels, sure = objects(["yes", "no", "yes"]), np.array([[0.9, 0.1], [0.4, 0.6], [1.0, 0.0]])
    parts = [
        _summary({"prediction": labels, "probabilities": sure}),
        _summary({"prediction": objects(["yes"]), "probabilities": np.array([[0.7, 0.3]])}),
    ]

    found = combined(parts)

    assert found.classes == {"yes": 3, "no": 1}
    assert found.metrics["share/yes"] == 0.75
    assert found.metrics["mean_confidence"] == pytest.approx((0.9 + 0.6 + 1.0 + 0.7) / 4)
    assert found.metrics["batch_seconds/p50"] == 0.5
    assert found.metrics["missing_predictions"] == 0


def test_numbers_have_quantiles_also_of_more_than_a_sample_holds() -> None:
    numbers = np.random.default_rng(1).permutation(100_001).astype(float)

    found = combined([_summary(*({"prediction": some} for some in np.array_split(numbers, 7)))])

    assert len(found.numbers) == 2000
    assert found.metrics["prediction/p50"] == pytest.approx(50_000, rel=0.1)
    assert found.metrics["prediction/p05"] == pytest.approx(5_000, rel=0.3)


def test_a_part_counts_by_its_records() -> None:
    large = _summary({"prediction": np.zeros(50_000)})
    small = _summary({"prediction": np.ones(5_000)})

    assert np.mean(combined([large, small]).numbers) == pytest.approx(1 / 11, abs=0.01)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_predictions_that_are_no_numbers_are_counted(bad: float) -> None:
    found = combined(
        [
            _summary({"prediction": np.array([1.0, bad, 3.0])}),
            _summary({"prediction": np.array([[1.0, bad], [1.0, 2.0]])}),
        ]
    )

    assert found.metrics["missing_predictions"] == 2
    assert sorted(found.numbers) == [1.0, 3.0]


def test_too_many_classes_have_no_shares_and_names_are_those_that_mlflow_takes() -> None:
    many = combined([_summary({"prediction": np.arange(60), "probabilities": np.ones((60, 1))})])
    odd = combined(
        [_summary({"prediction": objects(["a/b:c", ""]), "probabilities": np.ones((2, 1))})]
    )

    assert not any(name.startswith("share/") for name in many.metrics)
    assert {"share/a_b_c", "share/_"} <= set(odd.metrics)


@pytest.mark.parametrize(
    "batch",
    [
        {"prediction": np.arange(5.0)},
        {"prediction": objects(list("abcab")), "probabilities": np.ones((5, 3))},
        {"prediction": objects([{"label": "x"}] * 5)},
        {"left": np.ones(5), "right": np.ones((5, 2))},
    ],
)
def test_any_results_are_drawn(batch: Columns) -> None:
    found = combined([_summary(batch)])

    assert result_plots.draw(found, "a run", 5, 0).startswith(b"\x89PNG")


def test_every_class_has_a_share_of_its_own_that_mlflow_takes() -> None:
    part = {
        "rows": 10, "missing": 0, "classes": {".": 1, "..": 2, "a/b": 3, "a_b": 3, "": 1},
        "confidence": 0.0, "confident": 0, "numbers": [], "number_count": 0, "seconds": [],
    }  # fmt: skip
    shares = {
        name: value
        for name, value in combined([part]).metrics.items()
        if name.startswith("share/")
    }
    assert shares == {
        "share/_": 0.1, "share/_ 2": 0.2, "share/a_b": 0.3, "share/a_b 2": 0.3, "share/_ 3": 0.1,
    }  # fmt: skip


def test_missing_predictions_are_counted_among_objects_too() -> None:
    counted = ResultStatistics()
    counted.add({"prediction": objects(["a", None, float("nan"), {"b": 1}])}, 1)
    counted.add({"prediction": np.array([1.0, np.nan])}, 1)

    assert combined([counted.summary()]).metrics["missing_predictions"] == 3
