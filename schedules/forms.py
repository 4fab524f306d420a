"""What the groups of fields that describe a schedule have in common."""

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


class Form(BaseModel):
    """A group of fields; one that is null is left out, and one that is unknown is refused.

    Whatever is wrong is told as a ``BadInputError`` that names the field.

    Attributes:
        unwritten: Fields that nobody writes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    unwritten: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def written(cls) -> tuple[str, ...]:
        """The fields that somebody may write."""
        return tuple(name for name in cls.model_fields if name not in cls.unwritten)

    @model_validator(mode="wrap")
    @classmethod
    def _told(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(given)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or cls.__name__.lower()
            missing = first["type"] == "missing"
            what = "It is missing." if missing else f"{first['msg']}."
            raise BadInputError(
                f"{place}: {what}", "Give it." if missing else "Mend its value.",
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
                f"A {cls.__name__.lower()} has no field {unknown[0]!r}.",
                f"There are: {', '.join(cls.written())}.",
                code="FieldUnknown",
            )
        plain.check(given)
        return {name: value for name, value in given.items() if value is not None}


def whole_number(value: Any, what: str, low: int, high: int, code: str) -> int:
    """``value``, if it is a whole number within bounds.

    Args:
        value: What was given.
        what: What it is, for the error's sentence.
        low: The least that it may be.
        high: The most.
        code: The error's.

    Raises:
        BadInputError: If it is anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    raise BadInputError(
        f"The {what} is not a whole number from {low} to {high}.",
        "Give one, without quotes, or leave it out.", code=code,
    )  # fmt: skip
