"""Records of the input beside what was predicted for them, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from modelyard_runtime.frames import Array, Columns, objects
from modelyard_runtime.records import column

from infra.errors import BadInputError
from infra.suggestions import did_you_mean
from tasks.batch_inference import csv_columns, reading, splitting
from tasks.batch_inference.reading import BadRecord
from tasks.evaluation import result_lines
from tasks.evaluation.evaluation_request import Evaluation
from tasks.evaluation.result_lines import ABSENT, Predicted, ResultLines

_PART_BYTES = 32 * 2**20
_BATCH = 20_000


@dataclass(frozen=True)
class JoinedBatch:
    """Records in their order.

    Attributes:
        rows: Their numbers in the file.
        targets: Their true values as they are written; None where one is missing.
        slices: Their values of the field to slice by; None if there is none.
        is_predicted: Whether there is a prediction.
        predictions: The model's answers, of those that are predicted alone.
        probabilities: Their classes' probabilities likewise; None if the model has none.
        fault: Why they are no records; "" if they are. One that is not comes alone.
    """

    rows: Array
    targets: Array
    slices: Array | None
    is_predicted: Array
    predictions: Array
    probabilities: Array | None
    fault: str = ""


def check_fields(path: Path, name: str, request: Evaluation) -> None:
    """Refuse a file whose first record lacks the target, or the field to slice by.

    Raises:
        BadInputError: ``TargetMissing`` or ``SliceFieldMissing``; ``InputMalformed``, if it is
            not of its format.
        OSError: If it cannot be read.
    """
    try:
        first = _first_records(path, request.input_format, 1, 1)
    except ValueError as error:
        raise BadInputError(
            f"input_uri: {name} cannot be read as {request.input_format}: {error}.",
            "Check input_format, or take the file away.",
            code="InputMalformed",
        ) from error
    fields = None if first is None else list(first)
    wanted = {request.target_field: "TargetMissing", request.slice_field: "SliceFieldMissing"}
    for field, code in wanted.items():
        if fields is not None and field and field not in fields:
            shown = ", ".join(map(repr, fields[:20]))
            raise BadInputError(
                f"The first record of {name} has no field {field!r}; it has {shown or 'none'}.",
                f"{did_you_mean(field, fields)} Check target_field and slice_field; CSV needs the "
                "names of columns in its first line.".lstrip(),
                code=code,
            )


def first_values(path: Path, field: str, request: Evaluation) -> Array:
    """A field's values in the first of a file's records; none if they lack it.

    Raises:
        OSError: If it cannot be read.
    """
    first = _first_records(path, request.input_format, _BATCH, _PART_BYTES) or {}
    return first.get(field, objects([]))


def _first_records(path: Path, input_format: str, most: int, length: int) -> Columns | None:
    """The first ``most`` records, of about ``length`` bytes; None if none can be read."""
    part = next(splitting.split(path, input_format, length), None)
    if part is None:
        return None
    for one in reading.read(path, input_format, part, most):
        if not isinstance(one, BadRecord):
            return one.columns
    return None


def first_outputs(results: Path) -> list[str] | None:
    """The outputs that the first result of a file has; None if there is none, or it is damaged.

    Raises:
        OSError: If it cannot be read.
    """
    with results.open("rb") as file:
        line = file.readline()
    try:
        found = result_lines.parse(line)
    except (ValueError, RecursionError):
        return None
    return [name for name in found if name != "row"] if isinstance(found, dict) else None


def read(path: Path, results: Path, name: str, request: Evaluation) -> Iterator[JoinedBatch]:
    """The records of a file beside their results, in its order.

    Args:
        path: The input file.
        results: The output file of the batch inference for it.
        name: The input file's name.
        request: The evaluation.

    Raises:
        RunFailedError: With the code ``ResultsDamaged``, if the results are none of this input.
        OSError: If a file cannot be read.
    """
    found = ResultLines(results, name, request)
    raw, only = _raw_field(request), {request.target_field, request.slice_field}
    try:
        for part in splitting.split(path, request.input_format, _PART_BYTES):
            for one in reading.read(path, request.input_format, part, _BATCH, raw, only=only):
                if isinstance(one, BadRecord):  # may come before records that precede it
                    nothing = Predicted([], [], [])
                    unread = _joined(np.array([one.row]), {}, nothing, request)
                    yield replace(unread, fault=one.reason)
                    continue
                columns = dict(one.columns)
                if one.keys is not None:
                    columns[raw] = objects(_values(one.keys, request))
                predicted = found.of(one.rows)
                yield _joined(np.asarray(one.rows), columns, predicted, request)
        if not found.is_read:
            raise result_lines.other_rows(name)
    finally:
        found.close()


def _raw_field(request: Evaluation) -> str:
    """The target, where a class is called what a cell of CSV without a value says; else ""."""
    has_missing = not csv_columns.MISSING_CELLS.isdisjoint(map(str.strip, request.class_names))
    return request.target_field if request.input_format == "csv" and has_missing else ""


def _values(cells: Sequence[Any], request: Evaluation) -> list[Any]:
    """Cells of CSV as they are written; None for one that has no value and names no class."""
    missing = csv_columns.MISSING_CELLS - set(map(str.strip, request.class_names))
    return [None if cell in missing else cell for cell in cells]


def _joined(
    rows: Array,
    columns: dict[str, Array],
    results: Predicted,
    request: Evaluation,
) -> JoinedBatch:
    is_all = len(results.rows) == len(rows)
    is_predicted = np.ones(len(rows), bool) if is_all else np.isin(rows, results.rows)
    missing = objects([None] * len(rows))
    slices = columns.get(request.slice_field, missing) if request.slice_field else None
    probabilities = None
    if any(one is not ABSENT for one in results.probabilities):
        probabilities = column([None if one is ABSENT else one for one in results.probabilities])
    return JoinedBatch(
        rows,
        columns.get(request.target_field, missing),
        slices,
        is_predicted,
        column(results.predictions),
        probabilities,
    )
