"""The search space: which hyperparameters a tuning varies, and over which values.

A grid is exact: its values are computed with the fractions that the numbers are written as, so
that 0 to 0.35 in steps of 0.05 are eight values, the last of them 0.35. Its points have a fixed
order, in which the last parameter varies fastest, and any point is found by its number without
those before it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Annotated, Any, Literal

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import (
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from infra.errors import BadInputError
from tuning.forms import BOUNDS, LARGEST_NUMBER, FieldGroup, OptionalNumber, is_finite, is_number

LARGEST_GRID = 1_000_000
MOST_PARAMETERS = 100
MOST_VALUES = 10_000

Value = (
    StrictBool
    | Annotated[StrictInt, WithJsonSchema({"type": "integer", **BOUNDS})]
    | Annotated[StrictFloat, WithJsonSchema({"type": "number", **BOUNDS})]
    | StrictStr
)
Point = dict[str, Value]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,249}")  # MLflow keeps no longer one
_RANGES = ("int", "double")


class Parameter(FieldGroup):
    """Hyperparameter of a search space."""

    name: str = Field(description="The hyperparameter's name.")
    type: Literal["int", "double", "categorical", "discrete"] = Field(
        description="int and double have a min and a max; categorical and discrete have values."
    )
    min: OptionalNumber = Field(
        default=None, description="The smallest value of an int or a double."
    )
    max: OptionalNumber = Field(
        default=None, description="The largest value of an int or a double."
    )
    step: OptionalNumber = Field(
        default=None,
        description="Distance between the values of a grid: required there for a double, 1 by "
        "default for an int. Other strategies ignore it.",
    )
    log: bool = Field(
        default=False,
        description="Search on a logarithmic scale, for a min above 0. A grid ignores it.",
    )
    values: list[Value] = Field(
        default=[], description="Values of a categorical or a discrete parameter."
    )

    @field_validator("min", "max", "step", mode="before")
    @classmethod
    def _bound(cls, value: Any, info: ValidationInfo) -> Any:
        """A bound as a number of the parameter's type, where it is one."""
        if value is None:
            return value
        if not is_number(value):
            raise BadInputError(
                f"The {info.field_name} of the parameter {info.data.get('name')!r} is not a "
                "number.",
                "Give a number, without quotes.",
                code="ParameterBoundInvalid",
            )
        kind = info.data.get("type")
        if kind == "int" and isinstance(value, float) and value.is_integer():
            return int(value)
        if kind == "double" and abs(value) <= LARGEST_NUMBER:
            return float(value)
        return value

    @field_validator("values", mode="before")
    @classmethod
    def _listed(cls, values: Any, info: ValidationInfo) -> Any:
        for place, value in enumerate(values if isinstance(values, list) else (), 1):
            if not isinstance(value, bool | int | float | str):
                raise BadInputError(
                    f"Value {place} of the parameter {info.data.get('name')!r} is neither a "
                    "number nor a string nor true or false.",
                    "Give a list of plain values.",
                    code="ParameterValueInvalid",
                )
        return values

    def check(self, *, grid: bool) -> None:
        """Refuse a parameter that cannot be searched.

        Args:
            grid: Whether it is to be an axis of a grid, for which a double needs a step.

        Raises:
            BadInputError: With a code of its own for each fault.
        """
        if not _NAME.fullmatch(self.name):
            raise BadInputError(
                f"The parameter's name {self.name[:60]!r} cannot be an argument.",
                "Use up to 250 letters, digits, '_', '-' and '.', and begin with a letter or '_'.",
                code="ParameterNameInvalid",
            )
        if self.type in _RANGES:
            self._check_range(grid=grid)
        else:
            self._check_values()

    def _check_range(self, *, grid: bool) -> None:
        if self.values:
            raise self._wrong("has values beside its range", "Give one.", "ParameterValuesUnused")
        if self.min is None or self.max is None:
            raise self._wrong("has no min or no max", "Give both.", "ParameterRangeMissing")
        for word in ("min", "max", "step"):
            self._check_bound(word, getattr(self, word))
        if self.min > self.max:
            raise self._wrong(
                f"has a min of {self.min}, which is above its max of {self.max}", "Swap them.",
                "ParameterRangeEmpty",
            )  # fmt: skip
        if self.log and self.min <= 0:
            raise self._wrong(
                f"is on a logarithmic scale and has a min of {self.min}", "Give a min above 0.",
                "ParameterLogInvalid",
            )  # fmt: skip
        if self.step is not None:
            self._check_step(self.step, _exact(self.max) - _exact(self.min))
        elif grid and self.type == "double" and self.min < self.max:
            raise self._wrong(
                "is a double without a step", "Give the step of its values in the grid.",
                "ParameterStepMissing",
            )  # fmt: skip

    def _check_bound(self, word: str, bound: float | None) -> None:
        if bound is None:
            return
        if not is_finite(bound):
            raise self._wrong(
                f"has a {word} that is not finite", "Give a finite number.",
                "ParameterBoundNotFinite",
            )  # fmt: skip
        if abs(bound) > LARGEST_NUMBER:
            raise self._wrong(
                f"has a {word} that is too large to be kept",
                "Give a number of less than 63 bits.", "NumberTooLarge",
            )  # fmt: skip
        if self.type == "int" and not isinstance(bound, int):
            raise self._wrong(
                f"is an int and has a {word} of {bound}",
                "Give a whole number, or make it a double.", "ParameterBoundNotWhole",
            )  # fmt: skip

    def _check_step(self, step: float, width: Fraction) -> None:
        if not 0 < _exact(step) <= width:
            raise self._wrong(
                f"has a step of {step} for a range of {float(width):g}",
                "Give a step above 0 that is at most max - min, or leave it out.",
                "ParameterStepInvalid",
            )  # fmt: skip
        # Two values that are at most as far apart as two floats are can be the same float.
        finest = math.ulp(max(abs(self.min or 0), abs(self.max or 0)))
        if self.type == "double" and step <= finest:
            raise self._wrong(
                f"has a step of {step}, by which numbers of that size cannot differ",
                "Give a larger step.", "ParameterStepTooFine",
            )  # fmt: skip

    def _check_values(self) -> None:
        if self.min is not None or self.max is not None or self.step is not None or self.log:
            raise self._wrong(
                f"is {self.type} and has a min, max, step or log", "Give its values only.",
                "ParameterRangeUnused",
            )  # fmt: skip
        if not self.values:
            raise self._wrong("has no values", "Give at least one.", "ParameterValuesMissing")
        if len(self.values) > MOST_VALUES:
            raise self._wrong(
                f"has {len(self.values)} values", f"Give at most {MOST_VALUES}.",
                "ParameterValuesTooMany",
            )  # fmt: skip
        for place, value in enumerate(self.values, 1):
            self._check_value(place, value)
        # 1, 1.0 and true are equal: a search could not distinguish their results.
        seen: dict[Value, int] = {}
        for place, value in enumerate(self.values, 1):
            if (first := seen.setdefault(value, place)) != place:
                raise self._wrong(
                    f"has the same value as value {first} and value {place}", "Give each once.",
                    "ParameterValueTwice",
                )  # fmt: skip

    def _check_value(self, place: int, value: Value) -> None:
        if not is_number(value):
            if self.type == "discrete":
                raise self._wrong(
                    f"is discrete, and its value {place} is not a number",
                    "Give numbers, or make it categorical.", "ParameterValueInvalid",
                )  # fmt: skip
        elif not is_finite(value):
            raise self._wrong(
                f"has a value {place} that is not finite",
                "Give a finite number, or the word as a string.", "ParameterValueInvalid",
            )  # fmt: skip
        elif abs(value) > LARGEST_NUMBER:
            raise self._wrong(
                f"has a value {place} that is too large to be kept",
                "Give a number of less than 63 bits, or the number as a string.", "NumberTooLarge",
            )  # fmt: skip

    def _wrong(self, what: str, hint: str, code: str) -> BadInputError:
        return BadInputError(f"The parameter {self.name!r} {what}.", hint, code=code)

    def grid(self) -> Sequence[Value]:
        """Values in a grid: of a range min, min + step, ... up to max, or the listed values."""
        return _Steps(self) if self.type in _RANGES else self.values

    def grid_size(self) -> int:
        """Number of values in a grid; it may exceed the length of a sequence."""
        if self.type not in _RANGES:
            return len(self.values)
        low, high, step = self._steps()
        return (high - low) // step + 1

    def _steps(self) -> tuple[Fraction, Fraction, Fraction]:
        assert self.min is not None
        assert self.max is not None
        step = 1 if self.step is None else self.step  # a double without one has a single value
        return _exact(self.min), _exact(self.max), _exact(step)

    def size(self) -> int | None:
        """Number of values regardless of its step; None if they are not countable."""
        if self.type not in _RANGES:
            return len(self.values)
        assert self.min is not None
        assert self.max is not None
        if self.type == "int":
            return int(self.max) - int(self.min) + 1
        return 1 if self.min == self.max else None

    def value_at(self, index: int) -> Value:
        """Its value with that index, from 0: of an int in their order, or of the values.

        Raises:
            IndexError: If it has no such value.
        """
        count = self.size()
        if count is None or not 0 <= index < count:
            raise IndexError(index)
        if self.type not in _RANGES:
            return self.values[index]
        assert self.min is not None
        return int(self.min) + index if self.type == "int" else float(self.min)

    def distribution(self) -> BaseDistribution:
        """Distribution of Optuna."""
        if self.type not in _RANGES:
            return CategoricalDistribution(list(self.values))
        assert self.min is not None
        assert self.max is not None
        if self.type == "int":
            return IntDistribution(int(self.min), int(self.max), log=self.log)
        return FloatDistribution(float(self.min), float(self.max), log=self.log)


