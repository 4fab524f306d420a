"""Arrays of the values of records, each what it would be of its record alone.

What a value is depends on the value, and on what its field has in the whole file: integers are
floats where a fraction or a missing value is among them, as in a data frame of the file. Values
that have no array in common, such as a text among numbers, are in arrays of their own.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from modelyard_runtime.frames import Array, Columns, objects
from modelyard_runtime.records import column

# What a field may be in a file, each a letter.
FLOATS, OBJECTS, MIXED_LISTS = "f", "o", "m"
_WHOLES, _NUMBERS_LIST, _TRUTHS, _ODD = "whole numbers", "numbers", "truths", "odd"  # of lists

_NONE = type(None)
_NUMBERS = frozenset({int, float, _NONE})
_INT64 = np.iinfo(np.int64)


class ValueKinds:
    """The kinds of values that the fields of a file have."""

    def __init__(self) -> None:
        self._kinds: dict[str, set[Any]] = {}

    def add(self, name: str, values: Collection[Any]) -> None:
        """See values of a field."""
        lists = [one for one in values if type(one) is list]
        kinds = {type(one) for one in values} - {list} | _list_kinds(lists)
        self._kinds.setdefault(name, set()).update(kinds)

    def add_records(self, records: Collection[Mapping[str, Any]]) -> None:
        """See the fields of records."""
        fields = (zip(one, map(type, one.values()), strict=False) for one in records)
        for name, kind in set(itertools.chain.from_iterable(fields)):
            if kind is list:
                self.add(name, [one[name] for one in records if type(one.get(name)) is list])
            else:
                self._kinds.setdefault(name, set()).add(kind)

    @property
    def names(self) -> Collection[str]:
        """The names of the fields."""
        return self._kinds.keys()

    @property
    def types(self) -> str:
        """What is to be known of the fields, for :func:`parse_types`; "" if nothing is."""
        found = {name: letters for name, kinds in self._kinds.items() if (letters := _type(kinds))}
        return json.dumps(found) if found else ""


def _type(kinds: set[Any]) -> str:
    is_float = (int in kinds and not kinds.isdisjoint({float, _NONE})) or (
        {_WHOLES, _NUMBERS_LIST} <= kinds
    )
    is_object = _NONE in kinds and kinds.isdisjoint({int, float}) and len(kinds) > 1
    is_mixed = _ODD in kinds or (
        _TRUTHS in kinds and not kinds.isdisjoint({_WHOLES, _NUMBERS_LIST})
    )
    return FLOATS * is_float + OBJECTS * is_object + MIXED_LISTS * is_mixed


def _list_kinds(lists: list[list[Any]]) -> set[str]:
    """The kinds of lists: seen at once where all have numbers of one type, as tensors do."""
    level = lists
    while level and all(level):
        values = list(itertools.chain.from_iterable(level))
        kinds = set(map(type, values))
        if kinds == {float}:
            return {_NUMBERS_LIST}
        if kinds == {int} and _are_int64(values):
            return {_WHOLES}
        if kinds != {list}:
            break
        level = values
    return set(map(_list_kind, lists))


def _list_kind(value: list[Any]) -> str:
    kinds: set[type] = set()
    left = [value]
    while left:
        one = left.pop()
        found = set(map(type, one))
        if list in found:
            left += [inner for inner in one if type(inner) is list]
        elif found == {int} and not _are_int64(one):
            return _ODD
        kinds |= found
    kinds.discard(list)
    if kinds <= _NUMBERS:
        return _WHOLES if kinds == {int} else _NUMBERS_LIST
    if kinds <= _NUMBERS | {bool}:
        return _TRUTHS if kinds == {bool} else _ODD
    return "other"


def _are_int64(values: list[int]) -> bool:
    return bool(_INT64.min <= min(values) and max(values) <= _INT64.max)


def parse_types(types: str | None) -> Mapping[str, str]:
    """The letters of fields by their names; those without are left out."""
    return json.loads(types) if types else {}


def arrays(
    fields: Mapping[str, list[Any] | Array], types: Mapping[str, str], count: int
) -> Iterator[tuple[Sequence[int], Columns]]:
    """Fields of records as arrays, with the positions of the records that have them in common.

    Args:
        fields: The values of each field, or their array.
        types: The letters of fields.
        count: How many records there are.
    """
    found: dict[str, Array] = {}
    forms: dict[str, list[tuple[Any, tuple[int, ...]]]] = {}
    for name, values in fields.items():
        array = values if isinstance(values, np.ndarray) else _array(values, types.get(name, ""))
        if array is None:
            forms[name] = [_form(one, types.get(name, "")) for one in values]
        else:
            found[name] = array
    if not forms:
        yield range(count), found
        return
    groups: dict[Hashable, list[int]] = {}
    for at, form in enumerate(zip(*forms.values(), strict=True)):
        groups.setdefault(form, []).append(at)
    for chosen in groups.values():
        own = dict(found)
        for name, values in fields.items():
            if name in found:
                own[name] = found[name][chosen]
                continue
            dtype, _ = forms[name][chosen[0]]
            some = [values[at] for at in chosen]
            own[name] = objects(some) if dtype.kind == "O" else np.array(some, dtype)
        yield chosen, {name: own[name] for name in fields}


def _array(values: list[Any], letters: str) -> Array | None:
    """Values as one array; None if they have none in common."""
    kinds = set(map(type, values))
    if kinds <= _NUMBERS and OBJECTS not in letters:
        is_whole = kinds == {int} and FLOATS not in letters
        with contextlib.suppress(OverflowError):
            return np.array(values, np.int64 if is_whole else np.float64)
        return None
    if OBJECTS in letters and list not in kinds:
        return objects(values)
    if kinds == {bool}:
        return np.array(values, bool)
    if kinds == {list} and MIXED_LISTS not in letters:
        with contextlib.suppress(ValueError, OverflowError):  # of several lengths, or too large
            found = np.array(values)
            if found.dtype.kind in "biuf":
                is_float = FLOATS in letters and found.dtype.kind in "iu"
                return found.astype(np.float64) if is_float else found
    return None if kinds & {list, bool, int, float, _NONE} else objects(values)


def _form(value: Any, letters: str) -> tuple[Any, tuple[int, ...]]:
    """What values of one array have in common: their dtype, and their shape."""
    if OBJECTS in letters and not isinstance(value, list):
        return np.dtype(object), ()
    alone = np.full(1, np.nan) if value is None else column([value])
    is_float = FLOATS in letters and alone.dtype.kind in "iu"
    return np.dtype(np.float64) if is_float else alone.dtype, alone.shape[1:]
