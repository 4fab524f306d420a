"""The results of a part: files that count once their summary is there."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
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

    def __init__(self, files: PartFiles) -> None:
        self._files = files
        self._results = HashedFile(files.results)
        self._errors = HashedFile(files.errors)
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
            rows: Its records' numbers in their file.
            keys: Its records' keys; None if records have none.
            outputs: What was predicted, by name.
        """
        named = {"row": list(map(b"%d".__mod__, rows))}
        if keys is not None:
            named["key"] = [orjson.dumps(key, plain, _NUMPY) for key in keys]
        named |= {name: texts(column) for name, column in outputs.items()}
        line = b"{" + b",".join(orjson.dumps(name) + b":%b" for name in named).replace(b"%%", b"%")
        line += b"}\n"
        self._results.write(b"".join(map(line.__mod__, zip(*named.values(), strict=True))))
        self.rows += len(rows)

    def fail(self, row: int, key: Any, reason: str) -> None:
        """Write a record that failed."""
        found = {"row": row, **({} if key is None else {"key": key}), "error": reason}
        self._errors.write(orjson.dumps(found, plain, _NUMPY) + b"\n")
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
        """Have the part count, all at once."""
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
    return [orjson.dumps(value, plain, _NUMPY) for value in column.tolist()]
