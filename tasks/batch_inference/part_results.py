"""The results of a part: files that count once their summary is there."""

from __future__ import annotations

import bisect
import contextlib
import functools
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson
from modelyard_runtime.frames import Array, Columns, plain

from tasks.batch_inference import failure_reasons
from tasks.batch_inference.failure_reasons import FailureReason, FailureReasons
from tasks.batch_inference.splitting import FilePart

_NUMPY = orjson.OPT_SERIALIZE_NUMPY
_QUICK = "biuf"  # kinds of dtype that orjson writes from an array


class OutputError(Exception):
    """What was predicted cannot be written; the message, for people, names the output."""


@dataclass(frozen=True)
class WrittenFile:
    """A file of results.

    Attributes:
        bytes: Its length.
        sha256: Its checksum, in hexadecimal digits.
    """

    bytes: int
    sha256: str


@dataclass
class PieceSummary:
    """What is known of a piece of a file, in a part that was predicted.

    Attributes:
        rows: Records that were predicted.
        failed: Records that were not.
        results_bytes: So much of the part's results is its own, behind those of earlier pieces.
        errors_bytes: Likewise of the part's errors.
    """

    rows: int = 0
    failed: int = 0
    results_bytes: int = 0
    errors_bytes: int = 0


@dataclass(frozen=True)
class PartSummary:
    """What is known of a part that was predicted.

    Attributes:
        results: The file of its records.
        errors: The file of its errors.
        pieces: The pieces of files that it has, in their order.
        statistics: Statistics of what was predicted; see ``result_statistics``.
        reasons: Why records failed.
    """

    results: WrittenFile
    errors: WrittenFile
    pieces: Sequence[PieceSummary]
    statistics: Mapping[str, Any] = field(default_factory=dict)
    reasons: Sequence[FailureReason] = ()

    @property
    def rows(self) -> int:
        """Records that were predicted."""
        return sum(piece.rows for piece in self.pieces)

    @property
    def failed(self) -> int:
        """Records that were not."""
        return sum(piece.failed for piece in self.pieces)


