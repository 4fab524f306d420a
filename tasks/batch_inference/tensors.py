"""Tensors in requests and answers of the Open Inference Protocol, version 2.

In JSON, or with numbers as bytes behind the JSON, which is Triton's extension for binary tensor
data: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from modelyard_runtime.frames import Array, objects
from modelyard_runtime.server.refusals import RequestRefused
from modelyard_runtime.server.tensors import NUMBERS, TEXT, from_bytes

from serving.server_http import ServerAnswer
from tasks.batch_inference.server_client import JSON_HEADERS, encode_json

# The extension, as a server announces it.
BINARY = "binary_tensor_data"

_JSON_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class InputTensor:
    """An input of a request.

    Attributes:
        name: Its name.
        datatype: The protocol's type.
        values: Numbers of that type, or objects that are texts.
    """

    name: str
    datatype: str
    values: Array


def encode(tensors: Iterable[InputTensor], *, is_binary: bool) -> tuple[bytes, Mapping[str, str]]:
    """Body and headers of a request.

    Args:
        tensors: Its inputs.
        is_binary: Whether numbers are sent as bytes, and all outputs asked for as such. Texts are
            few bytes more in JSON.

    Raises:
        PredictionError: If there is a text that JSON has not.
    """
    inputs, pieces = [], []
    for one in tensors:
        described: dict[str, Any] = {
            "name": one.name, "shape": one.values.shape, "datatype": one.datatype
        }  # fmt: skip
        if is_binary and one.datatype != TEXT:
            pieces.append(one.values.astype(NUMBERS[one.datatype], copy=False).tobytes())
            described["parameters"] = {"binary_data_size": len(pieces[-1])}
        else:
            described["data"] = one.values.ravel().tolist()
        inputs.append(described)
    body: dict[str, Any] = {"inputs": inputs}
    if not is_binary:
        return encode_json(body), JSON_HEADERS
    document = encode_json({**body, "parameters": {"binary_data_output": True}})
    headers = {"Content-Type": "application/octet-stream", _JSON_LENGTH: str(len(document))}
    return b"".join([document, *pieces]), headers


def decode(answer: ServerAnswer) -> dict[str, Array]:
    """The outputs of an answer by their names, whichever of them are bytes.

    Raises:
        KeyError, TypeError, ValueError: If it is not one of the protocol.
    """
    length = answer.headers.get(_JSON_LENGTH.lower())
    end = len(answer.data) if length is None else int(length)
    if not 0 <= end <= len(answer.data):
        raise ValueError(f"its JSON has {end} of {len(answer.data)} bytes")
    document = ServerAnswer(answer.status, answer.data[:end]).parsed()
    rest, found = memoryview(answer.data)[end:], {}
    for one in document["outputs"]:
        size = (one.get("parameters") or {}).get("binary_data_size")
        if size is None:
            found[str(one["name"])] = _from_json(one)
            continue
        if not 0 <= size <= len(rest):
            raise ValueError(f"{one['name']} has {size} of {len(rest)} bytes")
        found[str(one["name"])] = _from_bytes(one, rest[:size])
        rest = rest[size:]
    if len(rest):
        raise ValueError(f"{len(rest)} bytes are none of its outputs'")
    return found


def _from_json(tensor: Mapping[str, Any]) -> Array:
    if tensor["datatype"] == TEXT:
        return objects(list(tensor["data"])).reshape(tensor["shape"])
    return np.array(tensor["data"], dtype=NUMBERS[tensor["datatype"]]).reshape(tensor["shape"])


def _from_bytes(tensor: Mapping[str, Any], data: memoryview) -> Array:
    if tensor["datatype"] != TEXT:
        return np.frombuffer(data, NUMBERS[tensor["datatype"]]).reshape(tensor["shape"])
    try:
        return from_bytes(data, TEXT, tuple(tensor["shape"]), str(tensor["name"]))
    except RequestRefused as refusal:
        raise ValueError(refusal.message) from refusal
