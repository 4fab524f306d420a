"""The Open Inference Protocol, version 2, asked as a predictor is.

Triton, KServe and MLServer speak it: https://github.com/kserve/open-inference-protocol.
"""

from __future__ import annotations

from urllib.parse import quote

import httpx
import numpy as np
from modelyard_runtime import predictions
from modelyard_runtime.frames import Array, Columns, objects
from modelyard_runtime.models.base import INPUT, ModelError, matrix, outputs
from modelyard_runtime.server.tensors import NUMBERS, TEXT

from serving.server_http import ServedModel, ask
from serving.server_readiness import ModelUnservedError, ServerReadiness
from tasks.batch_inference import tensors
from tasks.batch_inference.predictor_client import PredictionError
from tasks.batch_inference.server_client import ServerClient, unusable_answer
from tasks.batch_inference.tensors import InputTensor


class InferenceProtocolClient(ServerClient):
    """The Open Inference Protocol, version 2."""

    def __init__(self, client: httpx.Client, served: ServedModel, ready: ServerReadiness) -> None:
        """Read what the model takes.

        Raises:
            ModelUnservedError: If the server does not say.
            httpx.TransportError: If it is away.
        """
        super().__init__(client, served)
        self._path = f"/v2/models/{quote(ready.name)}"
        self._is_binary = tensors.BINARY in ready.extensions
        try:
            self._inputs = {str(one["name"]): one for one in ready.description["inputs"]}
            self._most = _most_rows(client, self._path)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelUnservedError(f"sent what is no answer: {error!r}") from error

    def _infer(self, columns: Columns, until: float) -> Columns:
        """Predict pieces of a batch larger than the model's one after another."""
        try:
            given = self._named(columns)
        except ModelError as error:
            raise PredictionError(str(error)) from error
        rows = len(next(iter(given.values())))
        step = self._most or rows
        found = [
            self._infer_piece({name: one[at : at + step] for name, one in given.items()}, until)
            for at in range(0, rows, step)
        ]
        try:
            joined = {name: np.concatenate([one[name] for one in found]) for name in found[0]}
        except (KeyError, ValueError) as error:
            raise PredictionError("The server answered batches of different forms.") from error
        return predictions.named(outputs(joined))

    def _named(self, columns: Columns) -> Columns:
        names = list(self._inputs)
        if set(names) <= set(columns):
            return {name: columns[name] for name in names}
        if len(names) == 1:
            return {names[0]: columns[INPUT] if set(columns) == {INPUT} else matrix(columns)}
        missing = ", ".join(name for name in names if name not in columns)
        raise ModelError(f"The model takes {', '.join(names)}; the records have no {missing}.")

    def _infer_piece(self, columns: Columns, until: float) -> Columns:
        content, headers = tensors.encode(
            [self._tensor(name, column) for name, column in columns.items()],
            is_binary=self._is_binary,
        )
        answer = self._ask(f"{self._path}/infer", content, until, headers)
        rows = len(next(iter(columns.values())))
        try:
            found = tensors.decode(answer)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise unusable_answer(repr(error)) from error
        if not found or any(one.shape[:1] != (rows,) for one in found.values()):
            raise PredictionError(f"The server was given {rows} rows, and answered others.")
        return found

    def _tensor(self, name: str, column: Array) -> InputTensor:
        datatype, wanted = self._inputs[name]["datatype"], self._inputs[name]["shape"]
        if datatype == TEXT:
            column = objects([str(one) for one in column.tolist()])
        else:
            column = _cast(name, column, datatype, is_binary=self._is_binary)
        if column.ndim == 1 and len(wanted) > 1:
            column = column.reshape(-1, *[1] * (len(wanted) - 1))
        return InputTensor(name, datatype, column)


def _most_rows(client: httpx.Client, path: str) -> int:
    """How many rows a model takes at once; 0 for any: Triton alone sets a limit, and says so."""
    answer = ask(client, f"{path}/config")
    return int(answer.parsed().get("max_batch_size") or 0) if answer.is_ok else 0


def _cast(name: str, column: Array, datatype: str, *, is_binary: bool) -> Array:
    """A column in the model's type.

    Raises:
        PredictionError: If that would change a value, beyond the precision of a float; or if one
            is missing or infinite, and is sent in JSON, which has neither.
    """
    try:
        numbers = np.array(column.tolist()) if column.dtype == object else column
        if numbers.dtype.kind == "U":  # one value that is no number makes a column of CSV texts
            numbers = column.astype(np.int64 if "INT" in datatype else np.float64)
        if numbers.dtype.kind not in "biuf":
            raise ValueError(f"{str(column.tolist()[0])[:60]!r} is no number")
        wanted = NUMBERS[datatype]
        finite = np.isfinite(numbers)
        if not finite.all() and not (is_binary and wanted.kind == "f"):
            raise ValueError("a number is missing or infinite")
        with np.errstate(all="ignore"):
            found: Array = numbers.astype(wanted)
        if found.dtype.kind != "f" and not np.array_equal(found, numbers):
            raise ValueError("a number would be another")
        if not np.isfinite(found[finite]).all():
            raise ValueError("a number is too large")
    except KeyError as error:
        raise PredictionError(f"{name} is {datatype}, which is not known.") from error
    except ValueError as error:
        raise PredictionError(f"{name} cannot be {datatype}: {error}.") from error
    return found