@dataclass(frozen=True)
class PartFiles:
    """Files of a part in a folder.

    Attributes:
        folder: The folder.
        number: The part's number among all.
    """

    folder: Path
    number: int

    @property
    def results(self) -> Path:
        """Its records, in JSON Lines."""
        return self.folder / f"{self.number:08}.results.jsonl"

    @property
    def errors(self) -> Path:
        """The records that failed, in JSON Lines."""
        return self.folder / f"{self.number:08}.errors.jsonl"

    @property
    def summary(self) -> Path:
        """The part's summary, which is written last."""
        return self.folder / f"{self.number:08}.json"

    def read_summary(self) -> PartSummary | None:
        """The summary of a part that is whole; None if it is to be predicted."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            found = orjson.loads(self.summary.read_bytes())
            return PartSummary(
                **found
                | {
                    "results": WrittenFile(**found["results"]),
                    "errors": WrittenFile(**found["errors"]),
                    "pieces": [PieceSummary(**piece) for piece in found["pieces"]],
                    "reasons": failure_reasons.parse(found.get("reasons", ())),
                }
            )
        return None


class PartWriter:
    """Writes the results of a part. Without :meth:`commit` nothing of them counts.

    Its records are numbered from 0 on, through all of its pieces, and may come in any order.
    """

    def __init__(self, files: PartFiles) -> None:
        self._files = files
        self._results = HashedFile(files.results)
        self._errors = HashedFile(files.errors)
        self._pieces = _OpenPieces()
        self._in_order = _InOrder(self._pieces, self._results, self._errors)
        self._reasons = FailureReasons()

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._results.close()
        self._errors.close()

    def begin(self, piece: FilePart, file: int = 0) -> None:
        """Begin a piece of the part, before its records come.

        Args:
            piece: The piece.
            file: The number of its file.
        """
        self._pieces.add(piece, file)

    def place(self, row: int) -> tuple[int, int]:
        """The file of a record, and its number there."""
        return self._pieces.place(row)

    def write(self, rows: Sequence[int], keys: Sequence[Any] | None, outputs: Columns) -> None:
        """Write the predictions of a batch.

        Args:
            rows: Its records' numbers in the part, ascending.
            keys: Its records' keys; None if records have none.
            outputs: What was predicted, by name.

        Raises:
            OutputError: If a value has no JSON; nothing is written then.
        """
        named = {"row": texts(self._pieces.rows(rows))}
        if keys is not None:
            named["key"] = _written("the key", lambda: list(map(dumps, keys)))
        for name, column in outputs.items():
            if name in named:
                raise OutputError(
                    f"The model returned {name}, which every result has: give it another name."
                )
            named[name] = _written(name, functools.partial(texts, column))
            if len(named[name]) != len(rows):
                raise OutputError(f"{name} has {len(named[name])} values for {len(rows)} records.")
        line = b"{" + b",".join(dumps(name).replace(b"%", b"%%") + b":%b" for name in named)
        line += b"}\n"
        lines = map(line.__mod__, zip(*named.values(), strict=True))
        self._in_order.write(rows, lines)

    def fail(self, row: int, key: Any, reason: str) -> None:
        """Write a record that failed; without its key if that has no JSON."""
        file, row_of_file = self.place(row)
        found: dict[str, Any] = {"row": row_of_file, **({} if key is None else {"key": key})}
        try:
            line = dumps(found | {"error": reason})
        except (TypeError, ValueError, RecursionError):
            line = dumps({"row": row_of_file, "error": reason})
        self._in_order.write([row], [line + b"\n"], is_error=True)
        self._reasons.add(file, row_of_file, reason)

    @property
    def reasons(self) -> list[FailureReason]:
        """Why records failed until now, the most frequent reason first."""
        return self._reasons.found

    def commit(self, statistics: Mapping[str, Any]) -> PartSummary:
        """Have the part count, all at once.

        Raises:
            RuntimeError: If a record is neither predicted nor failed.
        """
        self._in_order.check_complete()
        summary = PartSummary(
            self._results.close(), self._errors.close(), self._pieces.summaries, statistics,
            self.reasons,
        )  # fmt: skip
        staged = self._files.summary.with_suffix(".partial")
        with staged.open("wb") as file:
            file.write(orjson.dumps(asdict(summary), plain, _NUMPY))
            file.flush()
            os.fsync(file.fileno())
        staged.replace(self._files.summary)
        return summary


class _OpenPieces:
    """The pieces of a part, whose records are numbered through."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._first_rows: list[int] = []
        self._files: list[int] = []
        self.summaries: list[PieceSummary] = []
        self.count = 0  # of records

    def add(self, piece: FilePart, file: int) -> None:
        """Add the next piece."""
        self._starts.append(self.count)
        self._first_rows.append(piece.first_row)
        self._files.append(file)
        self.summaries.append(PieceSummary())
        self.count += piece.rows

    def place(self, row: int) -> tuple[int, int]:
        """The file of a record, and its number there."""
        at = self.index(row)
        return self._files[at], row - self._starts[at] + self._first_rows[at]

    def rows(self, rows: Sequence[int]) -> Array:
        """The numbers of ascending records in their files."""
        if self.index(rows[0]) != self.index(rows[-1]):
            return np.array([self.place(row)[1] for row in rows])
        _, first = self.place(rows[0])
        by = first - rows[0]
        if isinstance(rows, range):
            return np.arange(rows.start + by, rows.stop + by)
        return np.array(rows) + by

    def index(self, row: int) -> int:
        """Which piece has a record."""
        return bisect.bisect(self._starts, row) - 1

    def end(self, at: int) -> int:
        """The number behind the last record of a piece."""
        return self._starts[at + 1] if at + 1 < len(self._starts) else self.count


