"""Loads a model that joblib or pickle has written, such as one of scikit-learn."""

from __future__ import annotations

from typing import Any

import joblib


def _load_pyfunc(path: str) -> Any:
    """The model, as MLflow calls it.

    Raises:
        TypeError: If the file holds something that does not predict.
    """
    model = joblib.load(path)
    if not callable(getattr(model, "predict", None)):
        raise TypeError(f"{path} holds a {type(model).__name__}, which has no predict().")
    return JoblibModel(model)


class JoblibModel:
    """Predicts as the model itself does; ``params`` are arguments of its ``predict``."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        """What the model predicts."""
        return self._model.predict(data, **(params or {}))

    def get_raw_model(self) -> Any:
        """The model itself."""
        return self._model
