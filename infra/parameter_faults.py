"""Messages about invalid parameters: the field, the expected shape, and what was given.

Of values, numbers and booleans are shown, and words where one of a few words is expected. Other
text never is: it may be a misplaced secret.
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

# Names of JSON's types, one and several; a truth value is an int to Python.
_TYPE_NAMES: tuple[tuple[type, str, str], ...] = (
    (bool, "a boolean", "booleans"), (int, "a whole number", "whole numbers"),
    (float, "a number", "numbers"), (str, "a string", "strings"), (list, "a list", "lists"),
    (dict, "a mapping", "mappings"), (type(None), "null", "nulls"),
)  # fmt: skip

_WORD = re.compile(r"[A-Za-z_-]{1,30}")
_LONGEST_NUMBER = 30
_NO_PART = object()


def describe_invalid(model: type[BaseModel], error: ValidationError) -> str:
    """Describe the invalid fields of a model."""
    faults: dict[str, str] = {}
    for fault in error.errors():
        place, shape = _locate(model, fault)
        faults.setdefault(place, _describe(fault, shape))  # each type of a union has a fault
    # Of the types of a union, the one that fits best has its faults further inside.
    told = {
        place: text
        for place, text in faults.items()
        if not any(other.startswith(f"{place}.") for other in faults)
    }
    listed = "; ".join(f"`{place}`: {text}" for place, text in told.items())
    return f"Invalid parameter{'s' if len(told) > 1 else ''} {listed}"


def _locate(model: type[BaseModel], fault: ErrorDetails) -> tuple[str, Any]:
    """The place of a fault as users write it, and the type of what is expected there."""
    place: list[str] = []
    shape: Any = model
    for part in fault["loc"]:
        inner = _inside(shape, part)
        if inner is not _NO_PART:  # else it is not of the value, but one of a union's types
            place.append(str(part))
            shape = inner
    if fault["type"] == "extra_forbidden":
        place.append(str(fault["loc"][-1]))
    return ".".join(place) or ".".join(map(str, fault["loc"])), shape


def _inside(shape: Any, part: int | str) -> Any:
    """The type of a field or an item, or ``_NO_PART``."""
    for one in _alternatives(shape):
        origin, inner = get_origin(one) or one, get_args(one)
        if isinstance(origin, type) and issubclass(origin, BaseModel):
            if found := origin.model_fields.get(str(part)):
                return found.annotation
        elif origin is list and isinstance(part, int):
            return inner[0] if inner else Any
        elif origin is dict:
            return inner[1] if inner else Any
    return _NO_PART


def _alternatives(shape: Any) -> list[Any]:
    """The types of a union, or the type itself; without annotations, and without null."""
    origin = get_origin(shape)
    if origin is Annotated:
        return _alternatives(get_args(shape)[0])
    if origin in {Union, types.UnionType}:
        return [found for one in get_args(shape) for found in _alternatives(one)]
    return [] if shape is type(None) else [shape]


def _describe(fault: ErrorDetails, shape: Any) -> str:
    kind, given = fault["type"], fault["input"]
    if kind == "missing":
        return "it is missing"
    if kind == "extra_forbidden":
        return "unknown field"
    expected = _expected(shape)
    if kind.endswith(("_type", "_parsing")) and expected:
        return f"expected {expected}, got {describe_value(given)}"
    found = re.fullmatch(r"Input should be (.*)", fault["msg"])
    if not found:
        return fault["msg"]
    is_word = kind == "literal_error" and isinstance(given, str) and _WORD.fullmatch(given)
    return f"must be {found[1]}, not {repr(given) if is_word else describe_value(given)}"


def _expected(shape: Any) -> str:
    """A type in words; "" if it has none."""
    words = [_name(one) for one in _alternatives(shape)]
    if float in _alternatives(shape) and int in _alternatives(shape):
        words.remove("a whole number")
    return _joined(dict.fromkeys(words)) if all(words) else ""


def _name(shape: Any) -> str:
    origin, inner = get_origin(shape) or shape, get_args(shape)
    if origin is Literal:
        return _joined(map(str, inner))
    if isinstance(origin, type) and issubclass(origin, BaseModel):
        return f"{{{', '.join(origin.model_fields)}}}"
    if origin is list and inner:
        items = _alternatives(inner[0])
        several = {kind: plural for kind, _, plural in _TYPE_NAMES}
        item = several.get(items[0]) or _name(items[0]) if len(items) == 1 else ""
        return f"a list of {item}" if item else "a list"
    return next((name for kind, name, _ in _TYPE_NAMES if kind is origin), "")


def _joined(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def describe_value(value: Any) -> str:
    """A value for a message: a number or a boolean as it is, of anything else the type."""
    if isinstance(value, bool | int | float):
        return json.dumps(value)[:_LONGEST_NUMBER]
    if isinstance(value, Mapping):
        return "a mapping"
    return next((name for kind, name, _ in _TYPE_NAMES if isinstance(value, kind)), "another type")
