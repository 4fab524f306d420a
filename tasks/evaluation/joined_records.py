"""Records of the input beside what was predicted for them, batch by batch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
from modelyard_runtime.frames import Array, Columns, objects
from modelyard_runtime.records import column

from infra.errors import BadInputError, RunFailedError
from infra.suggestions import did_you_mean
from registry.flow_kinds import EVALUATE
from tasks.batch_inference import csv_columns, reading, splitting
from tasks.batch_inference.reading import BadRecord
from tasks.evaluation.evaluation_request import Evaluation

_ABSENT = object()
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
        found = _parsed(line)
    except (ValueError, RecursionError):
        return None
    return [name for name in found if name != "row"] if isinstance(found, dict) else None


def _parsed(line: bytes) -> Any:
    """What a result says; some have what Python writes and orjson refuses, lone surrogates."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return json.loads(line)


class _Predicted(NamedTuple):
    """What was predicted for a row; its probabilities are ``_ABSENT`` if the model has none."""

    row: int
    prediction: Any
    probabilities: Any


class _Results:
    """The output file of a batch inference, read in the order of its rows."""

    def __init__(self, path: Path, name: str, request: Evaluation) -> None:
        self._file = path.open("rb")
        self._name = name
        self._fields = (request.prediction_field, request.probabilities_field)
        self._next = self._read()
        self._ahead: dict[int, _Predicted] = {}

    def close(self) -> None:
        self._file.close()

    @property
    def is_read(self) -> bool:
        """Whether nothing is left."""
        return self._next is None and not self._ahead

    def of(self, rows: Sequence[int]) -> list[_Predicted]:
        """What was predicted for ascending rows, none of which was asked for yet.

        Raises:
            RunFailedError: With the code ``ResultsDamaged``.
        """
        while self._next is not None and self._next.row <= rows[-1]:
            if self._next.row in self._ahead:
                raise _other_rows(self._name)
            self._ahead[self._next.row] = self._next
            self._next = self._read()
        return [self._ahead.pop(row) for row in rows if row in self._ahead]

    def _read(self) -> _Predicted | None:
        line = self._file.readline()
        if not line:
            return None
        prediction, probabilities = self._fields
        try:
            found = _parsed(line)
            assert isinstance(found["row"], int)
            return _Predicted(
                found["row"], found.get(prediction), found.get(probabilities, _ABSENT)
            )
        except (ValueError, TypeError, KeyError, RecursionError, AssertionError) as error:
            raise RunFailedError(
                f"The results of {self._name} have a line that is not a result: "
                f"{line[:80].decode('utf-8', 'replace')!r}.",
                "Leave the results to the run while it evaluates; retry it.",
                state=EVALUATE.failure,
                code="ResultsDamaged",
            ) from error


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
    found = _Results(results, name, request)
    raw = _raw_field(request)
    try:
        for part in splitting.split(path, request.input_format, _PART_BYTES):
            for one in reading.read(path, request.input_format, part, _BATCH, raw):
                if isinstance(one, BadRecord):  # may come before records that precede it
                    yield replace(_joined(np.array([one.row]), {}, [], request), fault=one.reason)
                    continue
                columns = dict(one.columns)
                if one.keys is not None:
                    columns[raw] = objects(_values(one.keys, request))
                predicted = found.of(one.rows)
                yield _joined(np.asarray(one.rows), columns, predicted, request)
        if not found.is_read:
            raise _other_rows(name)
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
    results: list[_Predicted],
    request: Evaluation,
) -> JoinedBatch:
    numbers = np.fromiter((one.row for one in results), np.int64, len(results))
    is_predicted = np.isin(rows, numbers)
    missing = objects([None] * len(rows))
    slices = columns.get(request.slice_field, missing) if request.slice_field else None
    probabilities = None
    if any(one.probabilities is not _ABSENT for one in results):
        probabilities = column(
            [None if one.probabilities is _ABSENT else one.probabilities for one in results]
        )
    return JoinedBatch(
        rows,
        columns.get(request.target_field, missing),
        slices,
        is_predicted,
        column([one.prediction for one in results]),
        probabilities,
    )


def _other_rows(name: str) -> RunFailedError:
    return RunFailedError(
        f"The results of {name} have rows that the input does not have.",
        "The input was changed while it was predicted; start a new evaluation.",
        state=EVALUATE.failure,
        code="ResultsDamaged",
    )
