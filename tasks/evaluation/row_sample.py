"""A sample of rows that is the same for every evaluation of the same data.

Each row has a hash of its file and number; the rows with the smallest ones are the sample. So two
evaluations of one data set have the same rows, and can be compared row by row.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
from modelyard_runtime.frames import Array

_MOST_ROWS = 50_000
_MOST_SCORES = 1_000_000
_MOST_BYTES = 64 * 2**20  # a sample has 10 MB


def most_rows(classes: int) -> int:
    """How many rows a sample has, with a probability for each class."""
    return min(_MOST_ROWS, _MOST_SCORES // max(1, classes))


def hashes(name: str, rows: Array) -> Array:
    """The hashes of rows of a file, as uint64 (the finalizer of SplitMix64)."""
    seed = np.frombuffer(hashlib.sha256(name.encode()).digest()[:8], np.uint64)[0]
    mixed = (rows.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + seed
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    found: Array = mixed ^ (mixed >> np.uint64(31))
    return found


class RowSample:
    """Collects the rows with the smallest hashes, with their columns."""

    def __init__(self, most: int) -> None:
        """Keep ``most`` rows."""
        self._most = most
        self._limit = np.uint64(2**64 - 1)
        self._held: list[dict[str, Array]] = []
        self._rows = 0

    def add(self, ids: Array, columns: dict[str, Array]) -> None:
        """Add rows by their hashes, with equally long columns, which some rows may lack."""
        chosen = ids <= self._limit
        if not chosen.any():
            return
        self._held.append({name: column[chosen] for name, column in columns.items()})
        self._held[-1]["id"] = ids[chosen]
        self._rows += int(np.count_nonzero(chosen))
        if self._rows > 2 * self._most:
            self._compact()

    def _compact(self) -> None:
        columns = self._joined()
        order = np.argsort(columns["id"], kind="stable")[: self._most]
        self._held = [{name: column[order] for name, column in columns.items()}]
        self._rows = len(order)
        if self._rows == self._most:
            self._limit = self._held[0]["id"][-1]

    def _joined(self) -> dict[str, Array]:
        shapes = {name: column for held in self._held for name, column in held.items()}
        return {
            name: np.concatenate([_column(held, name, like) for held in self._held])
            for name, like in shapes.items()
        }

    def columns(self) -> dict[str, Array]:
        """The rows by their hashes, ascending, which are the column ``id``."""
        if not self._held:
            return {"id": np.empty(0, np.uint64)}
        self._compact()
        return self._held[0]


def _column(held: dict[str, Array], name: str, like: Array) -> Array:
    """A column of rows; NaN where these rows have none, and others have one like this."""
    if name in held:
        return held[name]
    return np.full((len(held["id"]), *like.shape[1:]), np.nan)


def write(columns: dict[str, Array], path: Path) -> None:
    """Write a sample's columns."""
    np.savez_compressed(path, allow_pickle=False, **columns)


def read(path: Path) -> dict[str, Array]:
    """The columns that :func:`write` has written.

    Raises:
        ValueError: If it is none, or is larger than one that was written.
        OSError: If it cannot be read.
    """
    return parse(path.read_bytes())


def parse(content: bytes) -> dict[str, Array]:
    """The same of a file's content.

    Raises:
        ValueError: If it is none, or is larger than one that was written.
    """
    file = io.BytesIO(content)
    try:
        with zipfile.ZipFile(file) as packed:
            size = sum(member.file_size for member in packed.infolist())
    except zipfile.BadZipFile as error:
        raise ValueError("The sample is not a zip file.") from error
    if size > _MOST_BYTES:
        raise ValueError(f"The sample has {size} bytes, more than {_MOST_BYTES}.")
    file.seek(0)
    with np.load(file, allow_pickle=False) as found:
        return {name: found[name] for name in found.files}
