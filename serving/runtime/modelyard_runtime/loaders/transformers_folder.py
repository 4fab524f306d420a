"""Loads a Hugging Face model as a pipeline of transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers

# The task of a model, by how its architecture ends.
_TASKS = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForImageClassification": "image-classification",
    "Model": "feature-extraction",
}


def _load_pyfunc(path: str) -> Any:
    """The model, as MLflow calls it.

    Raises:
        ValueError: If no pipeline is known for its architecture.
    """
    config = json.loads(Path(path, "config.json").read_text())
    architecture = next(iter(config.get("architectures") or ()), "")
    fitting = (task for suffix, task in _TASKS.items() if architecture.endswith(suffix))
    task = next(fitting, None)
    if task is None:
        raise ValueError(
            f"The architecture {architecture!r} has no pipeline here; known are those that end in "
            f"{', '.join(_TASKS)}. Load the folder with transformers itself."
        )
    return TransformersModel(transformers.pipeline(task, model=path))


class TransformersModel:
    """Takes texts: a list, or a data frame whose first column has them."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        """What the pipeline answers; ``params`` are its arguments."""
        if hasattr(data, "columns"):
            data = data.iloc[:, 0]
        inputs = data if isinstance(data, str | dict) else list(data)
        return self._pipeline(inputs, **(params or {}))

    def get_raw_model(self) -> Any:
        """The pipeline itself."""
        return self._pipeline
