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
    "ForQuestionAnswering": "question-answering",
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForConditionalGeneration": "text2text-generation",
    "ForImageClassification": "image-classification",
}


def _load_pyfunc(path: str) -> Any:
    """The model, as MLflow calls it."""
    config = json.loads(Path(path, "config.json").read_text())
    architecture = next(iter(config.get("architectures") or ()), "")
    ends = (task for suffix, task in _TASKS.items() if architecture.endswith(suffix))
    task = next(ends, "feature-extraction")
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
