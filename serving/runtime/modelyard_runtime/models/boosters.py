"""Boosters: models that XGBoost, LightGBM and CatBoost have saved themselves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from modelyard_runtime.frames import Array, Columns
from modelyard_runtime.models.base import (
    INPUT,
    PREDICTION,
    PROBABILITIES,
    Model,
    features,
    matrix,
    numbers,
    outputs,
)


class XgboostBooster(Model):
    """A booster of XGBoost; of a classifier with its probabilities."""

    def __init__(self, booster: Any) -> None:
        import xgboost  # noqa: PLC0415 (only models of its kind have it)

        self._xgboost = xgboost
        self._booster = booster
        learner = json.loads(booster.save_config())["learner"]
        self._objective = str(learner["objective"]["name"])
        self._names = list(booster.feature_names or ())

    @property
    def platform(self) -> str:
        """The library."""
        return "xgboost"

    @property
    def inputs(self) -> Sequence[tuple[str, str, tuple[int, ...]]]:
        """A tensor for each feature that has a name, else one of all."""
        return _features(self._names, self._booster.num_features())

    def infer(self, inputs: Columns) -> Columns:
        """The booster's prediction, by its objective: a value, or a class and probabilities."""
        data = numbers(matrix(inputs, self._names, self._booster.num_features()))
        names = self._names or None
        found = self._booster.predict(self._xgboost.DMatrix(data, feature_names=names))
        is_classifier = self._objective in {"binary:logistic", "multi:softprob"}
        return _classified(found) if is_classifier else outputs(found)


class LightgbmBooster(Model):
    """A booster of LightGBM; of a classifier with its probabilities."""

    _CLASSIFIERS = ("binary", "multiclass", "multiclassova")

    def __init__(self, booster: Any) -> None:
        self._booster = booster
        text = booster.model_to_string(num_iteration=1)
        line = next((line for line in text.splitlines() if line.startswith("objective=")), "")
        self._objective = (line.removeprefix("objective=").split() or [""])[0]
        names = booster.feature_name()
        # What it calls them where it was given none.
        self._names = [] if names == [f"Column_{at}" for at in range(len(names))] else names

    @property
    def platform(self) -> str:
        """The library."""
        return "lightgbm"

    @property
    def inputs(self) -> Sequence[tuple[str, str, tuple[int, ...]]]:
        """A tensor for each feature that has a name, else one of all."""
        return _features(self._names, self._booster.num_feature())

    def infer(self, inputs: Columns) -> Columns:
        """The booster's prediction, by its objective: a value, or a class and probabilities."""
        data = numbers(matrix(inputs, self._names, self._booster.num_feature()))
        found = self._booster.predict(data)
        is_classifier = self._objective in self._CLASSIFIERS
        return _classified(found) if is_classifier else outputs(found)


class CatboostBooster(Model):
    """A model of CatBoost; of a classifier with its probabilities."""

    def __init__(self, model: Any) -> None:
        self._model = model
        names = list(model.feature_names_ or ())
        self._names = [] if names == [str(at) for at in range(len(names))] else names

    @property
    def platform(self) -> str:
        """The library."""
        return "catboost"

    def infer(self, inputs: Columns) -> Columns:
        """The model's prediction: a value, or a class and probabilities."""
        found = features(inputs, self._names, len(self._model.feature_names_ or ()))
        rows = len(next(iter(inputs.values())))
        # Its features can be numbers beside categories, so an array of objects.
        data = (
            found
            if isinstance(found, np.ndarray)
            else [list(row) for row in zip(*(one.tolist() for one in found.values()), strict=True)]
        )
        if not len(self._model.classes_):
            return outputs(self._model.predict(data))
        classes = np.asarray(self._model.predict(data, prediction_type="Class")).reshape(rows)
        probabilities = self._model.predict(data, prediction_type="Probability")
        return outputs({PREDICTION: classes, PROBABILITIES: probabilities})


def _features(names: Sequence[str], width: int) -> Sequence[tuple[str, str, tuple[int, ...]]]:
    if names:
        return [(name, "FP64", (-1,)) for name in names]
    return [(INPUT, "FP64", (-1, width))]


def _classified(found: Array) -> Columns:
    """The classes' numbers, of the probability of the second class or of each one's."""
    probabilities = np.column_stack([1 - found, found]) if found.ndim == 1 else found
    return {PREDICTION: probabilities.argmax(axis=1), PROBABILITIES: probabilities}
