"""Plots of classification metrics."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tasks.pipelines import classification
from tasks.pipelines.classification import SLICED, WHOLE

CURVE = [
    {"confidenceThreshold": 1 - x, "falsePositiveRate": x, "recall": math.sqrt(x)}
    for x in (0.0, 0.25, 1.0)
]
MATRIX = {
    "annotationSpecs": [{"displayName": "cat"}, {"displayName": "$dog$ " * 40}],
    "rows": [{"row": [5, 1]}, {"row": [0.0, 7]}],
}


def drawn(schema: str, metadata: dict[str, Any]) -> list[str]:
    plots = classification.plots(schema, metadata)
    assert all(png.startswith(b"\x89PNG") for png in plots.values())
    return sorted(plots)


def test_a_curve_and_a_matrix_are_drawn() -> None:
    assert drawn(WHOLE, {"confidenceMetrics": CURVE, "confusionMatrix": MATRIX}) == [
        "confusion-matrix", "roc",
    ]  # fmt: skip


def test_slices_share_a_curve_plot_and_have_a_matrix_each() -> None:
    one = {"confidenceMetrics": CURVE, "confusionMatrix": MATRIX}
    slices = [{"slice": name, "sliceClassificationMetrics": one} for name in ("young", "old")]
    assert drawn(SLICED, {"evaluationSlices": slices}) == [
        "confusion-matrix-1", "confusion-matrix-2", "roc",
    ]  # fmt: skip


def test_many_classes_are_drawn_without_their_counts() -> None:
    many = range(40)
    matrix = {
        "annotationSpecs": [{"displayName": f"class {n}"} for n in many],
        "rows": [{"row": [int(x == y) for x in many]} for y in many],
    }
    assert drawn(WHOLE, {"confusionMatrix": matrix}) == ["confusion-matrix"]


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"confidenceMetrics": "x", "confusionMatrix": "y"},
        {"confidenceMetrics": [1, {"recall": 1}, {"recall": "a", "falsePositiveRate": 0}]},
        {"confidenceMetrics": CURVE[:1]},
        {"confusionMatrix": {**MATRIX, "rows": [{"row": [1, 2]}]}},
        {"confusionMatrix": {**MATRIX, "rows": [{"row": [1, 2]}, {"row": [1]}]}},
        {"confusionMatrix": {**MATRIX, "rows": [{"row": [1, math.nan]}, {"row": [1, True]}]}},
        {"confusionMatrix": {"annotationSpecs": [], "rows": []}},
        {"evaluationSlices": [1, {"slice": "a"}, {"sliceClassificationMetrics": 3}]},
    ],
)
@pytest.mark.parametrize("schema", [WHOLE, SLICED])
def test_what_is_malformed_is_not_drawn_and_breaks_nothing(
    schema: str, metadata: dict[str, Any]
) -> None:
    assert drawn(schema, metadata) == []


def test_an_empty_matrix_is_drawn() -> None:
    rows = [{"row": [0, 0]}, {"row": [0, 0]}]
    assert drawn(WHOLE, {"confusionMatrix": {**MATRIX, "rows": rows}}) == ["confusion-matrix"]


def test_the_area_under_a_curve_counts_its_corners() -> None:
    assert classification._area([(0.0, 1.0)]) == 1.0
    assert classification._area([(0.5, 0.5)]) == 0.5
