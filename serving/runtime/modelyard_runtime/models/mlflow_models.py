"""Models that MLflow has saved: by their native flavour where it is known, else as a pyfunc."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from modelyard_runtime.frames import Columns
from modelyard_runtime.models.base import INPUT, Model, outputs
from modelyard_runtime.models.boosters import CatboostBooster, LightgbmBooster, XgboostBooster
from modelyard_runtime.models.estimators import Estimator
from modelyard_runtime.models.networks import TorchNetwork


def load(folder: Path) -> Model:
    """The model in a folder with an ``MLmodel`` file.

    Raises:
        Exception: What MLflow raises.
    """
    import mlflow  # noqa: PLC0415 (only environments of its own models have it)

    described = mlflow.models.Model.load(str(folder))
    for flavor, model in _FLAVORS.items():
        if flavor in described.flavors:
            return model(getattr(mlflow, flavor).load_model(str(folder)))
    return PyfuncModel(mlflow.pyfunc.load_model(str(folder)))


def _booster_or_estimator(booster: Callable[[Any], Model], name: str) -> Callable[[Any], Model]:
    return lambda loaded: booster(loaded) if type(loaded).__name__ == name else Estimator(loaded)


_FLAVORS: Mapping[str, Callable[[Any], Model]] = {
    "sklearn": Estimator,
    "xgboost": _booster_or_estimator(XgboostBooster, "Booster"),
    "lightgbm": _booster_or_estimator(LightgbmBooster, "Booster"),
    "catboost": CatboostBooster,
    "pytorch": TorchNetwork,
}


class PyfuncModel(Model):
    """A model as MLflow calls it."""

    def __init__(self, pyfunc: Any) -> None:
        self._pyfunc = pyfunc
        schema = pyfunc.metadata.get_input_schema()
        self._takes_tensors = bool(schema and schema.is_tensor_spec())
        self._names = schema.input_names() if schema and schema.has_input_names() else []

    @property
    def platform(self) -> str:
        """The library."""
        return "mlflow"

    def infer(self, inputs: Columns) -> Columns:
        """What the model predicts of a data frame, or of tensors if its signature wants them."""
        return outputs(self._pyfunc.predict(self._data(inputs)))

    def _data(self, inputs: Columns) -> Any:
        if set(inputs) == {INPUT} and INPUT not in self._names:
            array = inputs[INPUT]
            if self._takes_tensors and self._names:
                return {self._names[0]: array}
            if self._takes_tensors or array.ndim != 2 or not self._names:
                return array
            return _frame(dict(zip(self._names, array.T, strict=True)))
        if self._takes_tensors:
            return dict(inputs)
        # A column of lists is one of arrays.
        return _frame(
            {name: column if column.ndim == 1 else list(column) for name, column in inputs.items()}
        )


def _frame(columns: Mapping[str, Any]) -> Any:
    import pandas as pd  # noqa: PLC0415 (MLflow brings it)

    return pd.DataFrame(columns)
