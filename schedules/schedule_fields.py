"""Base of the models that describe a schedule, such as its trigger and its policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from infra.errors import BadInputError
from schedules import plain


class ScheduleFields(BaseModel):
    """A group of fields: null counts as not given, and unknown fields are refused.

    Every fault is raised as a ``BadInputError`` that names the field.

    Attributes:
        noun: Name of the group in messages.
        internal_fields: Fields that users cannot write.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    noun: ClassVar[str]
    internal_fields: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def editable_fields(cls) -> tuple[str, ...]:
        """Names of the fields that users can write."""
        return tuple(name for name in cls.model_fields if name not in cls.internal_fields)

    @model_validator(mode="wrap")
    @classmethod
    def _raise_bad_input(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(given)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or cls.noun
            missing = first["type"] == "missing"
            problem = "Missing." if missing else f"{first['msg']}."
            raise BadInputError(
                f"{place}: {problem}", "Give it." if missing else "Fix the value.",
                code="FieldInvalid",
            ) from None  # fmt: skip

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        unknown = sorted(str(name) for name in given.keys() - cls.model_fields.keys())
        if unknown:
            raise BadInputError(
                f"A {cls.noun} has no field {unknown[0]!r}.",
                f"Known are: {', '.join(cls.editable_fields())}.",
                code="FieldUnknown",
            )
        plain.check(given)
        return {name: value for name, value in given.items() if value is not None}


def whole_number(value: Any, what: str, low: int, high: int, code: str) -> int:
    """Check that ``value`` is a whole number within bounds.

    Args:
        value: The value.
        what: Name of the field, for the message.
        low: Lower bound, inclusive.
        high: Upper bound, inclusive.
        code: Code of the error.

    Raises:
        BadInputError: If it is not.
    """
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    raise BadInputError(
        f"The {what} is not a whole number from {low} to {high}.",
        "Give one, without quotes, or leave it out.", code=code,
    )  # fmt: skip
