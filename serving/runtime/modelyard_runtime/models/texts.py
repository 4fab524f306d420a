"""Hugging Face models, which take texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelyard_runtime.frames import Columns, objects
from modelyard_runtime.models.base import INPUT, PREDICTION, Model, ModelError

_AT_ONCE = 32

# Fields that hold a record's text, where there are several.
_FIELDS = ("input", "inputs", "text", "sentence", "prompt")


class TextPipeline(Model):
    """A pipeline of transformers."""

    def __init__(self, pipeline: Any) -> None:
        """Predict with ``pipeline``, a callable that takes a list of texts."""
        self._pipeline = pipeline
        # Texts of unequal lengths are one batch only where they can be padded.
        can_pad = getattr(pipeline.tokenizer, "pad_token", None) is not None
        is_batched = can_pad and hasattr(pipeline, "_batch_size")
        self._options = {"batch_size": _AT_ONCE} if is_batched else {}

    @property
    def platform(self) -> str:
        """The library."""
        return "transformers"

    @property
    def inputs(self) -> Sequence[tuple[str, str, tuple[int, ...]]]:
        """One text for each row."""
        return [(INPUT, "BYTES", (-1,))]

    def infer(self, inputs: Columns) -> Columns:
        """``prediction``: what the pipeline answers for each text, as plain values."""
        return {PREDICTION: objects(list(self._pipeline(_texts(inputs), **self._options)))}


def _texts(inputs: Columns) -> list[str]:
    """The texts of the rows.

    Raises:
        ModelError: If no column, or not one of them alone, has texts.
    """
    found = {name: column.tolist() for name, column in inputs.items() if column.dtype == object}
    texts: dict[str, list[str]] = {
        name: values
        for name, values in found.items()
        if all(isinstance(value, str) for value in values)
    }
    named = [name for name in _FIELDS if name in texts]
    if not named and len(texts) != 1:
        raise ModelError(
            f"The model takes a text for each row: give records that are strings, or that have "
            f"one of the fields {', '.join(_FIELDS)}. These have {', '.join(inputs) or 'none'}."
        )
    return texts[named[0] if named else next(iter(texts))]
