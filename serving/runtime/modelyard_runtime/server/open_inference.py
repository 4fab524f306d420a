"""The Open Inference Protocol, version 2: its requests and answers.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from modelyard_runtime import __version__
from modelyard_runtime.frames import Array, Columns
from modelyard_runtime.server import long_arrays, tensors
from modelyard_runtime.server.long_arrays import LongArray
from modelyard_runtime.server.refusals import bad, shown

HEADER_LENGTH = "inference-header-content-length"
BINARY = "application/octet-stream"
_EXTENSIONS = ("binary_tensor_data",)
_SIZE, _WANTED, _ALL_WANTED = "binary_data_size", "binary_data", "binary_data_output"
_PLAIN = {str, int, float, bool}


@dataclass(frozen=True)
class WantedOutput:
    """An output that a request asks for.

    Attributes:
        name: Its name.
        binary: Whether as bytes; None if the request says it for all.
    """

    name: str
    binary: bool | None = None


@dataclass(frozen=True)
class InferRequest:
    """A request.

    Attributes:
        inputs: Tensors by name.
        id: What the answer carries back; None if the request has none.
        outputs: What is asked for, in its order; all outputs if empty.
        binary: Whether outputs are wanted as bytes.
        parameters: Its parameters.
    """

    inputs: Columns
    id: str | None = None
    outputs: tuple[WantedOutput, ...] = ()
    binary: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)


def read(body: bytes, header_length: str | None) -> InferRequest:
    """The request in a body.

    Args:
        body: The body.
        header_length: The header ``Inference-Header-Content-Length``: how many bytes of the body
            are JSON; those of the tensors follow. None if all of it is.

    Raises:
        RequestRefused: If it is malformed.
    """
    head, tail = _parts(body, header_length)
    found, arrays = mapping(head, "data")
    if arrays:
        with contextlib.suppress(orjson.JSONDecodeError):
            request = _request(found, arrays, tail)
            if not arrays:
                return request
        found, _ = mapping(head)
    return _request(found, {}, tail)


def _request(
    found: Mapping[str, Any], arrays: dict[str, LongArray], tail: memoryview
) -> InferRequest:
    """The request of an object; its inputs take what they have of ``arrays``."""
    identifier = found.get("id")
    if identifier is not None and type(identifier) is not str:
        raise bad(f"The id is {shown(identifier)}: give a text.")
    parameters = _parameters(found, "The request")
    inputs, used = _inputs(found.get("inputs"), arrays, tail)
    if used != len(tail):
        raise bad(f"{len(tail) - used} bytes follow the last tensor.")
    return InferRequest(
        inputs, identifier, _outputs(found.get("outputs")),
        bool(_flag(parameters, _ALL_WANTED, "The request")), parameters,
    )  # fmt: skip


def mapping(
    body: bytes | memoryview, key: str = ""
) -> tuple[dict[str, Any], dict[str, LongArray]]:
    """The object in JSON that a body is, and its long arrays.

    Args:
        body: The body.
        key: Of the fields whose long arrays are taken out, see :mod:`.long_arrays`; "" for none.

    Raises:
        RequestRefused: If it is none.
    """
    if not body:
        raise bad("The request has no body: send an object in JSON.")
    try:
        found, arrays = long_arrays.take_out(body, key) if key else (orjson.loads(body), {})
    except orjson.JSONDecodeError as error:
        raise bad(f"The body is no JSON: {error}.") from None
    if type(found) is not dict:
        raise bad(f"The body is {shown(found)}: send an object in JSON.")
    return found, arrays


def _parts(body: bytes, header_length: str | None) -> tuple[memoryview, memoryview]:
    view = memoryview(body)
    if header_length is None:
        return view, view[len(view) :]
    if not (header_length.isascii() and header_length.isdigit()) or len(header_length) > 19:
        raise bad(
            f"Inference-Header-Content-Length is {shown(header_length)}: give the number of bytes "
            "that are JSON."
        )
    length = int(header_length)
    if length > len(view):
        raise bad(
            f"Inference-Header-Content-Length is {length}, and the body has {len(view)} bytes."
        )
    return view[:length], view[length:]


def _parameters(holder: Mapping[str, Any], whose: str) -> Mapping[str, Any]:
    found = holder.get("parameters")
    if found is None:
        return {}
    if type(found) is not dict:
        raise bad(f"{whose} has the parameters {shown(found)}: give an object.")
    for name, value in found.items():
        if type(value) not in _PLAIN:
            raise bad(f"{whose} has the parameter {name} {shown(value)}: give a plain value.")
    return found


def _flag(parameters: Mapping[str, Any], name: str, whose: str) -> bool | None:
    found = parameters.get(name)
    if found is not None and type(found) is not bool:
        raise bad(f"{whose} has the parameter {name} {shown(found)}: give true or false.")
    return found


def _inputs(
    given: Any, arrays: dict[str, LongArray], tail: memoryview
) -> tuple[dict[str, Array], int]:
    """The tensors by name, and how many bytes of the tail they took."""
    if type(given) is not list or not given:
        raise bad(f"inputs is {shown(given)}: give a list of tensors.")
    found: dict[str, Array] = {}
    at = 0
    for one in given:
        name = _name(one, "An input")
        if name in found:
            raise bad(f"There are two inputs {name}.")
        if "shape" not in one or "datatype" not in one:
            raise bad(f"The input {name} needs a shape and a datatype.")
        shape = tensors.shape_of(one["shape"], name)
        datatype = tensors.datatype_of(one["datatype"], name)
        size = _size(_parameters(one, f"The input {name}"), name)
        if size is None:
            if "data" not in one:
                raise bad(f"The input {name} has no data.")
            data = one["data"]
            if type(data) is str:
                data = arrays.pop(data, data)
            found[name] = tensors.from_json(data, datatype, shape, name)
            continue
        if "data" in one:
            raise bad(f"The input {name} has data and {_SIZE}: give one of them.")
        if size > len(tail) - at:
            raise bad(f"The input {name} has {_SIZE} {size}, and {len(tail) - at} bytes are left.")
        found[name] = tensors.from_bytes(tail[at : at + size], datatype, shape, name)
        at += size
    return found, at


def _size(parameters: Mapping[str, Any], name: str) -> int | None:
    found = parameters.get(_SIZE)
    if found is not None and (type(found) is not int or found < 0):
        raise bad(f"The input {name} has {_SIZE} {shown(found)}: give a number of bytes.")
    return found


def _name(given: Any, what: str) -> str:
    if type(given) is not dict:
        raise bad(f"{what} is {shown(given)}: give an object.")
    name = given.get("name")
    if type(name) is not str or not name:
        raise bad(f"{what} has the name {shown(name)}: give a text.")
    return name


def _outputs(given: Any) -> tuple[WantedOutput, ...]:
    if given is None:
        return ()
    if type(given) is not list:
        raise bad(f"outputs is {shown(given)}: give a list.")
    found = []
    for one in given:
        name = _name(one, "An output")
        whose = f"The output {name}"
        found.append(WantedOutput(name, _flag(_parameters(one, whose), _WANTED, whose)))
    if len({one.name for one in found}) != len(found):
        raise bad("An output is asked for twice.")
    return tuple(found)


@dataclass(frozen=True)
class Answer:
    """The body of an answer.

    Attributes:
        body: Its bytes.
        content_type: Its type.
        headers: Further headers.
    """

    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


def write(request: InferRequest, outputs: Columns, name: str, version: str) -> Answer:
    """The answer to a request.

    Args:
        request: The request.
        outputs: The model's outputs by name.
        name: The model's name.
        version: Its version.

    Raises:
        RequestRefused: If an output is unknown, or has no JSON.
    """
    described = []
    parts: list[bytes] = []
    for one, array in wanted_outputs(request, outputs):
        head: dict[str, Any] = {
            "name": one.name,
            "datatype": tensors.datatype(array),
            "shape": list(array.shape),
        }
        if request.binary if one.binary is None else one.binary:
            parts.append(tensors.to_bytes(array))
            head["parameters"] = {_SIZE: len(parts[-1])}
        else:
            head["data"] = tensors.to_json(array, one.name)
        described.append(head)
    identified = {} if request.id is None else {"id": request.id}
    answer = {"model_name": name, "model_version": version, **identified, "outputs": described}
    body = tensors.to_body(answer)
    if not parts:
        return Answer(body)
    return Answer(b"".join([body, *parts]), BINARY, {HEADER_LENGTH: str(len(body))})


def wanted_outputs(request: InferRequest, outputs: Columns) -> list[tuple[WantedOutput, Array]]:
    """The outputs that a request asks for, as tensors, in its order.

    Raises:
        RequestRefused: If one is unknown.
    """
    wanted: Sequence[WantedOutput] = request.outputs or [WantedOutput(one) for one in outputs]
    for one in wanted:
        if one.name not in outputs:
            raise bad(f"The model has no output {one.name}; it has {', '.join(outputs)}.")
    return [(one, tensors.as_output(outputs[one.name])) for one in wanted]


def server_metadata() -> dict[str, Any]:
    """The metadata of the server."""
    return {"name": "modelyard-runtime", "version": __version__, "extensions": list(_EXTENSIONS)}


def described(name: str, versions: Sequence[str], platform: str,
              inputs: Sequence[tensors.TensorSpec],
              outputs: Sequence[tensors.TensorSpec]) -> dict[str, Any]:  # fmt: skip
    """The metadata of a model."""
    return {
        "name": name,
        "versions": list(versions),
        "platform": platform,
        "inputs": [one.to_json() for one in inputs],
        "outputs": [one.to_json() for one in outputs],
    }
