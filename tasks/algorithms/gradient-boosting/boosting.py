"""The model: what encodes the columns, the boosted trees, and how good they are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from settings import Settings
from sklearn import metrics
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.preprocessing import OrdinalEncoder
from table import CLASSIFICATION, Table

# The trees take 255 values of a column apart, and a missing one; the rarer categories share one.
_MOST_CATEGORIES = 254

_REGRESSION_LOSSES: dict[str, Callable[..., float]] = {
    "squared_error": metrics.mean_squared_error,
    "absolute_error": metrics.mean_absolute_error,
    "poisson": metrics.mean_poisson_deviance,
}


def encoder(table: Table) -> ColumnTransformer:
    """What turns raw columns into numbers: categories first, then the others as they are.

    It is told the columns by number: rows without names are then taken in the table's order,
    and a frame by its names.
    """
    columns = list(table.features.columns)
    categories = [columns.index(name) for name in table.categories]
    numbers = [i for i in range(len(columns)) if i not in categories]
    ordinal = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=np.nan,
        encoded_missing_value=np.nan, max_categories=_MOST_CATEGORIES,
    )  # fmt: skip
    return ColumnTransformer(
        [("categories", ordinal, categories), ("numbers", "passthrough", numbers)]
    )


def estimator(settings: Settings, table: Table) -> Any:
    """The trees, none grown yet. They are grown some at a time, and stopped by us."""
    common = {
        "learning_rate": settings.learning_rate,
        "max_leaf_nodes": settings.max_leaf_nodes,
        "max_depth": settings.max_depth or None,
        "min_samples_leaf": settings.min_samples_leaf,
        "l2_regularization": settings.l2_regularization,
        "max_features": settings.max_features,
        "categorical_features": list(range(len(table.categories))),
        "random_state": settings.seed,
        "warm_start": True,
        "early_stopping": False,
    }
    if table.task == CLASSIFICATION:
        weight = None if settings.class_weight == "none" else settings.class_weight
        return HistGradientBoostingClassifier(class_weight=weight, **common)
    return HistGradientBoostingRegressor(loss=settings.loss, **common)


def loss(model: Any, features: Any, target: np.ndarray, *, settings: Settings) -> float:
    """What training makes small: log loss, or the loss that a regression was asked for."""
    if hasattr(model, "classes_"):
        probabilities = model.predict_proba(features)
        return float(metrics.log_loss(target, probabilities, labels=model.classes_))
    return float(_REGRESSION_LOSSES[settings.loss](target, model.predict(features)))


def scores(model: Any, features: Any, target: np.ndarray) -> dict[str, float]:
    """Accuracy and F1 of a classification; RMSE, MAE and R2 of a regression."""
    predicted = model.predict(features)
    found: dict[str, Callable[..., float]]
    if hasattr(model, "classes_"):
        macro = functools.partial(metrics.f1_score, average="macro", zero_division=0)
        found = {"accuracy": metrics.accuracy_score, "f1": macro}
    else:
        found = {
            "rmse": metrics.root_mean_squared_error,
            "mae": metrics.mean_absolute_error,
            "r2": metrics.r2_score,
        }
    return {name: float(score(target, predicted)) for name, score in found.items()}
