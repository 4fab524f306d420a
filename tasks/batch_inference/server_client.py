"""Servers that serve the model already, asked as a predictor is.

Two protocols are known, by what the server answers to: the Open Inference Protocol, version 2
(Triton, KServe: https://github.com/kserve/open-inference-protocol), in JSON; and OpenAI's
completions and chat completions (vLLM).
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
from modelyard_runtime.frames import Array, Columns, objects
from modelyard_runtime.models.base import INPUT, PREDICTION, ModelError, instances, matrix, outputs

from infra.masking import mask
from infra.workloads.redaction import redactor
from tasks.batch_inference.predictor_client import PredictionError, PredictorStartError

# Of the Open Inference Protocol's datatypes.
_DTYPES: Mapping[str, Any] = {
    "BOOL": np.bool_, "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip
_TEXT = "BYTES"

# Fields of a record that are options of its request.
_OPTIONS = ("max_tokens", "temperature", "top_p", "stop", "seed")
_AT_ONCE = 16

_CONNECT_SECONDS = 10.0
_LOAD_SECONDS = 120.0
_LONGEST_PAUSE = 5.0
_OK = 200
_NOTHING = frozenset({400, 404, 405, 501})
_RETRIED = frozenset({429, 502, 503, 504})
_SHOWN = 500


@dataclass(frozen=True)
class ServedModel:
    """A model on a server.

    Attributes:
        url: The server's address.
        registered: The registered model's name.
        name: The model's name there; "" for the registered model's, or OpenAI's first one.
        token: A bearer token, or the reference to its secret; "" if the server asks for none.
    """

    url: str
    registered: str
    name: str = ""
    token: str = ""


class ServerClient(ABC):
    """A server, which several requests may reach at once. For one thread."""

    def __init__(self, served: ServedModel, opened: httpx.Client) -> None:
        self._served = served
        self._http = opened

    def __enter__(self) -> ServerClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def prepare(self) -> None:  # noqa: B027 (not every client has something to do)
        """Do nothing: a server that is connected is ready."""

    @abstractmethod
    def infer(self, columns: Columns, seconds: float) -> Columns:
        """Predict a batch.

        Raises:
            PredictionError: If the server refuses it, or does not answer in ``seconds``, in which
                a server that is busy or away is asked again.
        """

    def _ask(self, path: str, body: Mapping[str, Any], until: float) -> Any:
        """The server's answer; ``until`` is ``time.monotonic()`` when it is late."""
        pause, reason = 0.1, "did not answer"
        while time.monotonic() < until:
            try:
                answer = self._post(path, body, until)
            except httpx.TimeoutException:
                break
            except httpx.TransportError as error:
                reason = f"cannot be reached: {error}"
            except (TypeError, ValueError) as error:
                raise PredictionError(f"The records cannot be sent: {error}") from error
            else:
                if answer.status == _OK:
                    return answer.parsed()
                reason = f"answers {answer.status}: {answer.reason}"
                if answer.status not in _RETRIED:
                    raise PredictionError(f"The server {reason}")
                pause = max(pause, answer.retry_after)
            time.sleep(max(0.0, min(pause, until - time.monotonic())))
            pause = min(2 * pause, _LONGEST_PAUSE)
        raise PredictionError(f"The server {reason} within its time.", is_late=True)

    def _post(self, path: str, body: Mapping[str, Any], until: float) -> _Answer:
        """The answer, whole; a server that sends it drop by drop is late, too."""
        left = max(0.001, until - time.monotonic())
        pieces = []
        with self._http.stream("POST", path, json=body, timeout=left) as answer:
            for piece in answer.iter_bytes():
                pieces.append(piece)
                if time.monotonic() > until:
                    raise httpx.ReadTimeout("It is late.")
        wait = 0.0
        with contextlib.suppress(ValueError):
            wait = float(answer.headers.get("Retry-After", ""))
        return _Answer(answer.status_code, b"".join(pieces), wait, _token(self._http))


@dataclass(frozen=True)
class _Answer:
    """An answer of a server.

    Attributes:
        status: Its HTTP status.
        data: Its body.
        retry_after: So many seconds it wants to be left alone.
        token: What it was asked with, which a refusal must not repeat.
    """

    status: int
    data: bytes
    retry_after: float = 0.0
    token: str = ""

    def parsed(self) -> Any:
        """The body's JSON.

        Raises:
            PredictionError: If it is none.
        """
        try:
            return json.loads(self.data)
        except ValueError as error:
            raise PredictionError(f"The server sent what is no answer: {error}") from error

    @property
    def reason(self) -> str:
        """What a refusal says, in any of the forms that servers have; without the token."""
        shown = self.data.decode(errors="replace")
        with contextlib.suppress(ValueError, AttributeError):
            body = json.loads(self.data)
            told = body.get("error") or body.get("detail") or body.get("message")
            if told:
                shown = str(told.get("message") if isinstance(told, dict) else told)
        return redactor([self.token])(shown)[:_SHOWN]


class InferenceProtocolClient(ServerClient):
    """The Open Inference Protocol, version 2."""

    def __init__(self, served: ServedModel, opened: httpx.Client) -> None:
        """Read what the model takes.

        Raises:
            PredictorStartError: If the server does not have it.
        """
        super().__init__(served, opened)
        name = served.name or served.registered
        self._path = f"/v2/models/{quote(name)}"
        described = _get(opened, self._path)
        if described is None:
            raise PredictorStartError(
                f"The server at {mask(served.url)} has no model {name!r}: give its name "
                "there as server_model."
            )
        self._inputs = {str(one["name"]): one for one in described["inputs"]}
        # Triton's own; other servers take batches of any size.
        self._most = int((_get(opened, f"{self._path}/config") or {}).get("max_batch_size") or 0)

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
        answer = self._ask(f"{self._path}/infer", {"inputs": tensors}, until)
        rows = len(next(iter(columns.values())))
        try:
            found = {str(one["name"]): _array(one) for one in answer["outputs"]}
        except (KeyError, TypeError, ValueError) as error:
            raise PredictionError(f"The server sent what is no answer: {error!r}") from error
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


