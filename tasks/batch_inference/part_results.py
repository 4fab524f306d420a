"""The results of a part: files that count once their summary is there."""

from __future__ import annotations

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


@dataclass(frozen=True)
class PartSummary:
    """What is known of a part that was predicted.

    Attributes:
        rows: Records that were predicted.
        failed: Records that were not.
        results: The file of its records.
        errors: The file of its errors.
        statistics: Statistics of what was predicted; see ``result_statistics``.
        reasons: Why records failed.
    """

    rows: int
    failed: int
    results: WrittenFile
    errors: WrittenFile
    statistics: Mapping[str, Any] = field(default_factory=dict)
    reasons: Sequence[FailureReason] = ()


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
                    "reasons": failure_reasons.parse(found.get("reasons", ())),
                }
            )
        return None


class PartWriter:
    """Writes the results of a part. Without :meth:`commit` nothing of them counts."""

    def __init__(self, files: PartFiles, first_row: int) -> None:
        """Write to ``files``.

        Args:
            files: The part's files.
            first_row: Number of its first record in its file; every later one is written, or
                fails.
        """
        self._files = files
        self._results = HashedFile(files.results)
        self._errors = HashedFile(files.errors)
        self._in_order = _RowOrder(first_row)
        self._reasons = FailureReasons()
        self.rows = self.failed = 0

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._results.close()
        self._errors.close()

    def write(self, rows: Sequence[int], keys: Sequence[Any] | None, outputs: Columns) -> None:
        """Write the predictions of a batch.

        Args:
            rows: Its records' numbers in their file, ascending.
            keys: Its records' keys; None if records have none.
            outputs: What was predicted, by name.

        Raises:
            OutputError: If a value has no JSON; nothing is written then.
        """
        named = {"row": list(map(b"%d".__mod__, rows))}
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
        self._in_order.write(self._results, rows, lines)
        self.rows += len(rows)

    def fail(self, row: int, key: Any, reason: str) -> None:
        """Write a record that failed; without its key if that has no JSON."""
        found: dict[str, Any] = {"row": row, **({} if key is None else {"key": key})}
        try:
            line = dumps(found | {"error": reason})
        except (TypeError, ValueError, RecursionError):
            line = dumps({"row": row, "error": reason})
        self._in_order.write(self._errors, [row], [line + b"\n"])
        self._reasons.add(self.number, row, reason)
        self.failed += 1

    @property
    def number(self) -> int:
        """The part's number among all."""
        return self._files.number

    @property
    def reasons(self) -> list[FailureReason]:
        """Why records failed until now, the most frequent reason first."""
        return self._reasons.found

    def commit(self, statistics: Mapping[str, Any]) -> PartSummary:
        """Have the part count, all at once.

        Raises:
            RuntimeError: If a record is neither predicted nor failed, and later ones are.
        """
        self._in_order.check_complete()
        summary = PartSummary(
            self.rows, self.failed, self._results.close(), self._errors.close(), statistics,
            self.reasons,
        )  # fmt: skip
        staged = self._files.summary.with_suffix(".partial")
        with staged.open("wb") as file:
            file.write(orjson.dumps(asdict(summary), plain, _NUMPY))
            file.flush()
            os.fsync(file.fileno())
        staged.replace(self._files.summary)
        return summary


class _RowOrder:
    """Writes lines of records in the order of their rows, whatever order they come in."""

    def __init__(self, first_row: int) -> None:
        self._next = first_row
        self._held: dict[int, tuple[HashedFile, bytes]] = {}

    def write(self, file: HashedFile, rows: Sequence[int], lines: Iterable[bytes]) -> None:
        """Write a line for each of ``rows``, which ascend, once all rows before it are written."""
        if rows[0] == self._next and rows[-1] - rows[0] == len(rows) - 1:
            file.write(b"".join(lines))
            self._next += len(rows)
        else:
            self._held.update(zip(rows, ((file, line) for line in lines), strict=True))
        while self._next in self._held:
            file, line = self._held.pop(self._next)
            file.write(line)
            self._next += 1

    def check_complete(self) -> None:
        """Refuse to be over while lines wait for those of an earlier row.

        Raises:
            RuntimeError: If some do.
        """
        if self._held:
            raise RuntimeError(f"Row {self._next} has no result, and {min(self._held)} has one.")


class HashedFile:
    """A new file whose checksum is made as it is written; synced to the disk at its end."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("wb")
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
                if self._bytes:  # most files of errors are empty, and a sync takes milliseconds
                    os.fsync(self._file.fileno())
        return self.written


def texts(column: Array) -> list[bytes]:
    """Each row's value in JSON; what is no number (NaN, infinity) is null."""
    if column.dtype.kind in _QUICK and column.dtype.itemsize > 1 and column.size:
        whole = orjson.dumps(np.ascontiguousarray(column), option=_NUMPY)
        if column.ndim == 1:
            return whole[1:-1].split(b",")
        if column.ndim == 2:
            return [b"[" + row + b"]" for row in whole[2:-2].split(b"],[")]
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
