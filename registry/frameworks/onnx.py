"""ONNX: one model file."""

from __future__ import annotations

from registry.frameworks import protobuf
from registry.frameworks.layout import Layout, only, refused

_ONNX = ".onnx"

# Fields of ModelProto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto) that a model has.
_REQUIRED = {1: "ir_version", 7: "graph", 8: "opset_import"}


def check(layout: Layout, name: str) -> None:
    """Refuse what is not an ONNX model.

    Raises:
        BadInputError: ``OnnxMissing``, ``OnnxAmbiguous``, ``OnnxMalformed``.
    """
    check_model(layout, only(layout, layout.top(_ONNX), suffixes=(_ONNX,), kind="Onnx"))


def check_model(layout: Layout, file: str) -> None:
    """Look at the outermost fields of one file, to its end."""
    try:
        with layout.open(file) as opened:
            found = set(protobuf.fields(opened, layout.sizes[file]))
        missing = [name for number, name in _REQUIRED.items() if number not in found]
        reason = f"it has no {' and no '.join(missing)}" if missing else ""
    except protobuf.MalformedError as error:
        reason = str(error)
    if reason:
        raise refused(
            "OnnxMalformed",
            f"{file} at {layout.uri} is not an ONNX model: {reason}.",
            "Export or copy it again.",
        )
