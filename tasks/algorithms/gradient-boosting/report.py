"""Plots for people, logged to the training's MLflow run."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay, PredictionErrorDisplay

_MOST_NAMED_CLASSES = 30
_MOST_BARS = 25


def importance(importances: Mapping[str, float]) -> Figure:
    """How much worse the validation loss becomes without each column; the highest ones."""
    highest = pd.Series(importances).nlargest(_MOST_BARS).sort_values()
    figure = Figure(figsize=(8, 1.5 + 0.25 * len(highest)), layout="constrained")
    axes = highest.plot.barh(ax=figure.subplots())
    axes.set_xlabel("rise of the validation loss with the column's values shuffled")
    return figure


def confusion(true: np.ndarray, predicted: np.ndarray, classes: np.ndarray) -> Figure:
    """How often each class (row) was taken for each (column)."""
    named = len(classes) <= _MOST_NAMED_CLASSES
    side = 3 + 0.4 * min(len(classes), _MOST_NAMED_CLASSES)
    figure = Figure(figsize=(side, side), layout="constrained")
    shown = ConfusionMatrixDisplay.from_predictions(
        true, predicted, labels=classes, include_values=named, xticks_rotation="vertical",
        cmap="Blues", colorbar=False, ax=figure.subplots(),
    )  # fmt: skip
    if not named:
        shown.ax_.set(xticks=[], yticks=[])
    return figure


def residuals(true: np.ndarray, predicted: np.ndarray) -> Figure:
    """How far each prediction is from the truth."""
    figure = Figure(figsize=(6, 5), layout="constrained")
    PredictionErrorDisplay.from_predictions(
        true, predicted, subsample=None, ax=figure.subplots(),
        scatter_kwargs={"s": 8, "alpha": 0.5},
    )  # fmt: skip
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
