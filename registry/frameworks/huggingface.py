"""Hugging Face: safetensors with their configuration, or the id of a model on the hub."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from registry.frameworks.layout import Layout, refused
from registry.models.model_parameters import Scalar, variable

_SAFE = ".safetensors"
_INDEX = ".safetensors.index.json"
# Formats that run code when they are loaded, or that the runtime does not take.
_UNSAFE = (
    ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".pkl", ".pickle", ".joblib", ".ot",
    ".gguf",
)  # fmt: skip
_CONFIG = "config.json"

# https://huggingface.co/docs/safetensors: eight bytes of length, a header in JSON, the tensors.
_LENGTH_BYTES = 8
_LONGEST_HEADER = 100_000_000

_MODEL_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(?:/[A-Za-z0-9][\w.-]{0,95})?")
_TASKS = (
    "sequence_classification", "token_classification", "fill_mask", "text_generation",
    "text2text_generation",
)  # fmt: skip


def check(layout: Layout, name: str) -> None:
    """Refuse weights that are not safetensors, or broken, and a model without configuration.

    Raises:
        BadInputError: ``WeightsForbidden``, ``SafetensorsMissing``, ``SafetensorsMalformed``,
            ``ConfigMissing``, ``ConfigMalformed``.
    """
    unsafe = sorted(file for file in layout.sizes if file.lower().endswith(_UNSAFE))
    if unsafe:
        raise refused(
            "WeightsForbidden",
            f"There are files other than {_SAFE} with weights at {layout.uri}: "
            f"{', '.join(unsafe[:5])}.",
            "Remove them; save the model with save_pretrained(..., safe_serialization=True).",
        )
    weights = layout.top(_SAFE)
    if not weights:
        raise refused(
            "SafetensorsMissing",
            f"There is no {_SAFE} file at {layout.uri}.",
            layout.elsewhere(_SAFE)
            or "Save the model with save_pretrained(..., safe_serialization=True).",
        )
    if _CONFIG not in layout.sizes:
        raise refused(
            "ConfigMissing",
            f"There is no {_CONFIG} at {layout.uri}.",
            "Save the model with save_pretrained, which writes it.",
        )
    if not isinstance(_json(layout, _CONFIG), dict):
        raise refused(
            "ConfigMalformed", f"{_CONFIG} at {layout.uri} is not a JSON object.", "Save it again."
        )
    _check_shards(layout)
    for file in weights:
        _check_weights(layout, file)


def model_id(parameters: Mapping[str, Scalar]) -> str | None:
    """The hub's id among the parameters, however its name is spelled."""
    return next(
        (str(value) for key, value in parameters.items() if variable(key) == "MODEL_ID"), None
    )


def check_parameters(parameters: Mapping[str, Scalar]) -> None:
    """Refuse an id that cannot be one, and a task that the runtime does not know.

    Raises:
        BadInputError: ``ModelIdInvalid``, ``TaskUnsupported``.
    """
    found = model_id(parameters)
    if found is not None and not _MODEL_ID.fullmatch(found):
        raise refused(
            "ModelIdInvalid",
            f"{found[:100]!r} is not the id of a Hugging Face model.",
            "Write OWNER/MODEL as in the address of the model's page.",
        )
    task = next((value for key, value in parameters.items() if variable(key) == "TASK"), None)
    if task is not None and str(task).replace("-", "_") not in _TASKS:
        raise refused(
            "TaskUnsupported",
            f"The Hugging Face runtime has no task {str(task)[:100]!r}.",
            f"It has {', '.join(_TASKS)}; others can be served as TensorFlow or PyTorch models.",
        )


def _json(layout: Layout, file: str) -> Any:
    try:
        return json.loads(layout.text(file))
    except (ValueError, RecursionError):
        return None


def _check_shards(layout: Layout) -> None:
    """Every file that an index of shards names is there."""
    for index in layout.top(_INDEX):
        found = _json(layout, index)
        weights = found.get("weight_map") if isinstance(found, dict) else None
        if not isinstance(weights, dict):
            raise _malformed(layout, index, "it has no weight_map")
        missing = sorted({str(file) for file in weights.values()} - layout.sizes.keys())
        if missing:
            raise refused(
                "SafetensorsMissing",
                f"{index} at {layout.uri} names files that are not there: "
                f"{', '.join(missing[:5])}.",
                "Copy all of them.",
            )


def _check_weights(layout: Layout, file: str) -> None:
    size = layout.sizes[file]
    with layout.open(file) as opened:
        length = int.from_bytes(opened.read(_LENGTH_BYTES), "little")
        room = size - _LENGTH_BYTES - length
        if not 0 < length <= _LONGEST_HEADER or room < 0:
            raise _malformed(layout, file, f"its header of {length} bytes does not fit")
        header = opened.read(length)
    try:
        tensors = json.loads(header)
        ends = [_end(tensor) for key, tensor in tensors.items() if key != "__metadata__"]
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise _malformed(layout, file, "its header is not a table of tensors") from error
    if max(ends, default=0) != room:
        raise _malformed(
            layout, file, f"its tensors need {max(ends, default=0)} bytes, and it has {room}"
        )


def _end(tensor: dict[str, Any]) -> int:
    dtype, shape, (begin, end) = tensor["dtype"], tensor["shape"], tensor["data_offsets"]
    numbers = [begin, end, *shape]
    if any(type(number) is not int or number < 0 for number in numbers) or begin > end:
        raise ValueError("no offsets or no shape")  # True is an int by isinstance
    if not isinstance(dtype, str) or not isinstance(shape, list):
        raise TypeError("no type or no shape")
    return int(end)


def _malformed(layout: Layout, file: str, reason: str) -> Exception:
    return refused(
        "SafetensorsMalformed",
        f"{file} at {layout.uri} is broken: {reason}.",
        "Save or copy it again.",
    )
