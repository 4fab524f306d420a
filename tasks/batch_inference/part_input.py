"""Input of single parts: where it is, or fetched in pieces from a storage.

A piece is at its own offset in a sparse file of the whole one's size, with what readers want of
the rest: the header of text, the footer of Parquet. So a part is read as of the whole file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import pyarrow.parquet as pq

from infra import storage
from tasks.batch_inference import planning
from tasks.batch_inference.planning import Plan, PlannedPiece

_CHUNK = 8 * 2**20
_PARQUET_MAGIC = 4  # bytes, at both ends
_PARQUET_TAIL = 8  # the footer's length, and the magic


@dataclass(frozen=True)
class FileOutline:
    """What is known of a file before it is read.

    Attributes:
        size: Its bytes.
        header: So many first bytes are needed to read any part of it.
    """

    size: int
    header: int


def outlines(plan: Plan) -> dict[str, FileOutline]:
    """What is known of the files of a plan that have parts, by their names."""
    return {
        file.name: FileOutline(file.size, file.parts[0].start) for file in plan.files if file.parts
    }


class PartInput:
    """Input of a batch inference, of which parts are read."""

    def __init__(
        self, uri: str, input_format: str, files: Mapping[str, FileOutline], folder: Path
    ) -> None:
        """Read parts of ``uri``.

        Args:
            uri: The input: a folder, or a file.
            input_format: Its format.
            files: Its files by their names.
            folder: Where parts are fetched to.
        """
        self._files = files
        self._store = storage.store(uri)
        self._format = input_format
        self._folder = folder
        self._place = self._store.in_place()
        self._is_single = self._place is None and not self._store.is_directory()

    def bring(self, piece: PlannedPiece) -> PlannedPiece:
        """The piece, which names its file below the input, with the path of a local file.

        Raises:
            ModelyardError: If it cannot be fetched, or does not fit.
            OSError: If the file is shorter than it was.
        """
        name = str(piece.path)
        if self._place is not None:
            return replace(piece, path=planning.path_of(self._place, name))
        path = self._folder / f"{piece.number:08}-{piece.file}.input"
        with path.open("wb+") as file:
            file.truncate(self._files[name].size)
            if self._format == "parquet":
                self._fetch_row_groups(name, piece, path, file)
            else:
                self._fetch(name, file, 0, self._files[name].header)
                self._fetch(name, file, piece.part.start, piece.part.end)
        return replace(piece, path=path)

    def drop(self, piece: PlannedPiece) -> None:
        """Delete what was fetched of a piece."""
        if self._place is None:
            piece.path.unlink()

    def _fetch_row_groups(
        self, name: str, piece: PlannedPiece, path: Path, file: BinaryIO
    ) -> None:
        tail = self._files[name].size - _PARQUET_TAIL
        self._fetch(name, file, 0, _PARQUET_MAGIC)
        self._fetch(name, file, tail, tail + _PARQUET_TAIL)
        file.seek(tail)
        length = int.from_bytes(file.read(_PARQUET_TAIL - _PARQUET_MAGIC), "little")
        self._fetch(name, file, tail - length, tail)
        metadata = pq.read_metadata(path)
        for at in range(piece.part.start, piece.part.end):
            group = metadata.row_group(at)
            for column in map(group.column, range(group.num_columns)):
                start = column.data_page_offset
                if column.has_dictionary_page:
                    start = min(start, column.dictionary_page_offset)
                self._fetch(name, file, start, start + column.total_compressed_size)

    def _fetch(self, name: str, file: BinaryIO, start: int, end: int) -> None:
        """Write the bytes of a range to their place in ``file``."""
        file.seek(start)
        for at in range(start, end, _CHUNK):
            wanted = min(_CHUNK, end - at)
            found = self._store.read("" if self._is_single else name, offset=at, length=wanted)
            if len(found) < wanted:
                raise OSError(f"{name} is shorter than it was.")
            file.write(found)
        file.flush()
