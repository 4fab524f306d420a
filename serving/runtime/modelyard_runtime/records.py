"""Records, as JSON has them, as columns of arrays."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from modelyard_runtime.frames import Array, Columns, objects
from modelyard_runtime.models.base import INPUT

_NUMBERS = frozenset({int, float, type(None)})


def alike(records: Sequence[Any]) -> Iterator[range]:
    """Runs of records of one :func:`form`."""
    if not records:
        return
    forms = list(map(form, records))
    if forms.count(forms[0]) == len(forms):
        yield range(len(records))
        return
    at = 0
    for _, group in groupby(forms):
        end = at + sum(1 for _ in group)
        yield range(at, end)
        at = end


def form(record: Any) -> Hashable:
    """The form of a record: the names of its fields, or the length of a list.

    What a record predicts must not depend on its neighbours, so only records of one form share
    arrays.
    """
    if isinstance(record, dict):
        return tuple(record)
    return len(record) if isinstance(record, list) else str(type(record))


def columns(records: Sequence[Any]) -> Columns:
    """Records of one form as columns: one for each field, or the one ``input``."""
    if not isinstance(records[0], dict):
        return {INPUT: column(list(records))}
    return {name: column([record[name] for record in records]) for name in records[0]}


def column(values: list[Any]) -> Array:
    """Values as an array: of numbers where they have one shape, else of objects.

    A missing number (null) is NaN, also in lists; integers beyond 64 bits are floats.
    """
    kinds = set(map(type, values))
    if kinds == {bool}:
        return np.array(values, dtype=bool)
    if kinds <= _NUMBERS and kinds != {type(None)}:
        return _numbers(values, whole=kinds == {int})
    if kinds == {list}:
        with contextlib.suppress(ValueError, OverflowError):  # of several lengths, or too large
            found = np.array(values)
            if found.dtype.kind in "biuf":
                return found
            kinds = set(map(type, found.ravel().tolist()))
            if kinds <= _NUMBERS and kinds != {type(None)}:
                return found.astype(np.float64)
    return objects(values)


def _numbers(values: list[Any], *, whole: bool) -> Array:
    if whole:
        with contextlib.suppress(OverflowError):
            return np.array(values, dtype=np.int64)
    with contextlib.suppress(OverflowError):
        return np.array(values, dtype=np.float64)
    return objects(values)  # an integer beyond what a float holds