class CompletionsClient(ServerClient):
    """OpenAI's protocol: records have a ``prompt``, or ``messages``."""

    def __init__(self, served: ServedModel, opened: httpx.Client) -> None:
        """Find the model's name.

        Raises:
            PredictorStartError: If the server has no model.
        """
        super().__init__(served, opened)
        listed = _get(opened, "/v1/models")
        if listed is None:
            raise PredictorStartError(
                f"The server at {mask(served.url)} speaks neither the Open Inference Protocol nor "
                "OpenAI's."
            )
        there = [str(one["id"]) for one in listed["data"]]
        if not there or (served.name and served.name not in there):
            raise PredictorStartError(
                f"The server at {mask(served.url)} has the models {', '.join(there) or 'none'}: "
                "name one as server_model."
            )
        self._model = served.name or there[0]
        self._asked: frozenset[str] = frozenset()  # of the last batch that is no piece of another
        self._kept: dict[str, str] = {}

    def infer(self, columns: Columns, seconds: float) -> Columns:
        """See :class:`ServerClient`; requests of a batch are sent 16 at a time.

        Of a batch of which some fail, the texts of the others are kept for when pieces of it are
        asked for.
        """
        until = time.monotonic() + seconds
        records = instances(columns)
        keys = [json.dumps(one, default=str) for one in records]
        if not set(keys) <= self._asked:
            self._asked, self._kept = frozenset(keys), {}
        with ThreadPoolExecutor(_AT_ONCE, "completion") as threads:
            asked = [
                (key, threads.submit(self._complete, one, until))
                for key, one in zip(keys, records, strict=True)
                if key not in self._kept
            ]
        self._kept |= {key: one.result() for key, one in asked if one.exception() is None}
        if failure := next((error for _, one in asked if (error := one.exception())), None):
            raise failure
        found = objects([self._kept[key] for key in keys])
        if set(keys) == self._asked:
            self._asked, self._kept = frozenset(), {}
        return {PREDICTION: found}

    def _complete(self, record: Any, until: float) -> str:
        given = record if isinstance(record, dict) else {}
        is_chat = "messages" in given
        field = "messages" if is_chat else "prompt"
        if field not in given:
            raise PredictionError("A record has neither a prompt nor messages.")
        body = {"model": self._model, field: given[field], **_options(given)}
        answer = self._ask("/v1/chat/completions" if is_chat else "/v1/completions", body, until)
        try:
            choice = answer["choices"][0]
            text = choice["message"]["content"] if is_chat else choice["text"]
        except (KeyError, TypeError, IndexError) as error:
            raise PredictionError(f"The server sent what is no answer: {error!r}") from error
        return str(text or "")


def _options(record: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a record's request; whole numbers are such again, and missing ones left out."""
    found = {name: record[name] for name in _OPTIONS if record.get(name) is not None}
    numbers = {name: value for name, value in found.items() if isinstance(value, float)}
    whole = {name: int(value) for name, value in numbers.items() if value.is_integer()}
    missing = {name for name, value in numbers.items() if math.isnan(value)}
    return {name: value for name, value in {**found, **whole}.items() if name not in missing}


def connect(served: ServedModel, seconds: float = _LOAD_SECONDS) -> ServerClient:
    """A client of a server, once the server is ready.

    Args:
        served: The model.
        seconds: How long the server may take to be ready.

    Raises:
        PredictorStartError: If it is not ready by then, speaks neither protocol, or does not have
            the model.
    """
    token = served.token.strip()
    if not (token.isascii() and token.isprintable()):
        raise PredictorStartError("The server's token has characters that no header can carry.")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    opened = httpx.Client(
        base_url=served.url.rstrip("/"), headers=headers, timeout=_CONNECT_SECONDS
    )
    until, pause = time.monotonic() + seconds, 0.1
    try:
        while True:
            try:
                if _get(opened, "/v2") is not None:
                    return InferenceProtocolClient(served, opened)
                return CompletionsClient(served, opened)
            except httpx.TransportError as error:
                if time.monotonic() + pause > until:
                    raise _unusable(served, f"is not ready: {error}") from error
            except (KeyError, TypeError, ValueError) as error:
                raise _unusable(served, f"sent what is no answer: {error!r}") from error
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
    except BaseException:
        opened.close()
        raise


def _unusable(served: ServedModel, why: str) -> PredictorStartError:
    return PredictorStartError(f"The server at {mask(served.url)} {why}")


def _token(opened: httpx.Client) -> str:
    return str(opened.headers.get("Authorization", "")).removeprefix("Bearer ")


def _get(opened: httpx.Client, path: str) -> Any:
    """What is at a path; None if there is nothing.

    Raises:
        PredictorStartError: If the server refuses the request.
        httpx.TransportError: If the server is away, or not ready.
    """
    found = opened.get(path)
    answer = _Answer(found.status_code, found.content, token=_token(opened))
    if answer.status in _NOTHING:
        return None
    if answer.status in _RETRIED:
        raise httpx.TransportError(f"it answers {answer.status}")
    if answer.status != _OK:
        raise PredictorStartError(f"The server answers {answer.status}: {answer.reason}")
    return found.json()


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