class _InOrder:
    """Writes lines of records in the order of the records, whatever order they come in."""

    def __init__(self, pieces: _OpenPieces, results: HashedFile, errors: HashedFile) -> None:
        self._pieces = pieces
        self._results = results
        self._errors = errors
        self._next = 0
        self._held: dict[int, tuple[bytes, bool]] = {}

    def write(
        self, rows: Sequence[int], lines: Iterable[bytes], *, is_error: bool = False
    ) -> None:
        """Write a line for each of ``rows``, which ascend, once all rows before it are written."""
        if rows[0] == self._next and rows[-1] - rows[0] == len(rows) - 1:
            self._write(list(lines), is_error)
        else:
            self._held.update(
                (row, (line, is_error)) for row, line in zip(rows, lines, strict=True)
            )
        while self._next in self._held:
            line, is_error = self._held.pop(self._next)
            self._write([line], is_error)

    def _write(self, lines: Sequence[bytes], is_error: bool) -> None:
        """Write the lines of the next rows."""
        while lines:
            at = self._pieces.index(self._next)
            count = min(len(lines), self._pieces.end(at) - self._next)
            data, piece = b"".join(lines[:count]), self._pieces.summaries[at]
            if is_error:
                self._errors.write(data)
                piece.failed += count
                piece.errors_bytes += len(data)
            else:
                self._results.write(data)
                piece.rows += count
                piece.results_bytes += len(data)
            self._next += count
            lines = lines[count:]

    def check_complete(self) -> None:
        """Refuse to be over before all rows are written.

        Raises:
            RuntimeError: If one is not.
        """
        if self._next != self._pieces.count:
            raise RuntimeError(f"Record {self._next} of {self._pieces.count} has no result.")


class HashedFile:
    """A new file whose checksum is made as it is written; synced to the disk at its end."""

    def __init__(self, path: Path, *, is_synced: bool = True) -> None:
        """Create a file.

        Args:
            path: The file.
            is_synced: Whether it is on the disk once it is closed.
        """
        self._file: IO[bytes] = path.open("wb")
        self._is_synced = is_synced
        self._digest = hashlib.sha256()
        self._bytes = 0

    def __enter__(self) -> HashedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def written(self) -> WrittenFile:
        """What was written until now."""
        return WrittenFile(self._bytes, self._digest.hexdigest())

    def write(self, data: bytes) -> None:
        """Append ``data``."""
        self._file.write(data)
        self._digest.update(data)
        self._bytes += len(data)

    def close(self) -> WrittenFile:
        """Sync and close the file, once; what was written."""
        if not self._file.closed:
            with self._file:
                self._file.flush()
                if (
                    self._bytes and self._is_synced
                ):  # most files of errors are empty, and a sync takes milliseconds
                    os.fsync(self._file.fileno())
        return self.written


def texts(column: Array) -> list[bytes]:
    """Each row's value in JSON; what is no number (NaN, infinity) is null."""
    if column.dtype.kind in _QUICK and column.dtype.itemsize > 1 and column.size:
        whole = orjson.dumps(np.ascontiguousarray(column), option=_NUMPY)
        if column.ndim == 1:
            return whole[1:-1].split(b",")
        if column.ndim == 2:
            return whole[1:-1].replace(b"],[", b"]\n[").split(b"\n")
    return list(map(dumps, column.tolist()))


def dumps(value: Any) -> bytes:
    """A value in JSON: integers of any size, and null for what is no number.

    Raises:
        TypeError: If a value has no JSON.
        ValueError, RecursionError: If it is nested too deeply.
    """
    try:
        return orjson.dumps(value, plain, _NUMPY)
    except TypeError:  # also integers beyond 64 bits, and lone surrogates, which Python writes
        return json.dumps(_finite(value), default=plain, separators=(",", ":")).encode()


def _finite(value: Any) -> Any:
    """The value with None for what is no number, which Python would write as NaN."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    return list(map(_finite, value)) if isinstance(value, list | tuple) else value


def _written(name: str, texts: Callable[[], list[bytes]]) -> list[bytes]:
    try:
        return texts()
    except (TypeError, ValueError, RecursionError) as error:
        raise OutputError(f"The model returned what cannot be stored: {name}: {error}.") from error
