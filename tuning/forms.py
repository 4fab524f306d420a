"""Base of the groups of fields that describe a tuning."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, TypeGuard

from pydantic import StrictFloat, StrictInt, WithJsonSchema, model_validator

from infra.parameter_models import ParameterModel

LARGEST_NUMBER = 2**63 - 1  # Prefect writes numbers as JSON, and reads 64-bit integers only

BOUNDS = {"minimum": -LARGEST_NUMBER, "maximum": LARGEST_NUMBER}

# A number that may be left out. To a form it is one number field, whatever is written in it.
OptionalNumber = Annotated[
    StrictInt | StrictFloat | None,
    WithJsonSchema({"anyOf": [{"type": "number", **BOUNDS}, {"type": "null"}]}),
]


class FieldGroup(ParameterModel):
    """Group of fields of a request. Null fields count as absent, also within lists."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        return {name: value for name, value in given.items() if value is not None}


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether ``value`` is a number; NaN and infinities are, true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_finite(number: float) -> bool:
    """Whether ``number`` is neither NaN nor infinite; it may be an integer of any size."""
    return isinstance(number, int) or math.isfinite(number)
