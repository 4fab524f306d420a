"""Records as columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from modelyard_runtime.records import column


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([[1, None], [2, 3]], [[1, np.nan], [2, 3]]),
        ([[[1.5, None]], [[2, 3]]], [[[1.5, np.nan]], [[2, 3]]]),
        ([None, 2], [np.nan, 2]),
    ],
)
def test_a_missing_number_is_nan_in_lists_too(values: list[Any], wanted: list[Any]) -> None:
    found = column(values)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    "values",
    [[["1", None]], [[1, "a"], [2, 3]], [[True, None]], [[1], [2, 3]], [[{"a": 1}, None]]],
)
def test_what_is_no_number_stays_as_it_is(values: list[Any]) -> None:
    found = column(values)
    assert found.dtype == object
    assert found.tolist() == values
