"""Figures of predicted classes and probabilities, added up in batches."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from modelyard_runtime.frames import Array

from tasks.evaluation import confusion, ranking_curves
from tasks.evaluation.figures import CheckOver, Figures
from tasks.evaluation.ranking_curves import RankingCurve
from tasks.evaluation.score_sorting import ScoreSorter

# Probabilities of a row are those of a distribution if their sum is 1, give or take this.
SUM_TOLERANCE = 1e-3
RANKING = ("roc_auc", "pr_auc")
_NO_SCORES = "The model has no probabilities."


@dataclass(frozen=True)
class ClassificationResult:
    """What is known of the rows of one slice, or of all.

    Attributes:
        figures: The metrics.
        matrix: Rows by class and predicted class; the last column is of no class.
        curves: The curve of each class; none without probabilities.
        micro: The curve of all classes' scores together; None without probabilities.
    """

    figures: Figures
    matrix: Array
    curves: list[RankingCurve]
    micro: RankingCurve | None

    def as_json(self, names: Sequence[str]) -> dict[str, Any]:
        """The figures and the matrix as plain data."""
        return {
            **self.figures.as_json(),
            "confusion_matrix": {"classes": list(names), "counts": self.matrix.tolist()},
        }


class ClassificationSums:
    """Counts of rows by slice, and their sorted scores, from which all figures follow."""

    def __init__(
        self,
        names: Sequence[str],
        slices: int,
        folder: Path,
        check_over: CheckOver,
        rows: int = 0,
    ) -> None:
        """Know the classes' names, and the largest number of slices.

        Args:
            names: The classes' names.
            slices: The largest number of slices.
            folder: Where scores are sorted.
            check_over: Called often; raises to end it.
            rows: How many rows are expected, for which the folder's disk must have room.
        """
        self._names = tuple(names)
        classes = len(self._names)
        self._matrices = np.zeros((slices, classes, classes + 1), np.int64)
        self._scored = np.zeros((slices, classes), np.int64)
        self._unscored = np.zeros(slices, np.int64)
        self._off = np.zeros(slices, np.int64)
        self._losses = np.zeros(slices)
        self._sorter = ScoreSorter(classes, folder, check_over, rows)
        self._has_scores = False

    def __enter__(self) -> ClassificationSums:
        self._closing = contextlib.ExitStack()
        self._closing.enter_context(self._sorter)
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    @property
    def has_scores(self) -> bool:
        """Whether a row has had probabilities."""
        return self._has_scores

    def add(
        self, targets: Array, predictions: Array, probabilities: Array | None, slices: Array
    ) -> None:
        """Add rows.

        Args:
            targets: The number of each row's class.
            predictions: The number of its predicted class; negative if it is of no class.
            probabilities: Of the shape (rows, classes), with NaN where one is missing; None
                where the model has none.
            slices: The number of each row's slice.
        """
        for number in np.unique(slices).tolist():
            own = slices == number
            classes = len(self._names)
            self._matrices[number] += confusion.count(targets[own], predictions[own], classes)
        if probabilities is None:
            np.add.at(self._unscored, slices, 1)
            return
        self._has_scores = True
        is_scored = np.isfinite(probabilities).all(axis=1)
        np.add.at(self._unscored, slices[~is_scored], 1)
        targets, slices = targets[is_scored], slices[is_scored]
        probabilities = probabilities[is_scored].astype(np.float64, copy=False)
        self._add_scores(targets, probabilities, slices)

    def _add_scores(self, targets: Array, probabilities: Array, slices: Array) -> None:
        np.add.at(self._scored, (slices, targets), 1)
        np.add.at(self._off, slices[are_off(probabilities)], 1)
        np.add.at(self._losses, slices, row_losses(targets, probabilities))
        self._sorter.add(probabilities, targets, slices)

    def results(self) -> list[ClassificationResult]:
        """The results of each slice, and of all rows, which is the last one."""
        classes = range(len(self._names))
        curves: list[list[RankingCurve]] = [[] for _ in range(len(self._matrices) + 1)]
        micro: list[RankingCurve | None] = [None] * len(curves)
        if self._has_scores:
            rows = self._scored.sum(axis=1)
            for number in classes:
                own = self._scored[:, number]
                made = ranking_curves.curves(self._sorter.merged([number]), own, rows - own)
                for found, curve in zip(curves, made, strict=True):
                    found.append(curve)
            merged = self._sorter.merged(classes)
            micro = [*ranking_curves.curves(merged, rows, rows * (len(classes) - 1))]
        return [
            self._result(at, found, pooled)
            for at, (found, pooled) in enumerate(zip(curves, micro, strict=True))
        ]

    def _result(
        self, at: int, curves: list[RankingCurve], micro: RankingCurve | None
    ) -> ClassificationResult:
        """The result of a slice; the number behind the last one is of all rows."""
        chosen = slice(at, at + 1) if at < len(self._matrices) else slice(None)
        matrix = self._matrices[chosen].sum(axis=0)
        figures = Figures()
        confusion.add_figures(figures, matrix, self._names)
        unscored = int(self._unscored[chosen].sum())
        reason = ""
        if not self._has_scores:
            reason = _NO_SCORES
        elif unscored:
            reason = f"{unscored} rows have no number as the probability of each class."
        elif not matrix.sum():
            reason = "There are no rows."
        self._add_loss(figures, chosen, reason)
        self._add_areas(figures, chosen, curves, micro, reason)
        return ClassificationResult(figures, matrix, curves, micro)

    def _add_loss(self, figures: Figures, chosen: slice, reason: str) -> None:
        off = int(self._off[chosen].sum())
        if off and not reason:
            reason = f"The probabilities of {off} rows are off from the sum 1."
        rows = int(self._scored[chosen].sum())
        loss = None if reason else float(self._losses[chosen].sum()) / rows
        figures.put("log_loss", loss, reason)

    def _add_areas(
        self,
        figures: Figures,
        chosen: slice,
        curves: list[RankingCurve],
        micro: RankingCurve | None,
        reason: str,
    ) -> None:
        """Areas below the curves: macro, ``_micro``, ``_weighted``, ``/CLASS``."""
        support = self._scored[chosen].sum(axis=0).tolist()
        for metric in RANKING:
            if reason or micro is None:
                names = [metric, f"{metric}_weighted", f"{metric}_micro"]
                figures.undefine([*names, *(f"{metric}/{name}" for name in self._names)], reason)
                continue
            areas = dict(zip(self._names, (_area(metric, one) for one in curves), strict=True))
            figures.put_mean(metric, areas)
            figures.put_mean(f"{metric}_weighted", areas, support)
            figures.put(f"{metric}_micro", _area(metric, micro), "There is one class alone.")
            for (name, value), curve in zip(areas.items(), curves, strict=True):
                none = "No row is of the class."
                why = "Every row is of the class." if curve.positives else none
                figures.put(f"{metric}/{name}", value, why)


def _area(metric: str, curve: RankingCurve) -> float | None:
    return curve.roc_auc if metric == "roc_auc" else curve.average_precision


def are_off(probabilities: Array) -> Array:
    """Which rows have probabilities that are not those of a distribution."""
    with np.errstate(over="ignore", invalid="ignore"):
        found: Array = np.abs(probabilities.sum(axis=1) - 1) > SUM_TOLERANCE
        return found | (probabilities < -SUM_TOLERANCE).any(axis=1)


def row_losses(targets: Array, probabilities: Array) -> Array:
    """Each row's log loss: of the probability of its class, kept off 0 and 1 by an epsilon."""
    epsilon = np.finfo(np.float64).eps
    own = probabilities[np.arange(len(targets)), targets]
    found: Array = -np.log(np.clip(own, epsilon, 1 - epsilon))
    return found
