"""Loads a model from its folder, by the kind that it is of."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from modelyard_runtime.models import mlflow_models
from modelyard_runtime.models.base import Model, ModelError
from modelyard_runtime.models.boosters import CatboostBooster, LightgbmBooster, XgboostBooster
from modelyard_runtime.models.estimators import Estimator
from modelyard_runtime.models.networks import NamedTensors, TorchNetwork
from modelyard_runtime.models.texts import TextPipeline
from modelyard_runtime.models.user_code import TorchHandler, UserPredictor
from modelyard_runtime.recognition import LocalFiles, recognize


def load(folder: Path, parameters: Mapping[str, str]) -> Model:
    """The model in a folder.

    Code that predicts comes before files that could be loaded without it.

    Args:
        folder: The user's files alone: without what Modelyard keeps beside them for MLflow.
        parameters: The model's parameters.

    Raises:
        ModelError: If nothing in the folder is a model that is known here.
        Exception: What its library or its code raises.
    """
    archives = sorted(path.name for path in folder.glob("*.mar"))
    if (folder / "predictor.py").is_file():
        return UserPredictor(folder, parameters)
    if len(archives) == 1:
        return TorchHandler(folder, archives[0])
    if (folder / "handler.py").is_file():
        return TorchHandler(folder)
    if (folder / "MLmodel").is_file():
        return mlflow_models.load(folder)
    found = recognize(LocalFiles(folder))
    if found is None:
        raise ModelError(
            "The folder holds no model of a known kind, or several: give one model file, called "
            "'model', or a predictor.py with load() and predict()."
        )
    loader = importlib.import_module(f"modelyard_runtime.loaders.{found.kind.loader}")
    return _MODELS[found.kind.loader](loader._load_pyfunc(str(folder / found.file)))


# The model, of what its loader module gives.
_MODELS: Mapping[str, Callable[[Any], Model]] = {
    "joblib_file": lambda loaded: Estimator(loaded.get_raw_model()),
    "xgboost_file": lambda loaded: XgboostBooster(loaded.get_raw_model()),
    "lightgbm_file": lambda loaded: LightgbmBooster(loaded.get_raw_model()),
    "catboost_file": lambda loaded: CatboostBooster(loaded.get_raw_model()),
    "torch_file": lambda loaded: TorchNetwork(loaded.get_raw_model()),
    "onnx_file": lambda loaded: NamedTensors(
        loaded, [one.name for one in loaded.get_raw_model().get_inputs()], "onnx", loaded.inputs
    ),
    "saved_model": lambda loaded: NamedTensors(loaded, loaded.input_names, "tensorflow"),
    "transformers_folder": lambda loaded: TextPipeline(loaded.get_raw_model()),
}
