"""Values as JSON has them, which is all that a catalogue keeps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from infra.errors import BadInputError
from infra.texts import is_storable

_DEEPEST = 50


def check(value: Any, what: str = "") -> None:
    """Refuse what could not be kept: what is too deep, keys that are no texts, texts with NUL.

    Args:
        value: What was given.
        what: What it is, for the error's sentence; its parts are named by their keys if "".

    Raises:
        BadInputError: ``NestedTooDeep``, ``FieldInvalid`` or ``TextInvalid``.
    """
    for place, one in _parts(value, what):
        if isinstance(one, str) and not is_storable(one):
            raise BadInputError(
                f"{place or 'It'} holds what is no text.",
                "Take the zero byte, or half of a character, out of it.",
                code="TextInvalid",
            )
        for key in one if isinstance(one, Mapping) else ():
            if not isinstance(key, str) or not is_storable(key):
                raise BadInputError(
                    f"{place or 'It'} has the key {str(key)[:40]!r}, which is no text.",
                    "Give each key as a text, in quotes where it looks like a number.",
                    code="FieldInvalid",
                )


def check_depth(value: Any, what: str = "") -> None:
    """Refuse a value that is too deep to be looked at.

    Raises:
        BadInputError: ``NestedTooDeep``.
    """
    for _ in _parts(value, what):
        pass


def _parts(value: Any, what: str) -> Iterator[tuple[str, Any]]:
    """A value and everything in it, with their places."""
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
