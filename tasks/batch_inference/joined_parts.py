"""The results of the parts of a batch inference, joined in the order of its files."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from infra.errors import RunFailedError
from registry.flow_kinds import BATCH_INFERENCE
from tasks.batch_inference.failure_reasons import FailureReasons
from tasks.batch_inference.part_results import PartFiles, PartSummary, PieceSummary, WrittenFile

_CHUNK = 2**20


class JoinedParts:
    """The results of parts in their order, each read once, piece by piece."""

    def __init__(self, folder: Path, check_over: Callable[[], object]) -> None:
        """Read the results of parts in ``folder``; ``check_over`` is called often."""
        self._folder = folder
        self._check_over = check_over
        self._part: _OpenPart | None = None
        self._file = ""  # the name of its last piece's
        self.reasons = FailureReasons()
        self.statistics: list[Mapping[str, Any]] = []

    def __enter__(self) -> JoinedParts:
        return self

    def __exit__(self, *_: object) -> None:
        if self._part is not None:
            self._part.close()

    def next_piece(self, number: int, file: str, rows: int) -> PieceSummary:
        """The next piece, which is in the part ``number``.

        Args:
            number: That part, or the one behind it.
            file: The name of the file that it is a piece of.
            rows: How many records it has.

        Raises:
            RunFailedError: With the code ``ResultsDamaged``, if it is not there, or has others; or
                if the part before it is not what was written.
        """
        if self._part is None or self._part.number != number:
            self.check_last()
            files = PartFiles(self._folder, number)
            summary = files.read_summary()
            if summary is None:
                raise _damaged(file, number)
            if self._part is not None:
                self._part.close()
            self._part = _OpenPart(number, files, summary)
            self.reasons.merge(summary.reasons)
            self.statistics.append(summary.statistics)
        self._file = file
        piece = next(self._part.pieces, None)
        if piece is None or piece.rows + piece.failed != rows:
            raise _damaged(file, number)
        return piece

    def results(self, piece: PieceSummary) -> Iterator[bytes]:
        """The results of the piece, in chunks."""
        assert self._part is not None
        for chunk in self._part.results.read(piece.results_bytes):
            self._check_over()
            yield chunk

    def errors(self, piece: PieceSummary) -> Iterator[bytes]:
        """The lines of the piece's errors."""
        assert self._part is not None
        begun = b""
        for chunk in self._part.errors.read(piece.errors_bytes):
            *lines, begun = (begun + chunk).split(b"\n")
            yield from (line + b"\n" for line in lines)

    def check_last(self) -> None:
        """Refuse a last part that is not what was written, once it is read.

        Raises:
            RunFailedError: With the code ``ResultsDamaged``.
        """
        if self._part is not None and not self._part.is_whole():
            raise _damaged(self._file, self._part.number)


class _OpenPart:
    def __init__(self, number: int, files: PartFiles, summary: PartSummary) -> None:
        self.number = number
        self.pieces = iter(summary.pieces)
        self.results = _CheckedFile(files.results, summary.results)
        self.errors = _CheckedFile(files.errors, summary.errors)

    def is_whole(self) -> bool:
        """Whether all of it was read, and is what was written."""
        return self.results.is_whole() and self.errors.is_whole()

    def close(self) -> None:
        self.results.close()
        self.errors.close()


class _CheckedFile:
    """A file of a part, whose bytes are what was written once it is closed."""

    def __init__(self, path: Path, expected: WrittenFile) -> None:
        self._expected = expected
        self._digest = hashlib.sha256()
        # An empty one may be lost with a machine's power: it is not synced.
        self._file = path.open("rb") if path.exists() else io.BytesIO()

    def read(self, size: int) -> Iterator[bytes]:
        """The next bytes, fewer at the end."""
        while size and (chunk := self._file.read(min(_CHUNK, size))):
            self._digest.update(chunk)
            size -= len(chunk)
            yield chunk

    def is_whole(self) -> bool:
        """Whether nothing is left, and what was read is what was written."""
        return not self._file.read(1) and self._digest.hexdigest() == self._expected.sha256

    def close(self) -> None:
        self._file.close()


def _damaged(name: str, number: int) -> RunFailedError:
    return RunFailedError(
        f"The results of part {number}, of {name}, are not what was written.",
        "Start a new batch inference. Another program may write to the run's folder, or the disk "
        "is failing.",
        state=BATCH_INFERENCE.failure,
        code="ResultsDamaged",
    )
