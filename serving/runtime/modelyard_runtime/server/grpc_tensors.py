"""Requests and answers of the Open Inference Protocol's gRPC.

Values are in ``contents``, in the field of their datatype, or as bytes in ``raw_input_contents``
for all inputs; the answer has them as the request does. The bytes are those of the binary
extension, see :mod:`modelyard_runtime.server.tensors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelyard_runtime.frames import Array, Columns
from modelyard_runtime.server import tensors
from modelyard_runtime.server.grpc_messages import message
from modelyard_runtime.server.open_inference import InferRequest, WantedOutput, wanted_outputs
from modelyard_runtime.server.refusals import bad

_Response = message("ModelInferResponse")

# Where contents have the values of a datatype; others are only bytes.
_FIELDS: Mapping[str, str] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents", "INT16": "int_contents",
    "INT32": "int_contents", "INT64": "int64_contents",
    "UINT8": "uint_contents", "UINT16": "uint_contents",
    "UINT32": "uint_contents", "UINT64": "uint64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents",
    tensors.TEXT: "bytes_contents",
}  # fmt: skip


def read(request: Any) -> InferRequest:
    """The request in a ``ModelInferRequest``.

    Raises:
        RequestRefused: If it is malformed.
    """
    outputs = tuple(WantedOutput(one.name) for one in request.outputs)
    if len({one.name for one in outputs}) != len(outputs):
        raise bad("An output is asked for twice.")
    is_raw = len(request.raw_input_contents) > 0
    return InferRequest(_inputs(request), request.id, outputs, binary=is_raw)


def _inputs(request: Any) -> dict[str, Array]:
    given, raw = request.inputs, request.raw_input_contents
    if not given:
        raise bad("The request has no inputs: give tensors.")
    if raw and len(raw) != len(given):
        raise bad(
            f"There are {len(given)} inputs, and raw_input_contents has {len(raw)}: give the "
            "bytes of each."
        )
    found: dict[str, Array] = {}
    for index, one in enumerate(given):
        name = one.name
        if not name:
            raise bad(f"The input {index} has no name.")
        if name in found:
            raise bad(f"There are two inputs {name}.")
        shape = tensors.shape_of(list(one.shape), name)
        datatype = tensors.datatype_of(one.datatype, name)
        if not raw:
            found[name] = _of_contents(one.contents, datatype, shape, name)
        elif one.contents.ListFields():
            raise bad(f"The input {name} has contents and raw_input_contents: give one of them.")
        else:
            found[name] = tensors.from_bytes(memoryview(raw[index]), datatype, shape, name)
    return found


def _of_contents(contents: Any, datatype: str, shape: tuple[int, ...], name: str) -> Array:
    field = _FIELDS.get(datatype)
    if field is None:
        raise bad(f"The input {name} is {datatype}: give its bytes in raw_input_contents.")
    others = [one.name for one, _ in contents.ListFields() if one.name != field]
    if others:
        raise bad(f"The input {name} is {datatype} and has {others[0]}: give {field}.")
    return tensors.from_values(getattr(contents, field), datatype, shape, name)


def write(request: InferRequest, outputs: Columns, name: str, version: str) -> Any:
    """The ``ModelInferResponse`` to a request.

    Args:
        request: The request.
        outputs: The model's outputs by name.
        name: The model's name.
        version: Its version.

    Raises:
        RequestRefused: If an output is unknown.
    """
    response = _Response(model_name=name, model_version=version, id=request.id)
    found = [(one.name, array) for one, array in wanted_outputs(request, outputs)]
    datatypes = [tensors.datatype(array) for _, array in found]
    is_raw = request.binary or not _FIELDS.keys() >= set(datatypes)
    for (output, array), datatype in zip(found, datatypes, strict=True):
        tensor = response.outputs.add(name=output, datatype=datatype, shape=array.shape)
        if is_raw:
            response.raw_output_contents.append(tensors.to_bytes(array))
        else:
            getattr(tensor.contents, _FIELDS[datatype]).extend(_values(array))
    return response


def _values(array: Array) -> list[Any]:
    values = array.ravel().tolist()
    if array.dtype == object:
        return list(map(tensors.text_bytes, values))
    return list(values)
