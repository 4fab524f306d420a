"""Tensors in requests and answers of the Open Inference Protocol, version 2.

In JSON, or with numbers as bytes behind the JSON, which is Triton's extension for binary tensor
data: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from modelyard_runtime.frames import Array, objects

from serving.server_http import ServerAnswer
from tasks.batch_inference.server_client import JSON_HEADERS, encode_json

# The extension, as a server announces it.
BINARY = "binary_tensor_data"
TEXT = "BYTES"

# Types of numbers; as bytes they are little-endian, with their rows one after another.
DTYPES: Mapping[str, Any] = {
    name: np.dtype(code)
    for name, code in {
        "BOOL": "?", "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
        "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
        "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
    }.items()
}  # fmt: skip

_JSON_LENGTH = "Inference-Header-Content-Length"
_LENGTH = struct.Struct("<I")


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
            pieces.append(one.values.astype(DTYPES[one.datatype], copy=False).tobytes())
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
    return np.array(tensor["data"], dtype=DTYPES[tensor["datatype"]]).reshape(tensor["shape"])


def _from_bytes(tensor: Mapping[str, Any], data: memoryview) -> Array:
    if tensor["datatype"] != TEXT:
        return np.frombuffer(data, DTYPES[tensor["datatype"]]).reshape(tensor["shape"])
    texts: list[Any] = []
    while len(data):
        if len(data) < _LENGTH.size:
            raise ValueError(f"{tensor['name']} ends within a length")
        length = _LENGTH.unpack_from(data)[0]
        piece = bytes(data[_LENGTH.size : _LENGTH.size + length])
        if len(piece) < length:
            raise ValueError(f"{tensor['name']} ends within a text")
        texts.append(_text(piece))
        data = data[_LENGTH.size + length :]
    if len(texts) != math.prod(tensor["shape"]):
        raise ValueError(f"{tensor['name']} has {len(texts)} texts in the shape {tensor['shape']}")
    return objects(texts).reshape(tensor["shape"])


def _text(piece: bytes) -> Any:
    """A text; bytes that are none, which the record's result cannot hold, as they are."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return piece
