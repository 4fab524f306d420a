"""Parameters of runs: merged as mappings, and validated as request models."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    WithJsonSchema,
)
from pydantic.fields import FieldInfo

from infra import nesting
from infra.errors import BadInputError
from infra.parameter_models import ParameterModel, invalid
from infra.suggestions import did_you_mean

LARGEST_NUMBER = 2**63 - 1

M = TypeVar("M", bound=BaseModel)

# Fields whose names are the user's own, and what each of those is.
_GROUPS = {"hyperparameters": "A hyperparameter", "arguments": "An argument of the pipeline"}

# A form refuses numbers that Prefect could not read back; read() refuses all others.
_BOUNDS = {"minimum": -LARGEST_NUMBER, "maximum": LARGEST_NUMBER}
Scalar = (
    StrictBool
    | Annotated[StrictInt, WithJsonSchema({"type": "integer", **_BOUNDS})]
    | Annotated[StrictFloat, WithJsonSchema({"type": "number", **_BOUNDS})]
    | StrictStr
)

# An optional string: null is read as "". A form shows it as a plain text field.
Text = Annotated[str, BeforeValidator(lambda value: "" if value is None else value)]

# A time limit; empty for none.
Minutes = Annotated[
    float | None,
    WithJsonSchema(
        {"anyOf": [{"type": "number", "exclusiveMinimum": 0, "maximum": 10**9}, {"type": "null"}]}
    ),
]

# Groups with alternatives: giving a field of one alternative drops the fields of the others.
_ALTERNATIVES: dict[str, tuple[frozenset[str], ...]] = {
    "algorithm": (frozenset({"provided"}), frozenset({"uri", "entry_point"})),
}


class FlowRequest(ParameterModel):
    """Base of the flows' request models, whose fields are the flows' forms."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    def absolute(self) -> Self:
        """Resolve relative paths against the caller's working directory."""
        return self


def check_minutes(name: str, minutes: float | None) -> None:
    """Refuse a time limit that is not above 0.

    Args:
        name: The parameter's name.
        minutes: The limit; None for none.

    Raises:
        BadInputError: With the code ``MaxMinutesInvalid``.
    """
    if minutes is not None and not 0 < minutes < math.inf:
        raise BadInputError(
            f"Invalid parameter `{name}`: {minutes:g}.",
            "Give a time limit in minutes above 0, or leave it out.",
            code="MaxMinutesInvalid",
        )


def form_fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a request model in the order of its form: those that are required first.

    A model that inherits fields, which pydantic puts first, names the order in ``FORM_ORDER``.
    """
    order: tuple[str, ...] = getattr(model, "FORM_ORDER", tuple(model.model_fields))
    required_first = sorted(order, key=lambda name: not model.model_fields[name].is_required())
    return {name: model.model_fields[name] for name in required_first}


def string_fields(model: type[BaseModel], prefix: str = "") -> set[str]:
    """Return the dotted names of the fields that are strings, in groups as well."""
    found: set[str] = set()
    for name, field in model.model_fields.items():
        if field.annotation is str:
            found.add(f"{prefix}{name}")
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= string_fields(field.annotation, f"{prefix}{name}.")
    return found


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge ``over`` into ``under``: groups are merged, lists and values replaced.

    Of a group with alternatives, such as ``algorithm``, only the one that ``over`` gives is kept.
    """
    kept = {name: _drop_alternatives(name, value, over.get(name)) for name, value in under.items()}
    return _merge_groups(kept, over)


def _merge_groups(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**under, **over}
    for name in under.keys() & over.keys():
        if isinstance(under[name], Mapping) and isinstance(over[name], Mapping):
            merged[name] = _merge_groups(under[name], over[name])
    return merged


def _drop_alternatives(name: str, under: Any, over: Any) -> Any:
    alternatives = _ALTERNATIVES.get(name, ())
    if not (alternatives and isinstance(under, Mapping) and isinstance(over, Mapping)):
        return under
    given = {field for field, value in over.items() if value is not None and value != ""}
    chosen = [fields for fields in alternatives if fields & given]
    others = frozenset().union(*alternatives).difference(*chosen) if chosen else frozenset()
    return {field: value for field, value in under.items() if field not in others}


def drop_nulls(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Drop null values, in groups as well: null means "not given" everywhere."""
    return {
        name: drop_nulls(value) if isinstance(value, Mapping) else value
        for name, value in parameters.items()
        if value is not None
    }


def _check_nesting(parameters: Mapping[str, Any]) -> None:
    """Refuse values that Prefect could not write: see :mod:`infra.nesting`."""
    for name, value in parameters.items():
        if nesting.is_too_deep(value):
            raise BadInputError(
                f"Invalid parameter `{name}`: more than {nesting.DEEPEST} levels of lists and "
                "mappings.",
                "Give a flatter value, or a file's path.",
                code="NestedTooDeep",
            )


def _check_numbers(value: Any, where: str) -> None:
    """Refuse numbers that Prefect cannot read back.

    Prefect writes a large float as an integer of JSON, and reads 64-bit integers only. A single
    run with a larger number breaks every listing that includes it.
    """
    if isinstance(value, int | float) and LARGEST_NUMBER < abs(value) < math.inf:
        size = abs(value)  # an integer can be larger than any float
        fits = size <= sys.float_info.max
        shown = f"{value:.3g}" if fits else f"of about {math.log10(size):.0f} digits"
        raise BadInputError(
            f"Invalid parameter `{where}`: {shown} is too large.",
            "Give a number below 2**63, or the number as a string.",
            code="NumberTooLarge",
        )
    if isinstance(value, list):
        value = dict(enumerate(value))
    for name, inner in value.items() if isinstance(value, Mapping) else ():
        _check_numbers(inner, f"{where}.{name}".lstrip("."))


def read(model: type[M], parameters: Mapping[str, Any]) -> M:
    """Validate ``parameters`` as ``model``; null values count as not given.

    Raises:
        BadInputError: With the code ``ParameterUnknown``, ``ParameterInvalid``, ``NestedTooDeep``
            or ``NumberTooLarge``.
    """
    _check_nesting(parameters)
    parameters = drop_nulls(parameters)
    _check_numbers(parameters, "")
    for name in parameters:
        if name not in model.model_fields:
            raise BadInputError(
                f"Unknown parameter `{name}`.",
                f"{_meant(name, model)} Known are: "
                f"{', '.join(sorted(model.model_fields))}.".lstrip(),
                code="ParameterUnknown",
            )
    try:
        return model(**parameters)
    except ValidationError as error:
        raise invalid(model, error) from None


def _meant(name: str, model: type[BaseModel]) -> str:
    """Say what an unknown parameter may be: a similar one, or one of a group; "" for neither."""
    asked = did_you_mean(name, model.model_fields)
    grouped = (
        f"{what} is given as {group}.{name}."
        for group, what in _GROUPS.items()
        if group in model.model_fields
    )
    return asked or next(grouped, "")
