from __future__ import annotations

import json
import math
from typing import Any

import optuna
import pytest
from pydantic import ValidationError

from infra.errors import BadInputError
from tests.tuning.spaces import choice, double, integer
from tuning import space
from tuning.space import LARGEST_GRID, MOST_PARAMETERS, MOST_VALUES, Grid, Parameter

_LARGEST = 2**63 - 1


def refused(parameters: list[Parameter], *, grid: bool = True) -> BadInputError:
    with pytest.raises(BadInputError) as raised:
        space.check(parameters, grid=grid)
    assert raised.value.hint
    return raised.value


class TestForm:
    """What comes from YAML, JSON and forms."""

    def test_null_is_left_out(self) -> None:
        given = {"name": "x", "type": "int", "min": 1, "max": 2, "step": None, "log": None}

        assert Parameter.model_validate({**given, "values": None}) == integer(1, 2, name="x")

    @pytest.mark.parametrize(
        "parameter",
        [
            integer(1, 9, 2, log=True),
            double(0.1, 1, 0.3),
            double(-_LARGEST // 2, _LARGEST // 2),
            choice("a", True, 2, 0.5),
            choice(1, 2.5, type="discrete"),
        ],
    )
    def test_what_was_written_down_reads_the_same(self, parameter: Parameter) -> None:
        written = json.loads(json.dumps(parameter.model_dump(mode="json")))

        assert Parameter.model_validate(written) == parameter
        assert repr(Parameter.model_validate(written)) == repr(parameter)

    def test_an_int_may_be_written_as_a_float(self) -> None:
        parameter = integer(1.0, 9.0, 2.0)

        assert [repr(bound) for bound in (parameter.min, parameter.max, parameter.step)] == [
            "1", "9", "2",
        ]  # fmt: skip

    def test_a_double_may_be_written_as_an_integer(self) -> None:
        parameter = double(0, 2, 1)

        space.check([parameter], grid=True)
        assert repr([parameter.min, parameter.max, parameter.step]) == "[0.0, 2.0, 1.0]"
        assert repr(list(parameter.grid())) == "[0.0, 1.0, 2.0]"

    def test_the_types_of_values_are_kept(self) -> None:
        assert repr(choice(1, 1.5, True, "1").values) == "[1, 1.5, True, '1']"

    def test_every_field_is_described(self) -> None:
        schema = Parameter.model_json_schema()

        assert all(field["description"] for field in schema["properties"].values())
        assert [kind["type"] for kind in schema["properties"]["min"]["anyOf"]] == [
            "number", "null",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        "wrong",
        [
            {"type": "float"},
            {"type": ""},
            {"typ": "int"},
            {"log": "perhaps"},
            {"values": "sgd, adam"},
            {"name": 5},
        ],
    )
    def test_other_fields_and_words_are_refused(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            Parameter.model_validate({"name": "x", "type": "int", "min": 1, "max": 2, **wrong})

    @pytest.mark.parametrize("field", ["min", "max", "step"])
    @pytest.mark.parametrize("bound", [True, False, "1", "abc", [1], {"a": 1}])
    def test_a_bound_that_is_no_number_is_refused(self, field: str, bound: object) -> None:
        given = {"name": "x", "type": "double", "min": 0, "max": 1, "step": 0.5, field: bound}

        with pytest.raises(BadInputError) as raised:
            Parameter.model_validate(given)

        assert raised.value.code == "ParameterBoundInvalid"
        assert raised.value.message == f"The {field} of the parameter 'x' is not a number."

    @pytest.mark.parametrize("value", [None, [1], {"a": 1}])
    def test_a_value_that_is_not_plain_is_refused(self, value: object) -> None:
        with pytest.raises(BadInputError) as raised:
            choice("a", value)

        assert raised.value.code == "ParameterValueInvalid"
        assert "Value 2 of the parameter 'c'" in raised.value.message


class TestCheck:
    @pytest.mark.parametrize(
        ("parameter", "code"),
        [
            (integer(2, 1), "ParameterRangeEmpty"),
            (double(0.2, 0.1, 0.1), "ParameterRangeEmpty"),
            (integer(0, 1, min=None), "ParameterRangeMissing"),
            (double(0, 1, 0.1, max=None), "ParameterRangeMissing"),
            (integer(1.5, 3), "ParameterBoundNotWhole"),
            (integer(1, 3.5), "ParameterBoundNotWhole"),
            (integer(1, 3, 0.5), "ParameterBoundNotWhole"),
            *(
                (double(**{"low": 0, "high": 1, "step": 0.5, word: bound}), code)
                for word in ("low", "high", "step")
                for bound, code in [
                    (math.nan, "ParameterBoundNotFinite"),
                    (math.inf, "ParameterBoundNotFinite"),
                    (-math.inf, "ParameterBoundNotFinite"),
                    (1e300, "NumberTooLarge"),
                    (-(10**400), "NumberTooLarge"),
                ]
            ),
            (integer(0, math.nan), "ParameterBoundNotFinite"),
            (integer(0, 2**63), "NumberTooLarge"),
            (integer(-(2**63), 0), "NumberTooLarge"),
            (integer(0, 10**5000), "NumberTooLarge"),
            (integer(0, 9, 0), "ParameterStepInvalid"),
            (integer(0, 9, -1), "ParameterStepInvalid"),
            (integer(0, 9, 10), "ParameterStepInvalid"),
            (integer(3, 3, 1), "ParameterStepInvalid"),
            (double(0, 1, 0), "ParameterStepInvalid"),
            (double(0, 1, -0.1), "ParameterStepInvalid"),
            (double(0, 1, 1.0000001), "ParameterStepInvalid"),
            (double(0.1, 0.3, 0.20000000000000004), "ParameterStepInvalid"),
            (double(1, 1 + 1e-15, 1e-16), "ParameterStepTooFine"),
            (double(-4, 0, 1e-16), "ParameterStepTooFine"),
            (double(0, 1), "ParameterStepMissing"),
            (integer(0, 9, log=True), "ParameterLogInvalid"),
            (double(0, 1, 0.1, log=True), "ParameterLogInvalid"),
            (double(-1, 1, 0.1, log=True), "ParameterLogInvalid"),
            (integer(0, 9, values=[1]), "ParameterValuesUnused"),
            (choice(), "ParameterValuesMissing"),
            (choice(type="discrete"), "ParameterValuesMissing"),
            (choice("a", min=1), "ParameterRangeUnused"),
            (choice("a", max=1), "ParameterRangeUnused"),
            (choice("a", step=1), "ParameterRangeUnused"),
            (choice("a", log=True), "ParameterRangeUnused"),
            (choice(*range(MOST_VALUES + 1)), "ParameterValuesTooMany"),
            (choice("a", "b", "a"), "ParameterValueTwice"),
            (choice(1, 1.0), "ParameterValueTwice"),
            (choice(1, True), "ParameterValueTwice"),
            (choice(0.0, -0.0), "ParameterValueTwice"),
            (choice(1, "a", type="discrete"), "ParameterValueInvalid"),
            (choice(1, True, type="discrete"), "ParameterValueInvalid"),
            (choice(1.0, math.nan), "ParameterValueInvalid"),
            (choice(math.inf, type="discrete"), "ParameterValueInvalid"),
            (choice(2**63), "NumberTooLarge"),
            (choice(1e300, type="discrete"), "NumberTooLarge"),
            *(
                (choice("a", name=name), "ParameterNameInvalid")
                for name in ("", "1x", "-x", ".x", "x y", "x=1", "é", "x\n", "--x", "x" * 251)
            ),
        ],
    )
    def test_refuses(self, parameter: Parameter, code: str) -> None:
        error = refused([parameter])

        assert error.code == code
        assert repr(parameter.name[:60]) in error.message

    @pytest.mark.parametrize(
        "parameter",
        [
            integer(1, 1),
            double(1, 1),
            integer(1, 9, 8),
            integer(-_LARGEST, -_LARGEST + 5),
            double(0.1, 0.3, 0.2),  # 0.3 - 0.1 is less than 0.2 in floats
            double(0, 1, 1),
            double(1e-300, 1e-299, 1e-300),
            integer(1, 9, log=True),
            double(1e-300, 1, 0.1, log=True),
            choice("a"),
            choice("1", 1, "", "a b"),
            choice(*range(MOST_VALUES), type="discrete"),
            *(choice("a", name=name) for name in ("x", "_x", "x.y-z_1", "X")),
        ],
    )
    @pytest.mark.parametrize("grid", [True, False])
    def test_takes(self, parameter: Parameter, grid: bool) -> None:
        space.check([parameter], grid=grid)

    def test_a_double_needs_a_step_in_a_grid_only(self) -> None:
        space.check([double(0, 1)], grid=False)

    @pytest.mark.parametrize("grid", [True, False])
    def test_a_wrong_step_is_refused_for_every_strategy(self, grid: bool) -> None:
        assert refused([double(0, 1, 0)], grid=grid).code == "ParameterStepInvalid"

    def test_no_parameters(self) -> None:
        assert refused([]).code == "ParametersMissing"

    def test_too_many_parameters(self) -> None:
        names = [f"x{number}" for number in range(MOST_PARAMETERS + 1)]

        space.check([choice("a", name=name) for name in names[1:]], grid=True)
        assert refused([choice("a", name=name) for name in names]).code == "ParametersTooMany"

    def test_two_of_one_name(self) -> None:
        error = refused([choice("a", name="x"), choice("b", name="y"), choice("c", name="x")])

        assert error.code == "ParameterTwice"
        assert "'x'" in error.message

    def test_two_that_would_be_one_variable(self) -> None:
        error = refused([choice("a", name="Lr"), choice("b", name="lR")])

        assert error.code == "ParameterVariableTwice"
        assert error.message == "The parameters 'Lr' and 'lR' would both be EM_HP_LR."

    @pytest.mark.parametrize(
        ("parameters", "shown"),
        [
            ([integer(0, LARGEST_GRID)], "1000001"),
            ([integer(1, 1001), integer(1, 1000, name="m")], "1001000"),
            ([double(0, 1, 1e-12)], "1000000000001"),
            ([integer(-_LARGEST, _LARGEST, name=f"x{n}") for n in range(100)], "about 10^1926"),
        ],
    )
    def test_a_grid_that_is_too_large(self, parameters: list[Parameter], shown: str) -> None:
        error = refused(parameters)

        assert error.code == "GridTooLarge"
        assert error.message.startswith(f"The grid has {shown}")
        space.check(parameters, grid=False)

    def test_the_largest_grid_there_may_be(self) -> None:
        parameters = [integer(1, 1000), double(0.001, 1, 0.001)]

        space.check(parameters, grid=True)
        assert len(Grid(parameters)) == LARGEST_GRID
        assert Grid(parameters)[LARGEST_GRID - 1] == {"n": 1000, "x": 1.0}


class TestDistribution:
    @pytest.mark.parametrize(
        ("parameter", "distribution"),
        [
            (integer(1, 9, 2), optuna.distributions.IntDistribution(1, 9)),
            (integer(1, 9, log=True), optuna.distributions.IntDistribution(1, 9, log=True)),
            (double(0, 1, 0.3), optuna.distributions.FloatDistribution(0.0, 1.0)),
            (
                double(1e-5, 1, log=True),
                optuna.distributions.FloatDistribution(1e-5, 1.0, log=True),
            ),
            (double(1, 1), optuna.distributions.FloatDistribution(1.0, 1.0)),
            (choice("a", True, 2), optuna.distributions.CategoricalDistribution(["a", True, 2])),
            (
                choice(1, 2.5, type="discrete"),
                optuna.distributions.CategoricalDistribution([1, 2.5]),
            ),
        ],
    )
    def test_is_optunas(
        self, parameter: Parameter, distribution: optuna.distributions.BaseDistribution
    ) -> None:
        assert parameter.distribution() == distribution
