"""Scores of classes in descending order, by an external sort.

Rows are collected up to a bound, sorted and written as a run, of each class apart; runs are merged
block by block, and those of a class to one that the scores of all classes are merged from. Memory
does not grow with the rows.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from modelyard_runtime.frames import Array

from infra.errors import DiskFullError
from tasks.evaluation.figures import CheckOver

# Scores of all classes that are held before a run is written: 8 bytes each, and as much to sort.
_HELD = 8_000_000
# Scores of all runs that are held while they are merged.
_MERGED = 4_000_000
_LEAST_BLOCK = 2048
_BYTES = 9  # of a score and its code


@dataclass(frozen=True)
class _Run:
    """Sorted scores in a file.

    Attributes:
        path: Of the scores, as float64; beside them the codes, as uint8.
        start: Number of its first score in the file.
        end: Behind its last one.
    """

    path: Path
    start: int
    end: int

    def read(self, at: int, most: int) -> tuple[Array, Array]:
        """Up to ``most`` scores from the number ``at`` on, with their codes."""
        count = min(most, self.end - at)
        return (
            np.fromfile(self.path, np.float64, count, offset=8 * at),
            np.fromfile(self.path.with_suffix(".codes"), np.uint8, count, offset=at),
        )


class ScoreSorter:
    """Sorts the scores of rows for each of some classes.

    A score's code is 1 for a row of the class, else 0, and twice the number of the row's slice.
    """

    def __init__(
        self,
        classes: int,
        folder: Path,
        check_over: CheckOver,
        rows: int = 0,
        held: int = _HELD,
    ) -> None:
        """Sort in files of ``folder``.

        Args:
            classes: How many classes there are.
            folder: An empty folder, on a disk that holds 9 bytes for each row and class, and once
                more for each row.
            check_over: Called often; raises to end it.
            rows: How many rows are expected, for which there must be room on the disk.
            held: How many scores are held in memory.
        """
        self._expected = rows
        self._classes = classes
        self._folder = folder
        self._check_over = check_over
        self._most = max(1, held // max(1, classes))
        self._batches: list[tuple[Array, Array, Array]] = []
        self._rows = 0
        self._written = 0
        self._runs: list[list[_Run]] = [[] for _ in range(classes)]

    def __enter__(self) -> ScoreSorter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for path in self._folder.glob("class-*"):
            path.unlink()

    def add(self, scores: Array, targets: Array, slices: Array) -> None:
        """Add rows.

        Args:
            scores: Of the shape (rows, classes); no NaN.
            targets: The number of each row's class.
            slices: The number of each row's slice, below 128.

        Raises:
            DiskFullError: Before anything is written, if the disk has no room for all rows.
            OSError: If it has none any more.
        """
        if not len(scores):
            return
        self._batches.append((scores, targets, slices))
        self._rows += len(scores)
        if self._rows >= self._most:
            self._spill()

    def _spill(self) -> None:
        """Write what is held as a run of each class."""
        if not self._rows:
            return
        if not self._written:
            self._check_room()
        held = [np.concatenate(parts) for parts in zip(*self._batches, strict=True)]
        scores, targets, slices = held
        self._batches.clear()
        codes = (2 * slices).astype(np.uint8)
        end = self._written + self._rows
        for number in range(self._classes):
            self._check_over()
            column = np.ascontiguousarray(scores[:, number])
            order = np.argsort(-column)
            path = self._folder / f"class-{number}.scores"
            own = codes + (targets == number)
            with path.open("ab") as file, path.with_suffix(".codes").open("ab") as others:
                file.write(column[order].data)  # tofile does not say why it fails
                others.write(own[order].astype(np.uint8).data)
            self._runs[number].append(_Run(path, self._written, end))
        self._written, self._rows = end, 0

    def _check_room(self) -> None:
        rows = max(self._rows, self._expected)
        needed, free = _BYTES * rows * (self._classes + 1), shutil.disk_usage(self._folder).free
        if needed > free:
            raise DiskFullError(
                f"The scores of {rows:,} records are sorted in {self._folder}, which takes "
                f"{needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free.",
                "Make room, or on a cluster ask for more by resources.data_storage_gib; a retry "
                "keeps the predictions.",
            )

    def merged(self, classes: Sequence[int]) -> Iterator[tuple[Array, Array]]:
        """The scores of classes together, in descending order, and their codes, in blocks.

        Equal scores may be parted by the end of a block. What was merged for one class is one run
        from then on, so that all classes are merged of a run for each.
        """
        self._spill()
        runs = [run for number in classes for run in self._runs[number]]
        most = max(_LEAST_BLOCK, _MERGED // max(1, len(runs)))
        blocks = _merge(runs, most, self._check_over)
        return (
            self._written_as_one(classes[0], blocks) if len(classes) == 1 < len(runs) else blocks
        )

    def _written_as_one(
        self, number: int, blocks: Iterator[tuple[Array, Array]]
    ) -> Iterator[tuple[Array, Array]]:
        """The blocks of a class, which are its one run when all were taken."""
        before = self._runs[number][0].path
        path = self._folder / f"class-{number}-merged.scores"
        with path.open("wb") as file, path.with_suffix(".codes").open("wb") as others:
            for scores, codes in blocks:
                file.write(scores.data)
                others.write(codes.data)
                yield scores, codes
        self._runs[number] = [_Run(path, 0, self._written)]
        for old in (before, before.with_suffix(".codes")):
            old.unlink()


class _Reader:
    """Reads a run block by block."""

    def __init__(self, run: _Run, most: int) -> None:
        self._run = run
        self._most = most
        self._at = run.start
        self.scores, self.codes = np.empty(0), np.empty(0, np.uint8)
        self.fill()

    @property
    def is_read(self) -> bool:
        """Whether the last block is held."""
        return self._at >= self._run.end

    def fill(self) -> None:
        """Read the next block, if nothing is held."""
        if not len(self.scores) and not self.is_read:
            self.scores, self.codes = self._run.read(self._at, self._most)
            self._at += len(self.scores)

    def take(self, least: float) -> tuple[Array, Array]:
        """What is held of scores of ``least`` and above."""
        count = int(np.searchsorted(-self.scores, -least, side="right"))
        taken = self.scores[:count], self.codes[:count]
        self.scores, self.codes = self.scores[count:], self.codes[count:]
        self.fill()
        return taken


def _merge(
    runs: Sequence[_Run], most: int, check_over: CheckOver
) -> Iterator[tuple[Array, Array]]:
    readers = [_Reader(run, most) for run in runs]
    while readers := [one for one in readers if len(one.scores)]:
        check_over()
        # Scores above the last one of every block that has another behind it are all held.
        least = max((one.scores[-1] for one in readers if not one.is_read), default=-np.inf)
        taken = [one.take(least) for one in readers]
        scores = np.concatenate([scores for scores, _ in taken])
        codes = np.concatenate([codes for _, codes in taken])
        order = np.argsort(-scores, kind="stable")
        yield scores[order], codes[order]
