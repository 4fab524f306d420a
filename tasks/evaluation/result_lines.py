"""The output file of a batch inference, read in the order of its rows."""

from __future__ import annotations

import contextlib
import itertools
import json
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from infra.errors import RunFailedError
from registry.flow_kinds import EVALUATE
from tasks.evaluation.evaluation_request import Evaluation

ABSENT = object()
_BLOCK = 2**16  # of lines that are parsed together: with more, a processor's cache is too small


class Predicted(NamedTuple):
    """What was predicted for some rows, in their order.

    Attributes:
        rows: Their numbers in the file, ascending.
        predictions: The model's answer for each.
        probabilities: The classes' probabilities likewise; ``ABSENT`` where the model has none.
    """

    rows: list[int]
    predictions: list[Any]
    probabilities: list[Any]

    def part(self, start: int, end: int | None = None) -> Predicted:
        """The rows at these positions."""
        return Predicted(*(values[start:end] for values in self))

    def chosen(self, is_chosen: Sequence[bool]) -> Predicted:
        """The rows for which ``is_chosen`` is true."""
        return Predicted(*(list(itertools.compress(values, is_chosen)) for values in self))


def parse(line: bytes) -> Any:
    """What a result says; some have what Python writes and orjson refuses, lone surrogates.

    Raises:
        ValueError: If it is not JSON.
        RecursionError: If it is nested too deep.
    """
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return json.loads(line)


class ResultLines:
    """Reads results in blocks, and hands out those of the rows that are asked for."""

    def __init__(self, path: Path, name: str, request: Evaluation) -> None:
        """Read ``path``, the results of the input file ``name``."""
        self._file = path.open("rb")
        self._name = name
        self._fields = (request.prediction_field, request.probabilities_field)
        self._held = Predicted([], [], [])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def is_read(self) -> bool:
        """Whether nothing is left."""
        return not (self._held.rows or self._read())

    def of(self, rows: Sequence[int]) -> Predicted:
        """What was predicted for ascending rows, none of which was asked for yet.

        Raises:
            RunFailedError: With the code ``ResultsDamaged``.
        """
        while max(self._held.rows[-1:], default=-1) < rows[-1] and self._read():
            pass
        held, count = self._held, len(rows)
        if held.rows[:count] == list(rows):  # the usual case: nothing failed, and no row is odd
            self._held = held.part(count)
            return held.part(0, count)
        asked = np.isin(held.rows, np.asarray(rows))
        self._held = held.chosen((~asked).tolist())
        return held.chosen(asked.tolist())

    def _read(self) -> bool:
        """Hold the next block as well; whether there was one."""
        lines = self._file.readlines(_BLOCK)
        prediction, probabilities = self._fields
        found = self._parsed(lines)
        last = self._held.rows[-1:]
        rows = [one["row"] for one in found]
        if not all(map(operator.lt, [*last, *rows], rows if last else rows[1:])):
            raise other_rows(self._name)
        self._held.rows.extend(rows)
        self._held.predictions.extend([one.get(prediction) for one in found])
        self._held.probabilities.extend([one.get(probabilities, ABSENT) for one in found])
        return bool(lines)

    def _parsed(self, lines: list[bytes]) -> list[dict[str, Any]]:
        """The lines' results; at once is quicker, one by one finds which is damaged."""
        found: list[Any] = []
        with contextlib.suppress(orjson.JSONDecodeError):
            found = orjson.loads(b"[%b]" % b",".join(lines))
        is_whole = len(found) == len(lines) and set(map(type, found)) <= {dict}
        if is_whole and {type(one.get("row")) for one in found} <= {int}:
            return found
        return [self._parse(line) for line in lines]

    def _parse(self, line: bytes) -> dict[str, Any]:
        found = None
        with contextlib.suppress(ValueError, RecursionError):
            found = parse(line)
        if isinstance(found, dict) and type(found.get("row")) is int:
            return found
        raise RunFailedError(
            f"The results of {self._name} have a line that is not a result: "
            f"{line[:80].decode('utf-8', 'replace')!r}.",
            "Leave the results to the run while it evaluates; retry it.",
            state=EVALUATE.failure,
            code="ResultsDamaged",
        )


def other_rows(name: str) -> RunFailedError:
    """The error that results have rows that the input ``name`` does not have, or have them twice.

    Its code is ``ResultsDamaged``.
    """
    return RunFailedError(
        f"The results of {name} have rows that the input does not have.",
        "The input was changed while it was predicted; start a new evaluation.",
        state=EVALUATE.failure,
        code="ResultsDamaged",
    )
