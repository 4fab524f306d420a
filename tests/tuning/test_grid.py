"""The points of a space: those of its grid, and all of them."""

from __future__ import annotations

import itertools
from decimal import Decimal
from fractions import Fraction
from typing import Any

import optuna
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from infra.errors import BadInputError
from tests.tuning import facts
from tests.tuning.spaces import choice, double, integer
from tuning import space
from tuning.space import Grid, Parameter, Point

_PROPERTY = settings(database=None, deadline=None)
_LARGEST = 2**63 - 1


class TestGrid:
    @pytest.mark.parametrize(
        "case", facts.load("grid")["double"], ids=lambda case: f"{case['min']}-{case['max']}"
    )
    def test_of_doubles(self, case: dict[str, Any]) -> None:
        parameter = double(case["min"], case["max"], case["step"])

        space.check([parameter], grid=True)

        assert list(parameter.grid()) == case["decimal"]
        assert all(type(value) is float for value in parameter.grid())

    @pytest.mark.parametrize(
        ("parameter", "values"),
        [
            (integer(1, 4), [1, 2, 3, 4]),
            (integer(1, 8, 3), [1, 4, 7]),
            (integer(-3, 3, 2), [-3, -1, 1, 3]),
            (integer(_LARGEST - 2, _LARGEST), [_LARGEST - 2, _LARGEST - 1, _LARGEST]),
            (integer(5, 5), [5]),
            (double(5, 5), [5.0]),
            (double(0.1, 0.3, 0.1), [0.1, 0.2, 0.3]),
            (double(1e-5, 1e-3, 3e-4, log=True), [1e-5, 0.00031, 0.00061, 0.00091]),
            (double(-0.3, 0.3, 0.1), [-0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3]),
            (double(1e15, 1e15 + 4, 2), [1e15, 1e15 + 2, 1e15 + 4]),
            (double(0, 1e-300, 2.5e-301), [0, 2.5e-301, 5e-301, 7.5e-301, 1e-300]),
            (choice("b", "a"), ["b", "a"]),
            (choice(4, 1, type="discrete"), [4, 1]),
        ],
    )
    def test_values(self, parameter: Parameter, values: list[Any]) -> None:
        assert list(parameter.grid()) == values
        assert parameter.grid_size() == len(parameter.grid()) == len(values)
        assert [type(value) for value in parameter.grid()] == [
            float if parameter.type == "double" else type(value) for value in values
        ]

    def test_the_last_parameter_varies_fastest(self) -> None:
        grid = Grid([choice("a", "b"), integer(1, 2), double(0, 0.2, 0.2)])

        assert [tuple(point.values()) for point in grid] == [
            ("a", 1, 0.0), ("a", 1, 0.2), ("a", 2, 0.0), ("a", 2, 0.2),
            ("b", 1, 0.0), ("b", 1, 0.2), ("b", 2, 0.0), ("b", 2, 0.2),
        ]  # fmt: skip
        assert [list(point) for point in grid] == [["c", "n", "x"]] * 8

    @pytest.mark.parametrize("index", [-1, 4, 10**30])
    def test_there_are_no_other_points(self, index: int) -> None:
        with pytest.raises(IndexError):
            Grid([integer(1, 4)])[index]
        with pytest.raises(IndexError):
            integer(1, 4).grid()[index]

    def test_every_point_is_one_that_optuna_takes(self) -> None:
        parameters = [double(0.1, 0.3, 0.1), double(0, 0.35, 0.05, name="y"), choice("a", True)]
        distributions = {each.name: each.distribution() for each in parameters}
        study = optuna.create_study()

        for point in Grid(parameters):
            study.add_trial(
                optuna.trial.create_trial(params=point, distributions=distributions, value=0.0)
            )

        assert len(study.trials) == 3 * 8 * 2


@st.composite
def doubles(draw: st.DrawFn, name: str = "x", most: int = 10**6) -> Parameter:
    """A double's range as people write it: decimals, and a step that fits in."""
    places = draw(st.integers(0, 12))
    unit = Decimal(1).scaleb(-places)
    low = draw(st.integers(-(10**6), 10**6)) * unit
    step = draw(st.integers(1, 10**4)) * unit
    count = draw(st.integers(1, most))
    rest = draw(st.integers(0, 10**4)) * unit
    assume(rest < step)
    return double(float(low), float(low + count * step + rest), float(step), name=name)


@st.composite
def any_doubles(draw: st.DrawFn) -> Parameter:
    """A double's range of any floats that are not refused."""
    numbers = st.floats(-(2.0**62), 2.0**62) | st.floats(-1e-300, 1e-300)
    low, high = sorted(draw(st.tuples(numbers, numbers)))
    step = draw(st.floats(0, high - low))
    parameter = double(low, high, step)
    try:
        parameter.check(grid=True)
    except BadInputError:
        assume(False)
    return parameter


