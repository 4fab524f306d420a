"""A space as a unit cube, and back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tuning.spaces import choice, double, integer
from tuning.axes import DoubleAxis, IntegerAxis, UnitCube, key
from tuning.space import Parameter

_WHOLE = st.integers(-(10**6), 10**6)
_PLACE = st.floats(0, 1)


@given(low=_WHOLE, width=st.integers(0, 10**6), place=_PLACE)
def test_a_whole_number_lies_where_it_is_found(low: int, width: int, place: float) -> None:
    axis = IntegerAxis(integer(low, low + width))

    value = axis.value(place)

    assert low <= int(value) <= low + width
    assert axis.value(axis.place(value)) == value
    assert abs(axis.place(value) - place) <= 0.5 / (width + 1) + 1e-9


@given(low=st.integers(1, 10**6), width=st.integers(0, 10**6), place=_PLACE)
def test_so_does_one_on_a_logarithmic_scale(low: int, width: int, place: float) -> None:
    axis = IntegerAxis(integer(low, low + width, log=True))

    value = axis.value(place)

    assert low <= int(value) <= low + width
    assert axis.value(axis.place(value)) == value


@given(low=st.floats(-1e9, 1e9), width=st.floats(0, 1e9), place=_PLACE)
def test_a_double_lies_where_it_is_found(low: float, width: float, place: float) -> None:
    axis = DoubleAxis(double(low, low + width))

    value = axis.value(place)

    assert low <= float(value) <= low + width
    if width > 1:
        assert axis.place(value) == pytest.approx(place, abs=1e-6)


def test_a_range_with_one_logarithm_still_has_two_ends() -> None:
    low = 1e-9
    high = math.nextafter(math.nextafter(low, 1), 1)
    assert math.log(low) == math.log(high)
    axis = DoubleAxis(double(low, high, log=True))

    assert (axis.value(0), axis.value(1)) == (low, high)
    assert axis.place(low) < axis.place(high)


def test_levels_are_where_the_values_lie() -> None:
    cube = UnitCube(
        [
            integer(1, 4),
            integer(1, 1000, name="m"),
            double(0.0, 1.0),
            choice("a", True, 1.5, 0),
            Parameter(name="d", type="discrete", values=[64, 16, 32]),
        ],
        grid=False,
    )
    levels = {name: axis.levels(3) for name, axis in cube.axes.items()}
    more = {name: axis.levels(4) for name, axis in cube.axes.items()}

    assert levels["n"] is levels["m"] is levels["x"] is None
    assert more["n"] == pytest.approx([0.125, 0.375, 0.625, 0.875])
    assert levels["c"] == [0.125, 0.375, 0.625, 0.875]  # without an order, however many
    assert levels["d"] == pytest.approx([1 / 6, 1 / 2, 5 / 6])
    assert [cube.axes["d"].value(place) for place in levels["d"]] == [16, 32, 64]
    assert not cube.axes["c"].ordered
    assert cube.axes["d"].ordered


def test_the_same_point_has_the_same_key_whatever_its_order_and_types() -> None:
    cube = UnitCube([double(0.0, 9.0), integer(1, 9), choice(True, "a")], grid=False)
    points = [{"x": 3, "n": 4.0, "c": True}, {"c": True, "n": 4, "x": 3.0}]

    keys = {key(found) for point in points if (found := cube.find(point))}

    assert keys == {(3.0, 4, True)}
    assert cube.find({"x": 3, "n": 4, "c": 1}) is None
