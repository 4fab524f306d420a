"""Loads a model that LightGBM has saved."""

from __future__ import annotations

from typing import Any

import lightgbm


def _load_pyfunc(path: str) -> Any:
    """The model, as MLflow calls it."""
    return LightgbmModel(lightgbm.Booster(model_file=path))


class LightgbmModel:
    """Predicts as the booster does; ``params`` are arguments of its ``predict``."""

    def __init__(self, booster: Any) -> None:
        self._booster = booster

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        """What the booster predicts: of a classifier, probabilities."""
        return self._booster.predict(data, **(params or {}))

    def get_raw_model(self) -> Any:
        """The booster itself."""
        return self._booster
