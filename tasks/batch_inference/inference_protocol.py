"""The Open Inference Protocol, version 2, asked as a predictor is, in JSON.

Triton, KServe and MLServer speak it: https://github.com/kserve/open-inference-protocol.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
from modelyard_runtime.frames import Array, Columns, objects
from modelyard_runtime.models.base import INPUT, ModelError, matrix, outputs

from serving.server_http import ask
from serving.server_readiness import ModelUnservedError, ServerReadiness
from tasks.batch_inference.predictor_client import PredictionError
from tasks.batch_inference.server_client import ServerClient, encode_json, unusable_answer

# Of the Open Inference Protocol's datatypes.
_DTYPES: Mapping[str, Any] = {
    "BOOL": np.bool_, "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip
_TEXT = "BYTES"


class InferenceProtocolClient(ServerClient):
    """The Open Inference Protocol, version 2."""

    def __init__(self, client: httpx.Client, ready: ServerReadiness) -> None:
        """Read what the model takes.

        Raises:
            ModelUnservedError: If the server does not say.
            httpx.TransportError: If it is away.
        """
        super().__init__(client)
        self._path = f"/v2/models/{quote(ready.name)}"
        try:
            self._inputs = {str(one["name"]): one for one in ready.description["inputs"]}
            self._most = _most_rows(client, self._path)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelUnservedError(f"sent what is no answer: {error!r}") from error

    def infer(self, columns: Columns, seconds: float) -> Columns:
        """See :class:`ServerClient`; of a batch larger than the model's, one after another."""
        until = time.monotonic() + seconds
        try:
            given = self._named(columns)
        except ModelError as error:
            raise PredictionError(str(error)) from error
        rows = len(next(iter(given.values())))
        step = self._most or rows
        found = [
            self._infer({name: one[at : at + step] for name, one in given.items()}, until)
            for at in range(0, rows, step)
        ]
        try:
            joined = {name: np.concatenate([one[name] for one in found]) for name in found[0]}
        except (KeyError, ValueError) as error:
            raise PredictionError("The server answered batches of different forms.") from error
        return outputs(joined)

    def _named(self, columns: Columns) -> Columns:
        names = list(self._inputs)
        if set(names) <= set(columns):
            return {name: columns[name] for name in names}
        if len(names) == 1:
            return {names[0]: columns[INPUT] if set(columns) == {INPUT} else matrix(columns)}
        missing = ", ".join(name for name in names if name not in columns)
        raise ModelError(f"The model takes {', '.join(names)}; the records have no {missing}.")

    def _infer(self, columns: Columns, until: float) -> Columns:
        tensors = [self._tensor(name, column) for name, column in columns.items()]
        answer = self._ask(f"{self._path}/infer", encode_json({"inputs": tensors}), until)
        rows = len(next(iter(columns.values())))
        try:
            found = {str(one["name"]): _array(one) for one in answer.parsed()["outputs"]}
        except (KeyError, TypeError, ValueError) as error:
            raise unusable_answer(repr(error)) from error
        if not found or any(one.shape[:1] != (rows,) for one in found.values()):
            raise PredictionError(f"The server was given {rows} rows, and answered others.")
        return found

    def _tensor(self, name: str, column: Array) -> Mapping[str, Any]:
        datatype, wanted = self._inputs[name]["datatype"], self._inputs[name]["shape"]
        if datatype == _TEXT:
            column = objects([str(one) for one in column.tolist()])
        else:
            column = _cast(name, column, datatype)
        if column.ndim == 1 and len(wanted) > 1:
            column = column.reshape(-1, *[1] * (len(wanted) - 1))
        values = column.ravel().tolist()
        return {"name": name, "shape": column.shape, "datatype": datatype, "data": values}


def _most_rows(client: httpx.Client, path: str) -> int:
    """How many rows a model takes at once; 0 for any: Triton alone sets a limit, and says so."""
    answer = ask(client, f"{path}/config")
    return int(answer.parsed().get("max_batch_size") or 0) if answer.is_ok else 0


def _cast(name: str, column: Array, datatype: str) -> Array:
    """A column in the model's type.

    Raises:
        PredictionError: If that would change a value, beyond the precision of a float; or if one
            is missing or infinite, which JSON does not have.
    """
    try:
        numbers = np.array(column.tolist()) if column.dtype == object else column
        if numbers.dtype.kind not in "biuf":
            raise ValueError(f"{str(column.tolist()[0])[:60]!r} is no number")
        if not np.isfinite(numbers).all():
            raise ValueError("a number is missing or infinite")
        with np.errstate(all="ignore"):
            found = numbers.astype(_DTYPES[datatype])
        if found.dtype.kind != "f" and not np.array_equal(found, numbers):
            raise ValueError("a number would be another")
        if not np.isfinite(found).all():
            raise ValueError("a number is too large")
    except KeyError as error:
        raise PredictionError(f"{name} is {datatype}, which is not known.") from error
    except ValueError as error:
        raise PredictionError(f"{name} cannot be {datatype}: {error}.") from error
    return found


def _array(tensor: Mapping[str, Any]) -> Array:
    """A tensor of an answer."""
    if tensor["datatype"] == _TEXT:
        return objects(list(tensor["data"])).reshape(tensor["shape"])
    return np.array(tensor["data"], dtype=_DTYPES[tensor["datatype"]]).reshape(tensor["shape"])
