"""The messages of the Open Inference Protocol's gRPC.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_grpc.md

They are built here, in a pool of their own: code that a compiler generates asks for a protobuf as
new as the compiler, and registers its messages for the whole process, where those of the same
names that the code of a model may import (tritonclient's, say) would be refused as duplicates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"

# The fields of each message, as the protocol's file has them: a label where there is one, a type,
# a name and a number. A "map" has texts as keys, and a "oneof" is one of the parameter's choices.
_MESSAGES: Mapping[str, tuple[str, ...]] = {
    "ServerLiveRequest": (),
    "ServerLiveResponse": ("bool live 1",),
    "ServerReadyRequest": (),
    "ServerReadyResponse": ("bool ready 1",),
    "ModelReadyRequest": ("string name 1", "string version 2"),
    "ModelReadyResponse": ("bool ready 1",),
    "ServerMetadataRequest": (),
    "ServerMetadataResponse": (
        "string name 1", "string version 2", "repeated string extensions 3",
    ),
    "ModelMetadataRequest": ("string name 1", "string version 2"),
    "ModelMetadataResponse": (
        "string name 1", "repeated string versions 2", "string platform 3",
        "repeated ModelMetadataResponse.TensorMetadata inputs 4",
        "repeated ModelMetadataResponse.TensorMetadata outputs 5",
    ),
    "ModelMetadataResponse.TensorMetadata": (
        "string name 1", "string datatype 2", "repeated int64 shape 3",
    ),
    "ModelInferRequest": (
        "string model_name 1", "string model_version 2", "string id 3",
        "map InferParameter parameters 4",
        "repeated ModelInferRequest.InferInputTensor inputs 5",
        "repeated ModelInferRequest.InferRequestedOutputTensor outputs 6",
        "repeated bytes raw_input_contents 7",
    ),
    "ModelInferRequest.InferInputTensor": (
        "string name 1", "string datatype 2", "repeated int64 shape 3",
        "map InferParameter parameters 4", "InferTensorContents contents 5",
    ),
    "ModelInferRequest.InferRequestedOutputTensor": (
        "string name 1", "map InferParameter parameters 2",
    ),
    "ModelInferResponse": (
        "string model_name 1", "string model_version 2", "string id 3",
        "map InferParameter parameters 4",
        "repeated ModelInferResponse.InferOutputTensor outputs 5",
        "repeated bytes raw_output_contents 6",
    ),
    "ModelInferResponse.InferOutputTensor": (
        "string name 1", "string datatype 2", "repeated int64 shape 3",
        "map InferParameter parameters 4", "InferTensorContents contents 5",
    ),
    "InferParameter": (
        "oneof bool bool_param 1", "oneof int64 int64_param 2", "oneof string string_param 3",
        "oneof double double_param 4", "oneof uint64 uint64_param 5",
    ),
    "InferTensorContents": (
        "repeated bool bool_contents 1", "repeated int32 int_contents 2",
        "repeated int64 int64_contents 3", "repeated uint32 uint_contents 4",
        "repeated uint64 uint64_contents 5", "repeated float fp32_contents 6",
        "repeated double fp64_contents 7", "repeated bytes bytes_contents 8",
    ),
}  # fmt: skip

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {"bool", "int32", "int64", "uint32", "uint64", "float", "double", "string", "bytes"}


def _file() -> Any:
    """The descriptor of the protocol's file."""
    found = descriptor_pb2.FileDescriptorProto(
        name="modelyard_runtime/open_inference.proto", package=PACKAGE, syntax="proto3"
    )
    made: dict[str, Any] = {}
    for path, fields in _MESSAGES.items():
        outer, _, name = path.rpartition(".")
        made[path] = (made[outer].nested_type if outer else found.message_type).add(name=name)
        for one in fields:
            _add_field(made[path], path, *one.split())
    return found


def _add_field(message: Any, path: str, *words: str) -> None:
    *labels, kind, name, number = words
    field = message.field.add(name=name, number=int(number), label=_Field.LABEL_OPTIONAL)
    if labels == ["map"]:
        entry = message.nested_type.add(name=f"{name.title()}Entry")
        entry.options.map_entry = True
        _add_field(entry, path, "string", "key", "1")
        _add_field(entry, path, kind, "value", "2")
        kind = f"{path}.{entry.name}"
    if labels in (["map"], ["repeated"]):
        field.label = _Field.LABEL_REPEATED
    if labels == ["oneof"]:
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0
    if kind in _SCALARS:
        field.type = _Field.Type.Value(f"TYPE_{kind.upper()}")
    else:
        field.type = _Field.TYPE_MESSAGE
        field.type_name = f".{PACKAGE}.{kind}"


_POOL = descriptor_pool.DescriptorPool()
_POOL.AddSerializedFile(_file().SerializeToString())


def message(name: str) -> Any:
    """The class of a message.

    Args:
        name: Its name in the protocol, such as ``ModelInferRequest``.

    Raises:
        KeyError: If there is no such one.
    """
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))
