"""KServe's protocol, version 1, which is TensorFlow Serving's: ``instances`` and ``predictions``.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v1-protocol
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from modelyard_runtime.frames import Array, Columns
from modelyard_runtime.models.base import PREDICTION, PROBABILITIES
from modelyard_runtime.predictions import named
from modelyard_runtime.server.open_inference import mapping
from modelyard_runtime.server.refusals import bad, shown
from modelyard_runtime.server.tensors import to_body


def read(body: bytes) -> Iterator[list[Any]]:
    """The instances in a body, records as JSON has them: a list, or several if they are many.

    Raises:
        RequestRefused: If it is malformed.
    """
    found, arrays = mapping(body, "instances")
    word = found.get("instances")
    # What is predicted cannot be taken back: nothing is handed out until all of it is read once.
    if type(word) is str and list(arrays) == [word] and arrays[word].is_json():
        yield from map(_checked, arrays[word])
        return
    if arrays:  # it is not where the only one seems to be, or ends elsewhere
        found, _ = mapping(body)
    if "instances" not in found:
        raise bad("The body has no instances: give a list of what is to be predicted.")
    yield _checked(found["instances"])


def _checked(instances: Any) -> list[Any]:
    if type(instances) is not list:
        raise bad(f"instances is {shown(instances)}: give a list.")
    if {} in instances:
        raise bad("An instance is {}: give it fields.")
    return instances


def write(predictions: list[Any]) -> bytes:
    """The JSON of predictions; NaN becomes null."""
    return to_body(predictions)


def join(written: Sequence[bytes]) -> bytes:
    """The body of the answer, of predictions that are :func:`write`-n."""
    return b"".join([b'{"predictions":[', b",".join(one[1:-1] for one in written), b"]}"])


def predictions(outputs: Columns) -> list[Any]:
    """What each instance is answered with: the prediction, or all outputs where it has others."""
    outputs = named(outputs)
    if PREDICTION in outputs and not set(outputs) - {PREDICTION, PROBABILITIES}:
        return _plain(outputs[PREDICTION])
    names = list(outputs)
    rows = zip(*(_plain(outputs[name]) for name in names), strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows]


def _plain(column: Array) -> list[Any]:
    return list(column.tolist())
