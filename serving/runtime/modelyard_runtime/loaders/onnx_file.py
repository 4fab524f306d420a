"""Loads an ONNX model with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime

_DTYPES = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16,
    "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(int16)": np.int16,
    "tensor(int8)": np.int8, "tensor(uint8)": np.uint8, "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32, "tensor(uint64)": np.uint64, "tensor(bool)": np.bool_,
    "tensor(string)": np.str_,
}  # fmt: skip
_DATATYPES = {"f": "FP", "i": "INT", "u": "UINT"}


def _load_pyfunc(path: str) -> Any:
    """The model, as MLflow calls it."""
    providers = onnxruntime.get_available_providers()
    return OnnxModel(onnxruntime.InferenceSession(path, providers=providers))


class OnnxModel:
    """Takes an array, a data frame, or a mapping of arrays by the names of the inputs."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        """The model's output: an array, or with several outputs arrays by their names."""
        names = [output.name for output in self._session.get_outputs()]
        arrays = self._session.run(names, self._feed(data))
        return arrays[0] if len(names) == 1 else dict(zip(names, arrays, strict=True))

    def get_raw_model(self) -> Any:
        """The session of ONNX Runtime."""
        return self._session

    @property
    def inputs(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """Name, datatype and shape of its inputs, as in the Open Inference Protocol.

        -1 is a dimension of any length; none if one has a type that the protocol does not have.
        """
        given = self._session.get_inputs()
        if not all(one.type in _DTYPES for one in given):
            return []
        return [
            (one.name, _datatype(_DTYPES[one.type]),
             tuple(size if isinstance(size, int) else -1 for size in one.shape))
            for one in given
        ]  # fmt: skip

    def _feed(self, data: Any) -> dict[str, Any]:
        """Arrays by input. A data frame's columns are inputs, or all of them the only one.

        Raises:
            ValueError: If an input is not given, or has numbers that its type does not have.
        """
        inputs = self._session.get_inputs()
        columns = list(data) if isinstance(data, Mapping) or hasattr(data, "columns") else []
        named = {one.name for one in inputs} <= set(columns)
        if len(inputs) > 1 and not named:
            wanted = ", ".join(one.name for one in inputs)
            raise ValueError(f"The model has several inputs: give a mapping with {wanted}.")
        feed = (
            {one.name: _array(data[one.name], one) for one in inputs}
            if named
            else {inputs[0].name: _array(data, inputs[0])}
        )
        # A column is one value for each row: where the input has a second axis, of that length.
        return {
            one.name: feed[one.name].reshape(-1, 1)
            if feed[one.name].ndim == 1 and len(one.shape) == 2
            else feed[one.name]
            for one in inputs
        }


def _datatype(scalar: Any) -> str:
    dtype = np.dtype(scalar)
    if dtype.kind not in _DATATYPES:
        return "BOOL" if dtype.kind == "b" else "BYTES"
    return f"{_DATATYPES[dtype.kind]}{8 * dtype.itemsize}"


def _array(value: Any, wanted: Any) -> Any:
    array = value.to_numpy() if hasattr(value, "to_numpy") else np.asarray(value)
    dtype = _DTYPES.get(wanted.type)
    if dtype is None or array.dtype == dtype:
        return array
    with np.errstate(invalid="ignore"):
        found = array.astype(dtype)
    # A float may be rounded to one of fewer bits; no number becomes another whole number.
    if found.dtype.kind in "biu" and not np.array_equal(found, array):
        raise ValueError(f"{wanted.name} takes whole numbers of {wanted.type}.")
    return found
