"""Loads a Hugging Face model as a pipeline of transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

# The task of a model, by how its architecture ends.
_TASKS = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForConditionalGeneration": "text2text-generation",
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
    if task == "text2text-generation":  # for which transformers has no pipeline any more
        return TransformersModel(TextToText(path))
    return TransformersModel(transformers.pipeline(task, model=path))


class TextToText:
    """Generates a text from each text, as the pipelines of transformers do."""

    def __init__(self, path: str) -> None:
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        self.model = transformers.AutoModelForSeq2SeqLM.from_pretrained(path)
        if torch.cuda.is_available():
            self.model.to("cuda")

    def __call__(self, texts: str | list[str], **options: Any) -> list[dict[str, str]]:
        """Mappings with ``generated_text``; ``options`` are those of ``generate``."""
        texts = [texts] if isinstance(texts, str) else texts
        given = self.tokenizer(texts, return_tensors="pt", padding=True, truncation=True)
        given.pop("token_type_ids", None)
        made = self.model.generate(**given.to(self.model.device), **options)
        found = self.tokenizer.batch_decode(made, skip_special_tokens=True)
        return [{"generated_text": text} for text in found]


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
