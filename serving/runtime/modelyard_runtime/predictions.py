"""What a model's outputs say of each row: its class, and the confidence in it."""

from __future__ import annotations

from typing import Any

from modelyard_runtime.frames import Array, Columns
from modelyard_runtime.models.base import PREDICTION, PROBABILITIES

_LONGEST_NAME = 200  # characters of a class


def named(outputs: Columns) -> Columns:
    """Name a model's only output the prediction, whatever the model calls it."""
    return outputs if len(outputs) != 1 else {PREDICTION: next(iter(outputs.values()))}


def classes(outputs: Columns) -> list[Any] | None:
    """The class of each row, for :func:`class_name`; None where what is predicted is no class.

    It is one where the model has probabilities as well, or says true or false. Values that are
    equal have one name: they can be counted before they are named.
    """
    found = outputs.get(PREDICTION)
    if found is None or found.ndim != 1:
        return None
    if found.dtype.kind != "b" and PROBABILITIES not in outputs:
        return None
    # 1 and True, which are equal, may be among objects; NaN does not even equal itself.
    return found.tolist() if found.dtype.kind in "biu" else list(map(str, found.tolist()))


def class_name(value: Any) -> str:
    """The name of a class, in a text that every encoding has."""
    return str(value).encode(errors="backslashreplace").decode()[:_LONGEST_NAME]


def confidences(outputs: Columns) -> Array | None:
    """The probability of each row's likeliest class; None where the model has none.

    It is NaN where one of the row's probabilities is.
    """
    shares = outputs.get(PROBABILITIES)
    if shares is None or shares.dtype.kind not in "iuf" or shares.ndim != 2 or not shares.size:
        return None
    found: Array = shares.max(axis=1)
    return found
