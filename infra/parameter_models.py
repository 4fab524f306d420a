"""Base of the models of parameters, which callers in Python make by name."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from infra.errors import BadInputError
from infra.parameter_faults import describe_invalid


class ParameterModel(BaseModel):
    """Base of the models of parameters: a call with invalid ones is an error for users."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def __init__(self, /, **fields: Any) -> None:
        """Make the model.

        Raises:
            BadInputError: With the code ``ParameterInvalid``.
        """
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise invalid(type(self), error) from None

    # As BaseModel's own: a model within another is validated with it, not by a call.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


def invalid(model: type[BaseModel], error: ValidationError) -> BadInputError:
    """Build the error for parameters that are not those of the model."""
    faults = {fault["type"] for fault in error.errors()}
    hint = "Fix the value."
    if "extra_forbidden" in faults:
        hint = f"The fields of {model.__name__}: {', '.join(model.model_fields)}."
    elif faults == {"list_type"}:
        hint = 'A list is in brackets, as in -p \'NAME=["a", "b"]\'.'
    return BadInputError(f"{describe_invalid(model, error)}.", hint, code="ParameterInvalid")
