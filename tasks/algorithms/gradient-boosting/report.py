"""Plots for people, logged to the training's MLflow run."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix

_MOST_NAMED_CLASSES = 30
_MOST_BARS = 25


def importance(importances: Mapping[str, float]) -> Figure:
    """How much worse the validation loss becomes without each column; the highest ones."""
    highest = sorted(importances.items(), key=lambda pair: pair[1])[-_MOST_BARS:]
    figure = Figure(figsize=(8, 1.5 + 0.25 * len(highest)), layout="constrained")
    axes = figure.subplots()
    axes.barh([name for name, _ in highest], [value for _, value in highest])
    axes.set_xlabel("rise of the validation loss with the column's values shuffled")
    return figure


def confusion(true: np.ndarray, predicted: np.ndarray, classes: Sequence[object]) -> Figure:
    """How often each class (row) was taken for each (column)."""
    counts = confusion_matrix(true, predicted, labels=np.asarray(classes, dtype=true.dtype))
    side = 3 + 0.4 * min(len(classes), _MOST_NAMED_CLASSES)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(classes) <= _MOST_NAMED_CLASSES:
        labels = list(map(str, classes))
        axes.set_xticks(range(len(labels)), labels, rotation=90)
        axes.set_yticks(range(len(labels)), labels)
        for (row, column), share in np.ndenumerate(shares):
            colour = "white" if share > 0.5 else "black"
            axes.text(
                column, row, str(counts[row, column]), color=colour, ha="center", va="center"
            )
    return figure


def residuals(true: np.ndarray, predicted: np.ndarray) -> Figure:
    """How far each prediction is from the truth."""
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    axes.scatter(predicted, true - predicted, s=8, alpha=0.5)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true - predicted")
    return figure


def log(figures: Mapping[str, Figure]) -> None:
    """Log ``figures`` under ``plots/``, where there is a run; a failure costs the plots only."""
    run = os.environ.get("MLFLOW_RUN_ID")
    if not run or "MLFLOW_TRACKING_URI" not in os.environ:
        return
    from mlflow import MlflowClient  # noqa: PLC0415 (takes seconds)
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    try:
        client = MlflowClient()
        for name, figure in figures.items():
            client.log_figure(run, figure, f"plots/{name}.png")
    except (MlflowException, OSError) as error:
        print(f"the plots could not be logged to MLflow: {error}", file=sys.stderr, flush=True)
