"""What a model answered for records: classes with their probabilities, or numbers."""

from __future__ import annotations

import collections
import itertools
import math
from typing import Any

import numpy as np
from modelyard_runtime.frames import Array

from infra.errors import RunFailedError
from registry.flow_kinds import EVALUATE
from tasks.evaluation.class_labels import MISSING, ClassLabels

# So many records with another number of probabilities than classes, and none with the right one,
# are those of a model with other classes.
_MOST_UNFIT = 1000


class ClassReader:
    """Reads predicted classes, and probabilities."""

    def __init__(self, labels: ClassLabels) -> None:
        """Read the classes of ``labels``."""
        self._labels = labels
        self._fitting = 0
        self._unfit: collections.Counter[int] = collections.Counter()

    def read(self, predictions: Array, probabilities: Array | None) -> tuple[Array, Array | None]:
        """Predicted classes and probabilities of records.

        Where there is no prediction, the most probable class counts as predicted.

        Args:
            predictions: The model's answers.
            probabilities: Those of the classes; None if the model has none, or its predictions
                are the probabilities.

        Returns:
            Numbers of classes, ``MISSING`` or ``UNKNOWN``, and probabilities of the shape (rows,
            classes), with NaN in the whole row where one is missing.

        Raises:
            RunFailedError: With the code ``ClassNamesMismatch``.
        """
        found = np.full(len(predictions), MISSING)
        if probabilities is None and self._are_probabilities(predictions):
            probabilities = predictions
        else:
            found = self._labels.indices(flat(predictions))
        if probabilities is None:
            return found, None
        scores = self._probabilities(probabilities)
        chosen = (found == MISSING) & is_whole(scores)
        found[chosen] = scores[chosen].argmax(axis=1)
        return found, scores

    def _are_probabilities(self, predictions: Array) -> bool:
        """Whether predictions are a probability for each class, apart from missing ones."""
        if predictions.dtype.kind in "biuf":
            return predictions.ndim == 2 and predictions.shape[1] == len(self._labels)
        there = [one for one in predictions.tolist() if one is not None]
        lengths = {len(one) if isinstance(one, list) else 0 for one in there}
        return len(self._labels) in lengths and 0 not in lengths

    def _probabilities(self, found: Array) -> Array:
        classes = len(self._labels)
        if found.dtype.kind in "biuf":
            scores = found.astype(np.float64).reshape(len(found), -1)
            widths = np.full(len(scores), scores.shape[1])
        else:
            rows = [_numbers(one) for one in found.tolist()]
            widths = np.array([len(row) for row in rows], np.int64)
            scores = np.full((len(rows), classes), np.nan)
            for at, row in enumerate(rows):
                scores[at, : len(row)] = row[:classes]
        fits = widths == classes
        if classes == 2 and (alone := widths == 1).any():  # of the second class
            fits |= alone
            own = np.stack([1 - scores[:, 0], scores[:, 0]], axis=1)
            scores = np.where(alone[:, None], own, scores)
        self._count(widths, fits)
        if scores.shape[1] != classes:
            return np.full((len(scores), classes), np.nan)
        scores[~fits | ~is_whole(scores)] = np.nan
        return scores

    def _count(self, widths: Array, fits: Array) -> None:
        self._fitting += int(np.count_nonzero(fits))
        unfit = widths[~fits & (widths > 0)]
        self._unfit.update(unfit.tolist())
        if self._unfit.total() >= _MOST_UNFIT:
            self.check()

    def check(self) -> None:
        """Refuse a model that gives another number of probabilities, for each record.

        Raises:
            RunFailedError: With the code ``ClassNamesMismatch``.
        """
        if self._fitting or not self._unfit:
            return
        raise RunFailedError(
            f"The model gives {self._unfit.most_common(1)[0][0]} probabilities, and class_names "
            f"has {len(self._labels)} names.",
            "Name every class of the model, in the order of its probabilities, and retry, which "
            "predicts nothing again: modelyard runs update RUN -p 'class_names=[...]', and "
            "modelyard runs retry RUN.",
            state=EVALUATE.failure,
            code="ClassNamesMismatch",
        )


def is_whole(scores: Array) -> Array:
    """Which rows of probabilities have a finite number for each class."""
    return np.asarray(np.isfinite(scores).all(axis=1))


def flat(values: Array) -> Array:
    """Values of records; a list of one value is that value."""
    if values.ndim == 2 and values.shape[1] == 1:
        return values[:, 0]
    if values.dtype.kind in "biuf" and values.ndim == 1:
        return values
    found = np.empty(len(values), object)
    found[:] = [one[0] if isinstance(one, list) and len(one) == 1 else one
                for one in values.tolist()]  # fmt: skip
    return found


def numbers(values: Array) -> Array:
    """Values as float64: NaN for what is not a number, infinity for what no float holds."""
    if values.dtype.kind in "biuf" and values.ndim == 1:
        return values.astype(np.float64)
    return np.array([_number(one) for one in values.tolist()], np.float64)


def _number(value: Any) -> float:
    if isinstance(value, str) and "_" in value:  # digits in groups, for Python alone
        return math.nan
    try:
        return float(value)
    except OverflowError:  # an integer
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError):
        return math.nan


def _numbers(value: Any) -> list[float]:
    """Probabilities of a record, also of nested lists; none if it has none."""
    values = [] if value is None else [value]
    while any(isinstance(one, list) for one in values):
        nested = (one if isinstance(one, list) else [one] for one in values)
        values = list(itertools.chain.from_iterable(nested))
    return [_number(one) for one in values]
