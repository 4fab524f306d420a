"""Which class a value of the data means."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.evaluation.class_labels import MISSING, UNKNOWN, ClassLabels, texts


@pytest.mark.parametrize(
    ("names", "values", "wanted"),
    [
        (["cat", "dog"], np.array(["dog", " cat ", "cow", None, ""], object), [1, 0, -1, -2, -2]),
        (["3", "5"], np.array([5, 3, 4]), [1, 0, -1]),
        (["3", "5"], np.array([5.0, 3.0, np.nan, 0.0]), [1, 0, -2, -1]),
        (["3", "5"], np.array(["5", "3.0", 5, 5.0, "05"], object), [1, 0, 1, 1, 1]),
        (["cat", "dog"], np.array([1, 0, 2, -1]), [1, 0, -1, -1]),
        (["true", "false"], np.array([True, False]), [0, 1]),
        (["False", "True"], np.array(["true", "FALSE"], object), [1, 0]),
        (["0.5", "x"], np.array([0.5, 1.0]), [0, -1]),
        (["x", "y"], np.array([[1], {"a": 2}, True], object), [-1, -1, -1]),
    ],
)
def test_values_mean_classes(names: list[str], values: np.ndarray, wanted: list[int]) -> None:
    assert (MISSING, UNKNOWN) == (-2, -1)
    assert ClassLabels(names).indices(values).tolist() == wanted


def test_texts_of_values() -> None:
    values = np.array([1, "1.0", None, "b", True, [1]], object)

    assert texts(values).tolist() == ["1", "1", None, "b", "true", "[1]"]
    assert texts(np.array([1.0, np.nan, 2.5])).tolist() == ["1", None, "2.5"]
