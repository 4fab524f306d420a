"""Validation of plain JSON values before they are stored in the catalogue."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from infra.errors import BadInputError
from infra.texts import is_storable

_DEEPEST = 50


def check(value: Any, what: str = "") -> None:
    """Refuse values that cannot be stored: too deep, keys that are not strings, NUL characters.

    Args:
        value: The value.
        what: Name of the value, for the message; "" to name its parts by their keys.

    Raises:
        BadInputError: ``NestedTooDeep``, ``FieldInvalid`` or ``TextInvalid``.
    """
    for place, one in _parts(value, what):
        if isinstance(one, str) and not is_storable(one):
            raise BadInputError(
                f"{place or 'The value'} has a character that cannot be stored.",
                "Remove the zero byte, or the half of a character.",
                code="TextInvalid",
            )
        for key in one if isinstance(one, Mapping) else ():
            if not isinstance(key, str) or not is_storable(key):
                raise BadInputError(
                    f"{place or 'The value'} has the key {str(key)[:40]!r}, not a string.",
                    "Give each key as a string, in quotes if it looks like a number.",
                    code="FieldInvalid",
                )


def check_depth(value: Any, what: str = "") -> None:
    """Refuse a value that is nested too deeply.

    Raises:
        BadInputError: ``NestedTooDeep``.
    """
    for _ in _parts(value, what):
        pass


def _parts(value: Any, what: str) -> Iterator[tuple[str, Any]]:
    """Yield a value and everything in it, each with its dotted path."""
    waiting = [(what, 0, value)]
    while waiting:
        place, depth, one = waiting.pop()
        if depth > _DEEPEST:
            raise BadInputError(
                f"{'.'.join(place.split('.')[:2])} is nested more than {_DEEPEST} levels deep.",
                "Give a flatter value.",
                code="NestedTooDeep",
            )
        yield place, one
        inner: Iterable[tuple[Any, Any]] = ()
        if isinstance(one, Mapping):
            inner = one.items()
        elif isinstance(one, list | tuple):
            inner = enumerate(one)
        waiting += [(f"{place}.{key!s:.40}".lstrip("."), depth + 1, part) for key, part in inner]
