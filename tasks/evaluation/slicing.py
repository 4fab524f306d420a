"""The values of the field by which an evaluation is sliced."""

from __future__ import annotations

import numpy as np
from modelyard_runtime.frames import Array

from infra.errors import RunFailedError
from registry.flow_kinds import EVALUATE
from tasks.evaluation import class_labels

MOST_SLICES = 20
MISSING = "(missing)"


class SliceNumbers:
    """Numbers the values of a field as they come."""

    def __init__(self, field: str) -> None:
        """Slice by ``field``; "" for no slices."""
        self._field = field
        self._numbers: dict[str, int] = {}

    @property
    def values(self) -> list[str]:
        """The values, as text, by their numbers."""
        return list(self._numbers)

    def numbers(self, values: Array | None, rows: int) -> Array:
        """The number of each row's value; 0 for all without slices.

        Raises:
            RunFailedError: With the code ``SlicesTooMany``.
        """
        if values is None:
            return np.zeros(rows, np.int64)
        texts = class_labels.texts(values)
        for text in texts.tolist():
            named = MISSING if text is None else text
            if named not in self._numbers:
                self._numbers[named] = len(self._numbers)
                self._check()
        found = [self._numbers[MISSING if text is None else text] for text in texts.tolist()]
        return np.array(found, np.int64)

    def _check(self) -> None:
        if len([value for value in self._numbers if value != MISSING]) > MOST_SLICES:
            shown = ", ".join(map(repr, self.values[:5]))
            raise RunFailedError(
                f"The field {self._field!r} has more than {MOST_SLICES} values, such as {shown}.",
                "Slice by a field with fewer values, or write a coarser one into the data.",
                state=EVALUATE.failure,
                code="SlicesTooMany",
            )
