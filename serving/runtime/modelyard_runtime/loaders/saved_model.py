"""Loads a SavedModel of TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

_SIGNATURE = "serving_default"


def _load_pyfunc(path: str) -> Any:
    """The model, as MLflow calls it.

    Raises:
        TypeError: If it has no signature to call.
    """
    loaded = tf.saved_model.load(path)
    signatures = dict(loaded.signatures)
    if not signatures:
        raise TypeError(f"The SavedModel {path} has no signature that could be called.")
    chosen = signatures.get(_SIGNATURE) or next(iter(signatures.values()))
    return SavedModel(loaded, chosen)


class SavedModel:
    """Takes an array, a data frame, or a mapping of arrays by the names of the inputs."""

    def __init__(self, loaded: Any, call: Any) -> None:
        self._loaded = loaded  # which the signature refers to
        self._call = call
        self._inputs: dict[str, Any] = call.structured_input_signature[1]

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        """The signature's output: an array, or with several outputs arrays by their names."""
        found = {name: tensor.numpy() for name, tensor in self._call(**self._feed(data)).items()}
        return next(iter(found.values())) if len(found) == 1 else found

    def get_raw_model(self) -> Any:
        """The loaded object."""
        return self._loaded

    @property
    def input_names(self) -> list[str]:
        """Names of the signature's inputs."""
        return list(self._inputs)

    def _feed(self, data: Any) -> dict[str, Any]:
        """Tensors by input.

        Raises:
            ValueError: If an input is not given.
        """
        columns = list(data) if isinstance(data, Mapping) or hasattr(data, "columns") else []
        if set(self._inputs) <= set(columns):
            return {name: self._tensor(data[name], name) for name in self._inputs}
        if len(self._inputs) > 1:
            wanted = ", ".join(self._inputs)
            raise ValueError(f"The model has several inputs: give a mapping with {wanted}.")
        (name,) = self._inputs
        return {name: self._tensor(data, name)}

    def _tensor(self, value: Any, name: str) -> Any:
        array = value.to_numpy() if hasattr(value, "to_numpy") else np.asarray(value)
        wanted = self._inputs[name]
        if array.ndim == 1 and wanted.shape.rank == 2:  # a column
            array = array.reshape(-1, 1)
        return tf.constant(array, dtype=wanted.dtype)
