"""Confusion matrices, and the figures that follow from their counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from modelyard_runtime.frames import Array

from tasks.evaluation.figures import Figures, ratio


def count(targets: Array, predictions: Array, classes: int) -> Array:
    """Rows by class and by predicted class; the last column counts predictions of no class.

    Args:
        targets: Numbers of classes.
        predictions: Numbers of classes; negative ones are of no class.
        classes: How many classes there are.

    Returns:
        Counts of the shape (classes, classes + 1), int64.
    """
    predicted = np.where(predictions < 0, classes, predictions)
    flat = np.bincount(targets * (classes + 1) + predicted, minlength=classes * (classes + 1))
    return flat.reshape(classes, classes + 1)


def class_figures(matrix: Array, at: int) -> dict[str, float | None]:
    """Precision, recall and F1 of a class against the rest.

    Precision is undefined if the class was never predicted, recall if it never occurs, and F1 if
    neither happens.
    """
    hits = int(matrix[at, at])
    predicted, support = int(matrix[:, at].sum()), int(matrix[at].sum())
    return {
        "precision": ratio(hits, predicted),
        "recall": ratio(hits, support),
        "f1": ratio(2 * hits, predicted + support),
    }


_WHY = {
    "precision": "The class was never predicted.",
    "recall": "No row is of the class.",
    "f1": "The class neither occurs nor was predicted.",
}


def add_figures(figures: Figures, matrix: Array, names: Sequence[str]) -> None:
    """Add accuracy, and precision, recall and F1: macro, ``_micro``, ``_weighted``, ``/CLASS``.

    Means over classes leave out the classes for which a figure is undefined, and are weighted by
    the rows of each class. A class that occurs and was never predicted has no precision of its own
    and counts 0 in the means, as in scikit-learn, so that nothing is won by leaving one out.
    """
    total = int(matrix.sum())
    hits = int(np.trace(matrix))
    predicted = int(matrix[:, :-1].sum())
    figures.put("accuracy", ratio(hits, total), "There are no rows.")
    found = {name: class_figures(matrix, at) for at, name in enumerate(names)}
    support = matrix.sum(axis=1).tolist()
    for metric, reason in _WHY.items():
        parts = {name: one[metric] for name, one in found.items()}
        never = [
            name
            for (name, value), rows in zip(parts.items(), support, strict=True)
            if metric == "precision" and value is None and rows
        ]
        figures.put_mean(metric, parts, never=never)
        figures.put_mean(f"{metric}_weighted", parts, support, never)
        for name, value in parts.items():
            figures.put(f"{metric}/{name}", value, reason)
    figures.put("precision_micro", ratio(hits, predicted), "No class was ever predicted.")
    figures.put("recall_micro", ratio(hits, total), "There are no rows.")
    figures.put("f1_micro", ratio(2 * hits, predicted + total), "There are no rows.")