def _exact(number: float) -> Fraction:
    """Fraction of a number as it is written: 0.1 is a tenth."""
    return Fraction(str(number))


class _Steps(Sequence[Value]):
    """Values of a range in a grid, computed on access."""

    def __init__(self, parameter: Parameter) -> None:
        low, _, step = parameter._steps()
        self._whole = parameter.type == "int"
        self._count = parameter.grid_size()
        # Value i is (low + i * step) / unit. Python divides integers to the nearest float.
        self._unit = math.lcm(low.denominator, step.denominator)
        self._low, self._step = int(low * self._unit), int(step * self._unit)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Value:  # type: ignore[override]
        if not 0 <= index < self._count:
            raise IndexError(index)
        units = self._low + index * self._step
        return units // self._unit if self._whole else units / self._unit


class Grid(Sequence[Point]):
    """Sequence of all points of a space's grid, computed on access."""

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        """Create the grid of ``parameters``, which are valid."""
        self._axes = {parameter.name: parameter.grid() for parameter in parameters}
        self._sizes = [len(axis) for axis in self._axes.values()]
        self._size = math.prod(self._sizes)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Point:  # type: ignore[override]
        if not 0 <= index < self._size:
            raise IndexError(index)
        places = _places(index, self._sizes)
        return {
            name: axis[place]
            for (name, axis), place in zip(self._axes.items(), places, strict=True)
        }


