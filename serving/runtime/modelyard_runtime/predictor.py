"""The predictor: a process that loads a model, and answers frames with frames.

    python -m modelyard_runtime --model-dir DIR

It reads frames from its standard input and answers on its standard output, one at a time and in
their order, until the input ends. The first has the model's ``parameters`` by their names, and the
``arguments`` that user code finds in ``sys.argv``: on the command line every user of the machine
could read them. It is answered when the model is loaded. What the model prints goes to the
standard error.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from modelyard_runtime import frames, predictions
from modelyard_runtime.frames import Columns, Frame, FrameError
from modelyard_runtime.models.base import Model, ModelError
from modelyard_runtime.models.loading import load

_LONGEST_MESSAGE, _LONGEST_TRACEBACK = 4000, 64_000  # characters
_OUT_OF_GPU_MEMORY = "OutOfMemoryError"  # torch's


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the predictor; see the module."""
    parser = argparse.ArgumentParser(prog="modelyard_runtime", description="Predict with a model.")
    parser.add_argument("--model-dir", type=Path, required=True, help="The folder of its files.")
    given = parser.parse_args(arguments)
    requests, answers = _channels()
    first = frames.read(requests)
    if first is None:
        return
    sys.argv[1:] = first.fields.get("arguments", [])
    try:
        model = load(given.model_dir, first.fields.get("parameters", {}))
    except BaseException as error:  # noqa: BLE001 (user code; told to the other side)
        frames.write(answers, Frame({"error": _told(error)}))
        sys.exit(1)
    frames.write(answers, Frame({"ready": True}))
    serve(model, requests, answers)


def serve(model: Model, requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are no more."""
    process = os.getpid()
    while (request := frames.read(requests)) is not None:
        fields = {"id": request.fields.get("id")}
        try:
            columns = _checked(predictions.named(model.infer(request.columns)), request.columns)
            answer = frames.encoded(Frame(fields, columns))
        except FrameError as error:
            refusal = ModelError(f"The model returned what cannot be stored: {error}.")
            answer = frames.encoded(Frame({**fields, "error": _told(refusal)}))
        except BaseException as error:  # noqa: BLE001 (user code; told to the other side)
            answer = frames.encoded(Frame({**fields, "error": _told(error)}))
        if os.getpid() != process:  # a fork of the model's, which has come back from its code
            os._exit(1)
        frames.send(answers, answer)


def _channels() -> tuple[BinaryIO, BinaryIO]:
    """The two streams. What is printed, also by C code, does not get into the second."""
    requests, answers = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    for descriptor in (requests, answers):
        os.set_inheritable(descriptor, False)
    return os.fdopen(requests, "rb"), os.fdopen(answers, "wb")


def _checked(columns: Columns, inputs: Columns) -> Columns:
    """Outputs with one value for each row.

    Raises:
        ModelError: If there are more, or fewer.
    """
    rows = len(next(iter(inputs.values())))
    for name, column in columns.items():
        if not isinstance(column, np.ndarray) or column.ndim == 0 or len(column) != rows:
            if not np.ndim(column):
                raise ModelError(f"The model returned {name} as one value, and none for each row.")
            count = len(column)
            raise ModelError(
                f"The model was given {rows} rows and returned {count} values of {name}."
            )
    return columns


def _told(error: BaseException) -> Mapping[str, Any]:
    """An error for the other side; a ModelError's message says all."""
    if isinstance(error, ModelError):
        return {"message": _cut(str(error), _LONGEST_MESSAGE), "traceback": ""}
    name = type(error).__name__
    try:
        message = f"{name}: {error}" if str(error) else name
        shown = "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001 (user code: the words of its exception)
        message, shown = name, ""
    if isinstance(error, ModuleNotFoundError):
        message += ". Name its package in the requirements.txt among the model's files."
    if isinstance(error, SystemExit):
        message = f"The model called sys.exit({error.code!r})."
    is_out_of_memory = isinstance(error, MemoryError) or name == _OUT_OF_GPU_MEMORY
    if is_out_of_memory:
        message = f"The model ran out of memory: {message}"
    return {
        "message": _cut(message, _LONGEST_MESSAGE),
        "traceback": _cut(shown, _LONGEST_TRACEBACK),
        "is_out_of_memory": is_out_of_memory,
    }


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}..."
