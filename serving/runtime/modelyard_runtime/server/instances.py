"""KServe's protocol, version 1, which is TensorFlow Serving's: ``instances`` and ``predictions``.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v1-protocol
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelyard_runtime.frames import Array, Columns
from modelyard_runtime.models.base import PREDICTION, PROBABILITIES
from modelyard_runtime.server.open_inference import mapping
from modelyard_runtime.server.refusals import bad, shown
from modelyard_runtime.server.tensors import to_body


def read(body: bytes) -> list[Any]:
    """The instances in a body: records as JSON has them.

    Raises:
        RequestRefused: If it is malformed.
    """
    found = mapping(body)
    if "instances" not in found:
        raise bad("The body has no instances: give a list of what is to be predicted.")
    instances = found["instances"]
    if type(instances) is not list:
        raise bad(f"instances is {shown(instances)}: give a list.")
    if {} in instances:
        raise bad("An instance is {}: give it fields.")
    return instances


def write(predictions: Sequence[Any]) -> bytes:
    """The body of the answer; NaN becomes null."""
    return to_body({"predictions": list(predictions)})


def predictions(outputs: Columns) -> list[Any]:
    """What each instance is answered with: the prediction, or all outputs where it has others."""
    if PREDICTION in outputs and not set(outputs) - {PREDICTION, PROBABILITIES}:
        return _plain(outputs[PREDICTION])
    names = list(outputs)
    rows = zip(*(_plain(outputs[name]) for name in names), strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows]


def _plain(column: Array) -> list[Any]:
    return list(column.tolist())