def _places(index: int, sizes: Sequence[int]) -> Iterable[int]:
    """Where on each of its axes the point with that index lies; the last varies fastest."""
    places = []
    for size in reversed(sizes):
        index, place = divmod(index, size)
        places.append(place)
    return reversed(places)


def size(parameters: Sequence[Parameter]) -> int | None:
    """Number of points of a space regardless of steps; None if they are not countable."""
    total = 1
    for parameter in parameters:
        count = parameter.size()
        if count is None:
            return None
        total *= count
    return total


def point_at(parameters: Sequence[Parameter], index: int) -> Point:
    """Return the point with an index, from 0; the last parameter varies fastest.

    Raises:
        IndexError: If the space has no such point, or no size.
    """
    total = size(parameters)
    if total is None or not 0 <= index < total:
        raise IndexError(index)
    places = _places(index, [parameter.size() or 0 for parameter in parameters])
    return {
        parameter.name: parameter.value_at(place)
        for parameter, place in zip(parameters, places, strict=True)
    }


def check(parameters: Sequence[Parameter], *, grid: bool) -> None:
    """Refuse a space that cannot be searched.

    Args:
        parameters: The space.
        grid: Whether it is searched as a grid, which needs steps and must not be too large.

    Raises:
        BadInputError: With a code of its own for each fault.
    """
    if not parameters:
        raise BadInputError(
            "There are no parameters to tune.", "Give at least one.", code="ParametersMissing"
        )
    if len(parameters) > MOST_PARAMETERS:
        raise BadInputError(
            f"There are {len(parameters)} parameters to tune.", f"Give at most {MOST_PARAMETERS}.",
            code="ParametersTooMany",
        )  # fmt: skip
    seen: dict[str, str] = {}
    for parameter in parameters:
        parameter.check(grid=grid)
        _check_name(parameter.name, seen)
    if grid and (points := math.prod(each.grid_size() for each in parameters)) > LARGEST_GRID:
        shown = points if points < 10**15 else f"about 10^{len(str(points)) - 1}"
        raise BadInputError(
            f"The grid has {shown} points.",
            f"Give larger steps or fewer values: at most {LARGEST_GRID} points can be tried.",
            code="GridTooLarge",
        )


def _check_name(name: str, seen: dict[str, str]) -> None:
    """Refuse a name that already exists; ``seen`` has them by the variable that each becomes."""
    variable = f"EM_HP_{name.upper()}"
    first = seen.get(variable)
    if first == name:
        raise BadInputError(
            f"The parameter {name!r} is given twice.", "Give each once.", code="ParameterTwice"
        )
    if first is not None:
        raise BadInputError(
            f"The parameters {first!r} and {name!r} would both be {variable}.", "Rename one.",
            code="ParameterVariableTwice",
        )  # fmt: skip
    seen[variable] = name
