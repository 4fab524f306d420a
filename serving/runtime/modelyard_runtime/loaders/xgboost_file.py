"""Loads a model that XGBoost has saved."""

from __future__ import annotations

from typing import Any

import xgboost


def _load_pyfunc(path: str) -> Any:
    """The model, as MLflow calls it."""
    booster = xgboost.Booster()
    booster.load_model(path)
    return XgboostModel(booster)


class XgboostModel:
    """Predicts as the booster does; ``params`` are arguments of its ``predict``."""

    def __init__(self, booster: Any) -> None:
        self._booster = booster

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        """What the booster predicts: of a classifier, probabilities."""
        if not isinstance(data, xgboost.DMatrix):
            data = xgboost.DMatrix(data)
        return self._booster.predict(data, **(params or {}))

    def get_raw_model(self) -> Any:
        """The booster itself."""
        return self._booster
