"""The search space: which hyperparameters a tuning varies, and over which values.

A grid is exact: its values are computed in decimal, so that 0 to 0.35 in steps of 0.05 are eight
values, the last of them 0.35. Its points have a fixed order, in which the last parameter varies
fastest, and any point is found by its number without those before it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Literal

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

from infra.errors import BadInputError

LARGEST_GRID = 1_000_000
MOST_PARAMETERS = 100
MOST_VALUES = 10_000

Value = StrictBool | StrictInt | StrictFloat | StrictStr
Point = dict[str, Value]


class Parameter(BaseModel):
    """A hyperparameter that is varied."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="The hyperparameter's name.")
    type: Literal["int", "double", "categorical", "discrete"] = Field(
        description="int and double have a range; categorical and discrete have values."
    )
    min: StrictInt | StrictFloat | None = Field(None, description="The smallest value.")
    max: StrictInt | StrictFloat | None = Field(None, description="The largest value.")
    step: StrictInt | StrictFloat | None = Field(
        None, description="The distance of a grid's values. Other strategies do not use it."
    )
    log: bool = Field(False, description="Search on a logarithmic scale; a grid does not.")
    values: list[Value] = Field([], description="The values, of a categorical or a discrete one.")

    def check(self, *, grid: bool) -> None:
        """Refuse a parameter that has no values.

        Raises:
            BadInputError: With a code of its own for each fault.
        """
        if self.type in {"int", "double"}:
            self._check_range(grid=grid)
        else:
            self._check_values()

    def _check_range(self, *, grid: bool) -> None:
        if self.values:
            raise self._wrong("has a range, and values too", "Give one.", "ParameterValuesUnused")
        bounds = {"min": self.min, "max": self.max, "step": self.step}
        for word, bound in bounds.items():
            if bound is None and (word != "step" or (grid and self.type == "double")):
                code = "ParameterStepMissing" if word == "step" else "ParameterRangeMissing"
                raise self._wrong(f"has no {word}", f"Give its {word}.", code)
            whole = bound is None or float(bound).is_integer() if _finite(bound) else False
            if not _finite(bound) or (self.type == "int" and not whole):
                kind = "a whole number" if self.type == "int" else "a number"
                raise self._wrong(f"has a {word} that is not {kind}", "Mend it.", "ParameterRangeInvalid")
        assert self.min is not None
        assert self.max is not None
        if self.min > self.max:
            raise self._wrong(
                f"has a min of {self.min} above its max of {self.max}", "Swap them.",
                "ParameterRangeEmpty",
            )  # fmt: skip
        if self.step is not None and not 0 < self.step <= max(self.max - self.min, 0):
            raise self._wrong(
                f"has a step of {self.step}, and its range is {self.max - self.min}",
                "Give a step above 0 that the range holds.", "ParameterStepInvalid",
            )  # fmt: skip
        if self.log and self.min <= 0:
            raise self._wrong(
                f"is on a logarithmic scale from {self.min}", "Give a min above 0.",
                "ParameterLogInvalid",
            )  # fmt: skip

    def _check_values(self) -> None:
        if self.min is not None or self.max is not None or self.step is not None or self.log:
            raise self._wrong("has values, and no range", "Give values only.", "ParameterRangeUnused")
        if not self.values:
            raise self._wrong("has no values", "Give at least one.", "ParameterValuesMissing")
        if len(self.values) > MOST_VALUES:
            raise self._wrong(
                f"has {len(self.values)} values", f"Give at most {MOST_VALUES}.",
                "ParameterValuesTooMany",
            )  # fmt: skip
        if len({(type(value) is bool, value) for value in self.values}) < len(self.values):
            raise self._wrong("has a value twice", "Give each once.", "ParameterValueTwice")
        for value in self.values:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if (self.type == "discrete" and not number) or (number and not _finite(value)):
                raise self._wrong(
                    f"has the value {value!r}, which is no finite number", "Give numbers, or make "
                    "it categorical.", "ParameterValueInvalid",
                )  # fmt: skip

    def _wrong(self, what: str, hint: str, code: str) -> BadInputError:
        return BadInputError(f"The parameter {self.name!r} {what}.", hint, code=code)

    def grid(self) -> Sequence[Value]:
        """Its values in a grid: of a range min, min + step, ... up to max, or the values."""
        if self.type not in {"int", "double"}:
            return self.values
        low, high = Decimal(str(self.min)), Decimal(str(self.max))
        step = Decimal(str(self.step if self.step is not None else 1))
        kind = int if self.type == "int" else float
        count = int((high - low) // step) + 1
        return _Steps(low, step, count, kind)

    def distribution(self) -> BaseDistribution:
        """What Optuna samples it from."""
        if self.type not in {"int", "double"}:
            return CategoricalDistribution(list(self.values))
        assert self.min is not None
        assert self.max is not None
        if self.type == "int":
            return IntDistribution(int(self.min), int(self.max), log=self.log)
        return FloatDistribution(float(self.min), float(self.max), log=self.log)


def _finite(bound: object) -> bool:
    return bound is None or (isinstance(bound, int | float) and math.isfinite(bound))


class _Steps(Sequence[Value]):
    """``low``, ``low + step``, ...: computed when they are asked for."""

    def __init__(self, low: Decimal, step: Decimal, count: int, kind: type[int] | type[float]) -> None:
        self._low, self._step, self._count, self._kind = low, step, count, kind

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Value:  # type: ignore[override]
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._kind(self._low + index * self._step)


class Grid(Sequence[Point]):
    """Every point of a space's grid, in its order; a point is computed when it is asked for."""

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        """Make the grid of ``parameters``, which are checked."""
        self._axes = {parameter.name: parameter.grid() for parameter in parameters}

    def __len__(self) -> int:
        return math.prod(map(len, self._axes.values()))

    def __getitem__(self, index: int) -> Point:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        point: Point = {}
        for name, axis in reversed(self._axes.items()):
            index, place = divmod(index, len(axis))
            point[name] = axis[place]
        return {name: point[name] for name in self._axes}


def check(parameters: Sequence[Parameter], *, grid: bool) -> None:
    """Refuse a space that cannot be searched.

    Args:
        parameters: The space.
        grid: Whether it is searched as a grid, which needs steps and must not be too large.

    Raises:
        BadInputError: With a code of its own for each fault.
    """
    if not 1 <= len(parameters) <= MOST_PARAMETERS:
        raise BadInputError(
            f"There are {len(parameters)} parameters to tune.",
            f"Give 1 to {MOST_PARAMETERS}.",
            code="ParametersMissing" if not parameters else "ParametersTooMany",
        )
    seen: set[str] = set()
    for parameter in parameters:
        if parameter.name in seen:
            raise BadInputError(
                f"The parameter {parameter.name!r} is given twice.", "Give each once.",
                code="ParameterTwice",
            )  # fmt: skip
        seen.add(parameter.name)
        parameter.check(grid=grid)
    if grid and (size := math.prod(len(parameter.grid()) for parameter in parameters)) > LARGEST_GRID:
        raise BadInputError(
            f"The grid has {size} points.",
            f"Give larger steps or fewer values: at most {LARGEST_GRID} points can be tried.",
            code="GridTooLarge",
        )
