"""Parameters as mappings: laid over each other, and read."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    WithJsonSchema,
)

from infra.errors import BadInputError

LARGEST_NUMBER = 2**63 - 1

M = TypeVar("M", bound=BaseModel)

# A form refuses what Prefect could not give back; elsewhere read() does.
_BOUNDS = {"minimum": -LARGEST_NUMBER, "maximum": LARGEST_NUMBER}
Scalar = (
    StrictBool
    | Annotated[StrictInt, WithJsonSchema({"type": "integer", **_BOUNDS})]
    | Annotated[StrictFloat, WithJsonSchema({"type": "number", **_BOUNDS})]
    | StrictStr
)

# A text that may be left out, as an empty or a null value. To a form it is a plain text field.
Text = Annotated[str, BeforeValidator(lambda value: "" if value is None else value)]

# Groups with alternatives: whoever gives fields of one does not mean those of the others.
_ALTERNATIVES: dict[str, tuple[frozenset[str], ...]] = {
    "algorithm": (frozenset({"provided"}), frozenset({"uri", "entry_point"})),
}


class Request(BaseModel):
    """The request of a flow; a base of their models, whose fields are the flow's form."""

    def absolute(self) -> Self:
        """The same with relative paths resolved against the caller's working directory."""
        return self


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid over ``under``: groups are merged, lists and values replaced.

    A group of alternatives, such as ``algorithm``, keeps only the one that ``over`` gives.
    """
    kept = {
        name: _without_alternatives(name, value, over.get(name)) for name, value in under.items()
    }
    return _merged(kept, over)


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    laid = {**under, **over}
    for name in under.keys() & over.keys():
        if isinstance(under[name], Mapping) and isinstance(over[name], Mapping):
            laid[name] = _merged(under[name], over[name])
    return laid


def _without_alternatives(name: str, under: Any, over: Any) -> Any:
    alternatives = _ALTERNATIVES.get(name, ())
    if not (alternatives and isinstance(under, Mapping) and isinstance(over, Mapping)):
        return under
    given = {field for field, value in over.items() if value is not None and value != ""}
    meant = [fields for fields in alternatives if fields & given]
    others = frozenset().union(*alternatives).difference(*meant) if meant else frozenset()
    return {field: value for field, value in under.items() if field not in others}


def without_nulls(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The same without what is null, in groups as well; null means "left out" everywhere."""
    return {
        name: without_nulls(value) if isinstance(value, Mapping) else value
        for name, value in parameters.items()
        if value is not None
    }


def _check_numbers(value: Any, where: str) -> None:
    """Refuse numbers that Prefect cannot give back.

    It writes them as JSON, where a large float is an integer, and reads 64-bit integers only; one
    run with a larger number would make every list that it is in fail.
    """
    if isinstance(value, int | float) and LARGEST_NUMBER < abs(value) < math.inf:
        size = abs(value)  # an integer can be larger than any float
        fits = size <= sys.float_info.max
        shown = f"{value:.3g}" if fits else f"of about {math.log10(size):.0f} digits"
        raise BadInputError(
            f"{where} is {shown}, which is too large to be kept.",
            "Give a number of less than 63 bits, or the number as a text.",
            code="NumberTooLarge",
        )
    if isinstance(value, list):
        value = dict(enumerate(value))
    for name, inner in value.items() if isinstance(value, Mapping) else ():
        _check_numbers(inner, f"{where}.{name}".lstrip("."))


def read(model: type[M], parameters: Mapping[str, Any]) -> M:
    """``parameters`` as ``model``; what is null is left out.

    Raises:
        BadInputError: With the code ``ParameterUnknown``, ``ParameterInvalid`` or
            ``NumberTooLarge``.
    """
    parameters = without_nulls(parameters)
    _check_numbers(parameters, "")
    for name in parameters:
        if name not in model.model_fields:
            raise BadInputError(
                f"There is no parameter {name!r}.",
                f"There are: {', '.join(sorted(model.model_fields))}.",
                code="ParameterUnknown",
            )
    try:
        return model(**parameters)
    except ValidationError as error:
        # The values stay out of it: one of them may be a secret in the wrong field.
        wrong = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()
        )
        raise BadInputError(
            f"A parameter is wrong: {wrong}.", "Mend its value.", code="ParameterInvalid"
        ) from None
