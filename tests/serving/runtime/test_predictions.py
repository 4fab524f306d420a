"""What outputs say of each row: its class, and the confidence in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from modelyard_runtime import predictions
from modelyard_runtime.frames import Array, objects

_SURE = np.array([[0.9, 0.1], [0.4, 0.6]])


@pytest.mark.parametrize(
    ("prediction", "probabilities", "classes"),
    [
        (np.array([1, 0]), _SURE, ["1", "0"]),
        (np.array([1, 0]), None, None),
        (np.array([True, False]), None, ["True", "False"]),
        (objects(["a\ud800", None]), _SURE, ["a\\ud800", "None"]),
        (objects([1, True]), _SURE, ["1", "True"]),
        (np.array([np.nan, 1.0]), _SURE, ["nan", "1.0"]),
        (objects(["x" * 300, "y"]), _SURE, ["x" * 200, "y"]),
        (np.array([[1, 0], [0, 1]]), _SURE, None),
        (None, _SURE, None),
    ],
)
def test_a_prediction_with_probabilities_is_a_class(
    prediction: Array | None, probabilities: Array | None, classes: list[str] | None
) -> None:
    given = {"prediction": prediction, "probabilities": probabilities}
    outputs = {name: value for name, value in given.items() if value is not None}

    found = predictions.classes(outputs)
    assert (None if found is None else list(map(predictions.class_name, found))) == classes


@pytest.mark.parametrize(
    ("probabilities", "confidences"),
    [
        (_SURE, [0.9, 0.6]),
        (np.array([[1, 0]]), [1]),
        (np.array([[0.3, np.nan]]), [np.nan]),
        (np.array([0.9, 0.6]), None),
        (np.zeros((2, 0)), None),
        (objects(["much", "little"]), None),
        (None, None),
    ],
)
def test_the_confidence_is_that_of_the_likeliest_class(
    probabilities: Any, confidences: Any
) -> None:
    found = predictions.confidences(
        {} if probabilities is None else {"probabilities": probabilities}
    )

    assert found is None if confidences is None else np.array_equal(found, confidences, True)  # type: ignore[arg-type]
