"""A server's side of the extension for binary tensor data, by its text alone.

It refuses what Triton refuses. ``tritonclient`` 2.73 was run against it by hand.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Any

LENGTH = "Inference-Header-Content-Length"
_CODES = {
    "BOOL": "?", "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "UINT8": "B",
    "UINT16": "H", "UINT32": "I", "UINT64": "Q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip


class MalformedError(Exception):
    """A request that is refused."""


def request_of(data: bytes, length: str | None) -> Any:
    """The body in JSON alone that means the same as a request."""
    end = len(data) if length is None else int(length)
    body, rest = json.loads(data[:end]), data[end:]
    for one in body.get("inputs", []):
        size = one.get("parameters", {}).pop("binary_data_size", None)
        if size is None:
            continue
        if "data" in one or size > len(rest):
            raise MalformedError(f"{one['name']} has both, or too few bytes")
        one["data"], rest = _values(one, rest[:size]), rest[size:]
    if rest:
        raise MalformedError(f"{len(rest)} bytes are no input's")
    return body


def _values(one: dict[str, Any], data: bytes) -> list[Any]:
    count = math.prod(one["shape"])
    if one["datatype"] != "BYTES":
        code = f"<{count}{_CODES[one['datatype']]}"
        if struct.calcsize(code) != len(data):
            raise MalformedError(f"{one['name']} has {len(data)} bytes")
        return list(struct.unpack(code, data))
    texts = []
    while data:
        (length,) = struct.unpack_from("<I", data)
        texts.append(data[4 : 4 + length].decode())
        data = data[4 + length :]
    if len(texts) != count:
        raise MalformedError(f"{one['name']} has {len(texts)} texts")
    return texts


def answer_of(content: Any, request: Any) -> tuple[bytes, dict[str, str]]:
    """Body and headers of an answer, with bytes for the outputs that were asked for as such."""
    everything = request.get("parameters", {}).get("binary_data_output", False)
    wanted = {
        one["name"]: one.get("parameters", {}).get("binary_data", everything)
        for one in request.get("outputs", [])
    }
    outputs, pieces = [], []
    for one in content["outputs"]:
        if not wanted.get(one["name"], everything):
            outputs.append(one)
            continue
        pieces.append(_bytes(one))
        bare = {key: value for key, value in one.items() if key != "data"}
        outputs.append({**bare, "parameters": {"binary_data_size": len(pieces[-1])}})
    document = json.dumps({**content, "outputs": outputs}).encode()
    headers = {LENGTH: str(len(document)), "Content-Type": "application/octet-stream"}
    return document + b"".join(pieces), headers if pieces else {}


def _bytes(one: dict[str, Any]) -> bytes:
    if one["datatype"] != "BYTES":
        return struct.pack(f"<{len(one['data'])}{_CODES[one['datatype']]}", *one["data"])
    texts = [text if isinstance(text, bytes) else text.encode() for text in one["data"]]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)
