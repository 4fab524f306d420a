"""Networks: models of PyTorch, ONNX and TensorFlow, which take tensors."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelyard_runtime.frames import Array, Columns
from modelyard_runtime.models.base import (
    INPUT,
    PREDICTION,
    PROBABILITIES,
    Model,
    matrix,
    numbers,
    outputs,
)

# What converters of scikit-learn's classifiers to ONNX call their two outputs.
_CLASSIFIER_OUTPUTS = {
    frozenset({"output_label", "output_probability"}): ("output_label", "output_probability"),
    frozenset({"label", "probabilities"}): ("label", "probabilities"),
}


class TorchNetwork(Model):
    """A network of PyTorch, on the GPU where there is one."""

    def __init__(self, network: Any) -> None:
        import torch  # noqa: PLC0415 (only models of its kind have it)

        self._torch = torch
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._network = network.to(self._device)
        kinds = {one.dtype for one in network.parameters() if one.is_floating_point()}
        self._floats = kinds.pop() if len(kinds) == 1 else torch.float32
        with contextlib.suppress(TypeError, ValueError):
            self._parameters = list(inspect.signature(network.forward).parameters)

    _parameters: list[str] = []

    @property
    def platform(self) -> str:
        """The library."""
        return "pytorch"

    def is_refusal(self, error: Exception) -> bool:
        """Also what PyTorch and its guards raise of other shapes; not where memory ends."""
        if isinstance(error, RuntimeError | AssertionError):
            return not isinstance(error, self._torch.OutOfMemoryError | NotImplementedError)
        return super().is_refusal(error)

    def infer(self, inputs: Columns) -> Columns:
        """The network's output: arrays by name where it gives several."""
        with self._torch.inference_mode():
            if set(inputs) != {INPUT} and set(inputs) <= set(self._parameters):
                named = {name: self._tensor(column) for name, column in inputs.items()}
                found = self._network(**named)
            else:
                data = inputs[INPUT] if set(inputs) == {INPUT} else matrix(inputs)
                found = self._network(self._tensor(numbers(data)))
        if isinstance(found, list | tuple):
            found = {f"output_{at}": one for at, one in enumerate(found)}
        return outputs(found)

    def _tensor(self, column: Array) -> Any:
        """A tensor; floats are of the type of the network's weights."""
        found = self._torch.from_numpy(np.require(column, requirements="W"))
        return found.to(self._device, self._floats if found.is_floating_point() else None)


class NamedTensors(Model):
    """A model that takes arrays by the names of its inputs: of ONNX Runtime, or a SavedModel."""

    def __init__(
        self, loaded: Any, names: list[str], platform: str,
        inputs: Sequence[tuple[str, str, tuple[int, ...]]] = (),
    ) -> None:  # fmt: skip
        """Predict with what a loader module gives.

        Args:
            loaded: It has ``predict``, which takes a mapping of arrays, or one array.
            names: The model's inputs.
            platform: What it is of.
            inputs: The same with their datatypes and shapes, where these are known.
        """
        self._loaded = loaded
        self._names = names
        self._platform = platform
        self._inputs = inputs

    @property
    def platform(self) -> str:
        """What it is of."""
        return self._platform

    @property
    def inputs(self) -> Sequence[tuple[str, str, tuple[int, ...]]]:
        """Its tensors."""
        return self._inputs

    def infer(self, inputs: Columns) -> Columns:
        """The model's output: arrays by name where it gives several."""
        if set(self._names) <= set(inputs):
            found = self._loaded.predict({name: inputs[name] for name in self._names})
        elif set(inputs) == {INPUT}:
            found = self._loaded.predict(inputs[INPUT])
        elif len(self._names) == 1:
            found = self._loaded.predict(matrix(inputs))
        else:
            found = self._loaded.predict(dict(inputs))
        if isinstance(found, Mapping):
            label, probabilities = _CLASSIFIER_OUTPUTS.get(frozenset(found), ("", ""))
            if label:
                found = {PREDICTION: found[label], PROBABILITIES: _dense(found[probabilities])}
        return outputs(found)


def _dense(probabilities: Any) -> Any:
    """Probabilities as an array; a converter may have made a mapping of each row's."""
    if isinstance(probabilities, list) and probabilities and isinstance(probabilities[0], dict):
        classes = list(probabilities[0])
        return np.array([[row[one] for one in classes] for row in probabilities])
    return probabilities
