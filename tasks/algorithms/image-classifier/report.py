"""Plots for people, logged to the training's MLflow run."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

_MOST_NAMED_CLASSES = 30


def curves(history: Sequence[Mapping[str, float]]) -> Figure:
    """Loss and accuracy of every epoch."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    epochs = range(1, len(history) + 1)
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for key in (name, f"val_{name}"):
            axes.plot(epochs, [row[key] for row in history], label=key)
        axes.set_xlabel("epoch")
        axes.legend()
    return figure


def confusion(counts: np.ndarray, classes: Sequence[str]) -> Figure:
    """How often each class (row) was taken for each (column)."""
    from sklearn.metrics import ConfusionMatrixDisplay  # noqa: PLC0415 (takes a second)

    named = len(classes) <= _MOST_NAMED_CLASSES
    side = 3 + 0.4 * min(len(classes), _MOST_NAMED_CLASSES)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    ConfusionMatrixDisplay(counts, display_labels=classes).plot(
        include_values=named, xticks_rotation="vertical", cmap="Blues", colorbar=False, ax=axes
    )
    if not named:
        axes.set(xticks=[], yticks=[])
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
