"""The frameworks that models are served with, and what each wants of a model's files."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from infra.errors import BadInputError
from registry.frameworks import (
    huggingface,
    onnx,
    predictors,
    pytorch,
    scikit_learn,
    tensorflow,
    triton,
)
from registry.frameworks.layout import Files, Layout

__all__ = ["FRAMEWORKS", "HUGGINGFACE", "PYTORCH", "Files", "Framework", "Layout", "check", "find"]

HUGGINGFACE = "huggingface"
PYTORCH = "pytorch"


@dataclass(frozen=True)
class Framework:
    """One framework.

    Attributes:
        key: What it is called in commands and tags.
        title: What people read.
        check: Refuses files that could not be served; told the model's name too.
    """

    key: str
    title: str
    check: Callable[[Layout, str], None]


_TABLE = (
    Framework("tensorflow", "TensorFlow", tensorflow.check),
    Framework(PYTORCH, "PyTorch", pytorch.check),
    Framework("scikit-learn", "Scikit-learn", scikit_learn.check),
    Framework(HUGGINGFACE, "Hugging Face", huggingface.check),
    Framework("onnx", "ONNX", onnx.check),
    Framework("xgboost", "XGBoost", predictors.booster("xgboost_file", "Booster.save_model()")),
    Framework("lightgbm", "LightGBM", predictors.booster("lightgbm_file", "Booster.save_model()")),
    Framework("catboost", "CatBoost", predictors.booster("catboost_file", "save_model()")),
    Framework("mlflow", "MLflow", predictors.mlflow),
    Framework("custom", "Custom", predictors.custom),
    Framework("tensorflow-triton", "TensorFlow (Triton)", triton.checker(triton.TENSORFLOW)),
    Framework("pytorch-triton", "PyTorch (Triton)", triton.checker(triton.PYTORCH)),
    Framework("onnx-triton", "ONNX (Triton)", triton.checker(triton.ONNX)),
)
FRAMEWORKS = {framework.key: framework for framework in _TABLE}


def _folded(text: str) -> str:
    return re.sub(r"[\W_]", "", text).lower()


_BY_SPELLING = {_folded(framework.key): framework for framework in _TABLE} | {
    "sklearn": FRAMEWORKS["scikit-learn"]
}


def find(text: str) -> Framework:
    """The framework called ``text``, by key or title, in any case and punctuation.

    Raises:
        BadInputError: With the code ``FrameworkUnknown``.
    """
    found = _BY_SPELLING.get(_folded(text))
    if found is None:
        raise BadInputError(
            f"There is no framework {text[:60]!r}.",
            f"There are: {', '.join(FRAMEWORKS)}.",
            code="FrameworkUnknown",
        )
    return found


def check(framework: str, files: Files, name: str) -> None:
    """Refuse files that could not be served under ``name``; only their heads are read.

    Raises:
        BadInputError: With a code of its own for each fault.
    """
    FRAMEWORKS[framework].check(Layout(files), name)


def is_loaded(key: str | None, source_uri: str | None) -> bool:
    """Whether a predictor loads such a model from its files: no repository of a Triton server.

    Args:
        key: The framework; None if it is not known.
        source_uri: Where the files are; None for a model on a hub.
    """
    return source_uri is not None and not (key or "").endswith("-triton")
