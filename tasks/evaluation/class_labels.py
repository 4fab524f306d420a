"""The classes of an evaluation, and which class a value of the data means."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from modelyard_runtime.frames import Array

MISSING, UNKNOWN = -2, -1
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_LONGEST_NUMBER = 4000  # digits; Python refuses integers of more than 4300


def label_text(value: Any) -> str | None:
    """A value as the text of a label; None for a missing one.

    Formats differ in how they write a label: ``1``, ``1.0`` and ``"1"`` are the same, and so are
    ``True`` and ``"true"``. Any value has a text, and it is valid UTF-8: what JSON can write and
    nothing else can, such as lone surrogates, is escaped.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return _number_text(value)
    if not isinstance(value, str):
        return _nested_text(value)
    text = value.strip()
    if len(text) <= _LONGEST_NUMBER and _NUMBER.fullmatch(text):
        return _number_text(int(text) if text.lstrip("+-").isdigit() else float(text), text)
    text = escaped(text)
    return text.lower() if text.lower() in {"true", "false"} else text or None


def _number_text(value: float, written: str = "") -> str:
    """A number as text; as it was ``written`` if it is beyond what a float holds."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return written or str(value)
        if value == int(value):
            value = int(value)
    return str(value)


def _nested_text(value: Any) -> str:
    try:
        return json.dumps(value, default=str)
    except (ValueError, RecursionError):  # integers of too many digits, or nested too deeply
        return f"a {type(value).__name__}"


def escaped(text: str) -> str:
    """A text with lone surrogates, which UTF-8 does not have, as their escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


class ClassLabels:
    """The classes of a model: ``names[i]`` is the class of its probability column ``i``.

    A value means the class whose name it is, as text. Where no name is a number, an integer means
    the class of that number, counted from 0, as models that were trained on numbers predict it.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """Know classes by their names, of which no two are the same text."""
        self.names = tuple(names)
        texts = [label_text(name) or "" for name in names]
        self._index = {text: at for at, text in enumerate(texts)}
        if not any(_NUMBER.fullmatch(text) for text in texts):
            self._index = {str(at): at for at in range(len(texts))} | self._index

    def __len__(self) -> int:
        return len(self.names)

    def index(self, value: Any) -> int:
        """The number of the class that a value means; ``MISSING`` or ``UNKNOWN``."""
        text = label_text(value)
        if text is None:  # an empty text is a class where one is called so
            return self._index.get("", MISSING) if isinstance(value, str) else MISSING
        return self._index.get(text, UNKNOWN)

    def indices(self, values: Array) -> Array:
        """The same of an array of values, numbers or objects, as int64."""
        return _mapped(values, self.index, np.int64)


def texts(values: Array) -> Array:
    """The labels of an array of values as text; None for a missing one."""
    return _mapped(values, label_text, object)


def _mapped(values: Array, call: Any, dtype: Any) -> Array:
    """``call`` of each value, called once for equal ones."""
    if values.dtype.kind in "biuf" and values.ndim == 1:
        unique, inverse = np.unique(values, return_inverse=True)
        found = np.empty(len(unique), dtype)
        found[:] = [call(value) for value in unique.tolist()]
        return found[inverse.reshape(-1)]
    listed = values.tolist()
    # Of texts alone: 1, 1.0 and True are one key.
    known = {one: call(one) for one in {one for one in listed if type(one) is str}}
    found = np.empty(len(listed), dtype)
    found[:] = [known[one] if type(one) is str else call(one) for one in listed]
    return found
