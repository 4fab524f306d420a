"""Loads a model that CatBoost has saved."""

from __future__ import annotations

from typing import Any

import catboost


def _load_pyfunc(path: str) -> Any:
    """The model, as MLflow calls it."""
    model = catboost.CatBoost()
    model.load_model(path)
    return CatboostModel(model)


class CatboostModel:
    """Predicts classes where the model has some, and values otherwise."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._kind = "Class" if len(model.classes_) else "RawFormulaVal"

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        """What the model predicts; ``params`` are arguments of its ``predict``."""
        return self._model.predict(data, **{"prediction_type": self._kind, **(params or {})})

    def get_raw_model(self) -> Any:
        """The model itself."""
        return self._model
