"""Areas and points of ROC and precision-recall curves, of scores in descending order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from modelyard_runtime.frames import Array

# A curve keeps the points at which its recall, or its false positive rate, has gone on by as much
# of 1, so at most twice as many points.
_STEPS = 500


@dataclass(frozen=True)
class RankingCurve:
    """How well scores rank the rows of a class before others.

    Attributes:
        positives: Rows of the class.
        negatives: Other rows.
        roc_auc: Area below the ROC curve; None without rows of both kinds.
        average_precision: Area below the precision-recall curve, as steps: the mean of the
            precision at each row of the class (scikit-learn's ``average_precision_score``); None
            without rows of the class.
        thresholds: Thresholds, descending, at which the class is predicted from the score on.
        hits: Rows of the class with at least that score.
        false_alarms: Other rows with at least that score.
    """

    positives: int
    negatives: int
    roc_auc: float | None
    average_precision: float | None
    thresholds: Array
    hits: Array
    false_alarms: Array

    def as_json(self) -> dict[str, Any]:
        """The curve as plain data, from which both curves and all rates follow."""
        return {
            "positives": self.positives,
            "negatives": self.negatives,
            "thresholds": self.thresholds.tolist(),
            "true_positives": self.hits.tolist(),
            "false_positives": self.false_alarms.tolist(),
        }


class CurveBuilder:
    """Makes a curve of scores that come in blocks, in descending order, in constant memory."""

    def __init__(self, positives: int, negatives: int) -> None:
        """Make the curve of so many rows of the class, and so many others."""
        self._positives = positives
        self._negatives = negatives
        self._open: float | None = None  # a score that may go on in the next block
        self._hits = self._false_alarms = 0  # with the open score
        self._last = (0, 0)  # without it
        self._area = 0  # twice the area, in pairs of rows
        self._precision = 0.0
        self._key = 0
        self._points: list[tuple[Array, Array, Array]] = []

    def add(self, scores: Array, is_positive: Array) -> None:
        """Add a block of rows."""
        if not len(scores):
            return
        if self._open != scores[0]:
            self._close_open()
        hits = self._hits + np.cumsum(is_positive, dtype=np.int64)
        false_alarms = self._hits + self._false_alarms + np.arange(1, len(scores) + 1) - hits
        ends = np.flatnonzero(scores[1:] != scores[:-1])
        self._close(scores[ends], hits[ends], false_alarms[ends])
        self._open = float(scores[-1])
        self._hits, self._false_alarms = int(hits[-1]), int(false_alarms[-1])

    def _close_open(self) -> None:
        """Have the point of the open score, behind which no row has the same."""
        if self._open is not None:
            point = self._open, self._hits, self._false_alarms
            self._open = None
            self._close(*(np.array([value]) for value in point))

    def _close(self, scores: Array, hits: Array, false_alarms: Array) -> None:
        """Have points behind which no row has the same score; counts are of all rows before."""
        if not len(scores):
            return
        before = np.concatenate([[self._last[0]], hits[:-1]])
        new_alarms = np.diff(false_alarms, prepend=self._last[1])
        self._area += int(np.sum(new_alarms * (hits + before)))
        gained = (hits - before) * (hits / (hits + false_alarms))
        self._precision += float(np.sum(gained))
        self._last = int(hits[-1]), int(false_alarms[-1])
        keys = hits * _STEPS // max(1, self._positives)
        keys += false_alarms * _STEPS // max(1, self._negatives)
        kept = np.flatnonzero(np.diff(keys, prepend=self._key))
        self._key = int(keys[-1])
        if len(kept):
            self._points.append((scores[kept], hits[kept], false_alarms[kept]))

    def curve(self) -> RankingCurve:
        """The curve of all rows."""
        self._close_open()
        pairs = self._positives * self._negatives
        kept = [np.concatenate(part) for part in zip(*self._points, strict=True)]
        thresholds, hits, false_alarms = kept or (np.empty(0), *(2 * [np.empty(0, np.int64)]))
        return RankingCurve(
            self._positives,
            self._negatives,
            self._area / (2 * pairs) if pairs else None,
            self._precision / self._positives if self._positives else None,
            thresholds,
            hits,
            false_alarms,
        )


def curves(
    blocks: Iterable[tuple[Array, Array]], positives: Array, negatives: Array
) -> list[RankingCurve]:
    """The curves of each slice of the rows, and of all of them, which is the last one.

    Args:
        blocks: Scores in descending order and their codes, as of
            :meth:`~tasks.evaluation.score_sorting.ScoreSorter.merged`.
        positives: Rows of the class in each slice.
        negatives: Other rows in each slice.
    """
    totals = zip([*positives, positives.sum()], [*negatives, negatives.sum()], strict=True)
    builders = [CurveBuilder(int(of_class), int(others)) for of_class, others in totals]
    for scores, codes in blocks:
        is_positive = (codes & 1).astype(bool)
        builders[-1].add(scores, is_positive)
        if len(positives) == 1:
            continue
        slices = codes >> 1
        for number in np.unique(slices).tolist():
            own = slices == number
            builders[number].add(scores[own], is_positive[own])
    if len(positives) == 1:
        return [builders[-1].curve()] * 2
    return [builder.curve() for builder in builders]