@st.composite
def integers(draw: st.DrawFn, name: str = "n", most: int = 10**6) -> Parameter:
    low = draw(st.integers(-_LARGEST, _LARGEST - 1))
    step = draw(st.integers(1, min(_LARGEST - low, 10**9)))
    high = draw(st.integers(low + step, min(_LARGEST, low + step * most)))
    return integer(low, high, step, name=name)


def choices(name: str = "c") -> st.SearchStrategy[Parameter]:
    plain = st.integers(-_LARGEST, _LARGEST) | st.text(max_size=3)
    values = st.lists(plain, min_size=1, max_size=4, unique=True)
    return values.map(lambda found: choice(*found, name=name))


@given(parameter=doubles() | any_doubles() | integers(), data=st.data())
@_PROPERTY
def test_a_grid_is_exact(parameter: Parameter, data: st.DataObject) -> None:
    """Value i is the number nearest to min + i * step, with the numbers as they are written."""
    low, high, step = (
        Fraction(Decimal(repr(bound))) for bound in (parameter.min, parameter.max, parameter.step)
    )
    parameter.check(grid=True)
    size = parameter.grid_size()

    assert low + (size - 1) * step <= high < low + size * step
    assume(size < 2**62)
    axis = parameter.grid()
    for index in {0, size - 1, data.draw(st.integers(0, size - 1))}:
        value = axis[index]
        assert isinstance(value, int | float)
        exact = low + index * step
        assert value == (exact if parameter.type == "int" else float(exact))
        assert parameter.min <= value <= parameter.max  # type: ignore[operator]
        assert index == 0 or axis[index - 1] < value  # type: ignore[operator]


@given(parameter=doubles(most=200))
@_PROPERTY
def test_a_grids_doubles_are_short(parameter: Parameter) -> None:
    """No 0.30000000000000004: a value has no more decimals than the min or the step."""
    places = max(
        -int(Decimal(repr(bound)).as_tuple().exponent) for bound in (parameter.min, parameter.step)
    )

    for value in parameter.grid():
        assert -int(Decimal(repr(value)).normalize().as_tuple().exponent) <= places


_SPACES = st.tuples(
    choices("a"), doubles("b", most=4), integers("c", most=4), choices("d")
).flatmap(st.permutations)


@given(parameters=_SPACES)
@_PROPERTY
def test_a_grid_is_the_product_of_its_axes(parameters: list[Parameter]) -> None:
    space.check(parameters, grid=True)
    names = [parameter.name for parameter in parameters]
    product = [
        dict(zip(names, values, strict=True))
        for values in itertools.product(*(parameter.grid() for parameter in parameters))
    ]
    grid = Grid(parameters)

    assert len(grid) == len(product)
    assert list(grid) == product
    assert [grid[index] for index in range(len(grid))] == product
    assert len({_key(point) for point in grid}) == len(product)


def _key(point: Point) -> str:
    return repr(list(point.items()))


class TestSize:
    @pytest.mark.parametrize(
        ("parameters", "size"),
        [
            ([integer(1, 4)], 4),
            ([integer(1, 4, 3)], 4),  # a step is the grid's alone
            ([choice("a", "b"), integer(0, 2)], 6),
            ([double(0, 1, 0.5)], None),
            ([double(1, 1)], 1),
            ([double(1, 1), choice("a", "b")], 2),
            ([choice("a", "b"), double(0, 1)], None),
            ([integer(-_LARGEST, _LARGEST)], 2**64 - 1),
        ],
    )
    def test_counts_all_points(self, parameters: list[Parameter], size: int | None) -> None:
        assert space.size(parameters) == size

    @given(
        parameters=st.tuples(
            choices("a"), st.integers(-5, 5).map(lambda low: integer(low, low + 2)), choices("d")
        )
    )
    @_PROPERTY
    def test_every_point_has_an_index(self, parameters: tuple[Parameter, ...]) -> None:
        size = space.size(parameters)
        assert size is not None

        points = [space.point_at(parameters, index) for index in range(size)]

        assert points == list(Grid(parameters))
        assert len({_key(point) for point in points}) == size

    def test_a_space_that_no_list_could_hold(self) -> None:
        parameters = [integer(-_LARGEST, _LARGEST), integer(0, _LARGEST, name="m"), double(2, 2)]
        size = space.size(parameters)
        assert size is not None

        assert space.point_at(parameters, 2**63 + 5) == {"n": -_LARGEST + 1, "m": 5, "x": 2.0}
        assert space.point_at(parameters, size - 1) == {"n": _LARGEST, "m": _LARGEST, "x": 2.0}

    @pytest.mark.parametrize(
        ("parameters", "index"),
        [([integer(1, 4)], -1), ([integer(1, 4)], 4), ([double(0, 1)], 0)],
    )
    def test_there_are_no_other_points(self, parameters: list[Parameter], index: int) -> None:
        with pytest.raises(IndexError):
            space.point_at(parameters, index)
        with pytest.raises(IndexError):
            parameters[0].value_at(index)
