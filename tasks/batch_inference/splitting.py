"""Parts of input files: ranges of bytes that hold whole records.

Files are read once, so that each part knows the number of its first row, and one large file is
shared as well as many small ones.
"""

from __future__ import annotations

import collections
import io
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq

from tasks.batch_inference.csv_columns import ColumnTypes
from tasks.batch_inference.json_elements import ArrayScanner
from tasks.batch_inference.parquet_columns import UNREADABLE

_BLOCK = 2**20
_LONGEST_HEADER = 16 * 2**20
# Bytes of text; a record has ten times as many while it is read.
LONGEST_RECORD = 64 * 2**20
_BLANK = b" \t\r\n"
_IS_BLANK = np.isin(np.arange(256), list(_BLANK))
_SHOWN = 100
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_NEWLINE, _RETURN, _QUOTE = b"\n"[0], b"\r"[0], b'"'[0]
_BEFORE_TEXT = (_NEWLINE, _RETURN, _QUOTE, b","[0])

_Bytes = np.ndarray[Any, np.dtype[np.uint8]]
_Bools = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class FilePart:
    """A part of a file.

    Attributes:
        start: Offset of its first byte; of Parquet the first row group.
        end: Offset behind its last byte; of Parquet behind its last row group.
        first_row: Number of its first record in the file, from 0.
        rows: How many records it has, malformed ones too.
        fault: Why the file ends with this part before its end; "" if it does not.
    """

    start: int
    end: int
    first_row: int
    rows: int
    fault: str = ""


class _Ends(Protocol):
    """Finds the ends of records in blocks that follow each other."""

    def feed(self, block: bytes) -> tuple[int, int]:
        """How many records end in the block, and the offset behind the last; -1 if none does."""

    def rest(self) -> bool:
        """Whether a record has begun after the last end."""


def split(
    path: Path, input_format: str, part_bytes: int, types: ColumnTypes | None = None
) -> Iterator[FilePart]:
    """The parts of a file, in its order; none if it has no records.

    Args:
        path: The file.
        input_format: ``json``, ``jsonl``, ``csv`` or ``parquet``.
        part_bytes: A part ends with the first record that makes it as large.
        types: Finds the types of the columns of CSV, which it has behind the last part.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is none of that format at all; the message is for people.
    """
    if input_format != "parquet":
        _check_text(path)
    if input_format == "csv":
        return _split_csv(path, part_bytes, types)
    return _SPLITS[input_format](path, part_bytes)


# How files begin that are not text in UTF-8: UTF-32 comes before UTF-16, which begins likewise.
_NO_TEXT = {
    b"\xff\xfe\x00\x00": "UTF-32", b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16",
    b"\x1f\x8b": "compressed (gzip)", b"PK\x03\x04": "compressed (zip)",
    b"\x28\xb5\x2f\xfd": "compressed (zstd)", b"BZh": "compressed (bzip2)",
    b"\xfd7zXZ": "compressed (xz)", b"PAR1": "Parquet",
}  # fmt: skip


def _check_text(path: Path) -> None:
    """Refuse a file that is no text in UTF-8 by how it begins.

    Raises:
        ValueError: If it is another one.
    """
    with path.open("rb") as file:
        begin = file.read(max(map(len, _NO_TEXT)))
    for magic, what in _NO_TEXT.items():
        if begin.startswith(magic):
            raise ValueError(f"it is {what}, and no text in UTF-8")


def _split_lines(path: Path, part_bytes: int) -> Iterator[FilePart]:
    yield from _cut(path, _start_of_text(path), path.stat().st_size, LineEnds(), part_bytes)


def _split_csv(
    path: Path, part_bytes: int, types: ColumnTypes | None = None
) -> Iterator[FilePart]:
    size, start, ends = path.stat().st_size, header_end(path), CsvEnds()
    names = column_names(path)
    if types is not None:
        types.begin(names)
    rows = 0
    for part in _cut(path, start, size, ends, part_bytes, types):
        yield part
        rows += part.rows
    if types is not None:
        types.close()
    if ends.is_quoted:
        yield FilePart(
            size, size, rows, 0, "a quote is not closed: the last record may hold many lines"
        )


def _split_json(path: Path, part_bytes: int) -> Iterator[FilePart]:
    size, start = path.stat().st_size, _first_byte(path)
    if start is None:
        return
    if not is_array(path):  # one record
        yield FilePart(start, size, 0, 1)
        return
    ends = _ElementEnds()
    rows = 0
    for part in _cut(path, start + 1, size, ends, part_bytes):
        yield part
        rows += part.rows
    if fault := ends.fault(path, start + 1):
        yield FilePart(size, size, rows, 0, fault)


def _split_parquet(path: Path, part_bytes: int) -> Iterator[FilePart]:
    try:
        metadata = pq.read_metadata(path)
        names = metadata.schema.to_arrow_schema().names
    except UNREADABLE as error:
        why = " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"it is no Parquet file: {why}") from error
    _check_names(names)
    first, row, size = 0, 0, 0
    for group in range(metadata.num_row_groups):
        size += metadata.row_group(group).total_byte_size
        if size >= part_bytes or group == metadata.num_row_groups - 1:
            rows = sum(metadata.row_group(at).num_rows for at in range(first, group + 1))
            if rows:
                yield FilePart(first, group + 1, row, rows)
            first, row, size = group + 1, row + rows, 0


_SPLITS: dict[str, Callable[[Path, int], Iterator[FilePart]]] = {
    "json": _split_json,
    "jsonl": _split_lines,
    "parquet": _split_parquet,
}


def _cut(
    path: Path,
    start: int,
    size: int,
    ends: _Ends,
    part_bytes: int,
    types: ColumnTypes | None = None,
) -> Iterator[FilePart]:
    """Parts between ``start`` and ``size``."""
    row = rows = 0
    at = end = start  # what was read, and the end of its last record
    with path.open("rb") as file:
        file.seek(start)
        while at < size and (block := file.read(min(_BLOCK, size - at))):
            count, last = ends.feed(block)
            rows += count
            end = at + last if last >= 0 else end
            if types is not None:
                if at + len(block) - end > LONGEST_RECORD:
                    raise ValueError(
                        f"record {row + rows} is longer than {LONGEST_RECORD / 2**20:g} MiB: a "
                        "quote may not be closed"
                    )
                types.feed(block, last)
            if last >= 0 and at + last - start >= part_bytes:
                yield FilePart(start, at + last, row, rows)
                start, row, rows = at + last, row + rows, 0
            at += len(block)
    rows += ends.rest()
    if rows:
        yield FilePart(start, at, row, rows)


def blocks(path: Path, part: FilePart) -> Iterator[bytes]:
    """The bytes of a part, in pieces.

    Raises:
        OSError: If the file is shorter than it was.
    """
    with path.open("rb") as file:
        file.seek(part.start)
        left = part.end - part.start
        while left:
            block = file.read(min(_BLOCK, left))
            if not block:
                raise OSError("it is shorter than it was")
            left -= len(block)
            yield block


class LineEnds:
    """Ends of lines that are not blank."""

    def __init__(self) -> None:
        self._begun = False

    def feed(self, block: bytes) -> tuple[int, int]:
        """See :class:`_Ends`."""
        first = block.find(b"\n")
        if first < 0:
            self._begun |= bool(block.strip(_BLANK))
            return 0, -1
        count = int(self._begun or bool(block[:first].strip(_BLANK)))
        last = block.rfind(b"\n") + 1
        lines = np.frombuffer(block, np.uint8)[first:last]  # from the first one's newline on
        begins = lines[np.flatnonzero(lines == _NEWLINE)[:-1] + 1]
        if _IS_BLANK[begins].any():
            count += sum(1 for line in block[first:last].split(b"\n") if line.strip(_BLANK))
        else:
            count += len(begins)
        self._begun = bool(block[last:].strip(_BLANK))
        return count, last

    def rest(self) -> bool:
        """See :class:`_Ends`."""
        return self._begun


class CsvEnds:
    """Ends of lines that are not empty, and whose newline or return is in no quotes.

    A quote opens a text only where a field begins; within a field it is a character.
    """

    def __init__(self) -> None:
        self._open = 0  # bytes of the line so far
        self._last = _NEWLINE  # the last byte
        self._is_closed = False  # whether that is a quote that closes a text
        self.is_quoted = False  # whether that is in a text

    def feed(self, block: bytes) -> tuple[int, int]:
        """See :class:`_Ends`."""
        data = np.frombuffer(block, dtype=np.uint8)
        is_end = (data == _NEWLINE) | (data == _RETURN)
        if self.is_quoted or _QUOTE in block:
            is_end &= ~self._are_quoted(data)
        else:
            self._is_closed = False
        self._last = int(data[-1])
        ends = np.flatnonzero(is_end)
        content = np.cumsum(~is_end)
        if not ends.size:
            self._open += int(content[-1])
            return 0, -1
        lengths = np.diff(content[ends], prepend=-self._open)
        self._open = int(content[-1] - content[ends[-1]])
        return int(np.count_nonzero(lengths)), int(ends[-1]) + 1

    def _are_quoted(self, data: _Bytes) -> _Bools:
        """Which bytes are in quotes, if every other quote closes a text."""
        is_quote = data == _QUOTE
        quoted = ((np.cumsum(is_quote) + self.is_quoted) & 1) == 1
        opening = np.flatnonzero(is_quote & quoted)
        before = data[opening - 1]
        may_open = np.isin(before, _BEFORE_TEXT)
        if opening.size and opening[0] == 0:
            may_open[0] = self._last in _BEFORE_TEXT and (self._last != _QUOTE or self._is_closed)
        if not may_open.all():
            return self._are_quoted_one_by_one(data)
        self.is_quoted = bool(quoted[-1])
        self._is_closed = bool(is_quote[-1]) and not self.is_quoted
        return cast("_Bools", quoted)

    def _are_quoted_one_by_one(self, data: _Bytes) -> _Bools:
        """Likewise, of any quotes."""
        quoted = np.zeros(data.size, dtype=bool)
        start = 0  # of what is quoted
        is_quoted, closed_at = self.is_quoted, -1 if self._is_closed else -2
        for at in np.flatnonzero(data == _QUOTE).tolist():
            before = data[at - 1] if at else self._last
            if is_quoted:
                quoted[start:at] = True
                is_quoted, closed_at = False, at
            elif closed_at == at - 1 or (before in _BEFORE_TEXT and before != _QUOTE):
                is_quoted, start = True, at
        if is_quoted:
            quoted[start:] = True
        self.is_quoted, self._is_closed = is_quoted, closed_at == data.size - 1
        return quoted

    def rest(self) -> bool:
        """See :class:`_Ends`."""
        return self._open > 0


class _ElementEnds:
    """Ends of the elements of a JSON array, behind their commas."""

    def __init__(self) -> None:
        self._scanner = ArrayScanner()
        self._begun = self._closed = False
        self._seen = 0
        self._close_at = -1

    def feed(self, block: bytes) -> tuple[int, int]:
        """See :class:`_Ends`."""
        if self._closed:
            return 0, -1
        found = self._scanner.scan(block)
        count, last = len(found.commas), int(found.commas[-1]) + 1 if len(found.commas) else -1
        rest = block[max(last, 0) : found.close if found.close >= 0 else None]
        self._begun = bool(rest.strip(_BLANK)) or (self._begun and last < 0)
        if found.close >= 0:
            self._closed, self._close_at = True, self._seen + found.close
        self._seen += len(block)
        return count, last

    def rest(self) -> bool:
        """See :class:`_Ends`."""
        return self._begun

    def fault(self, path: Path, start: int) -> str:
        """What is wrong behind the elements; "" if nothing is."""
        if not self._closed:
            return "the array is not closed: the file is cut off, or a record is malformed"
        with path.open("rb") as file:
            file.seek(start + self._close_at + 1)
            while block := file.read(_BLOCK):
                if block.strip(_BLANK):
                    return "there is more behind the array: it may be JSON Lines"
        return ""


def header_end(path: Path) -> int:
    """Offset behind the header line of a CSV file.

    Raises:
        ValueError: If it has none.
    """
    start = _start_of_text(path)
    ends = CsvEnds()
    with path.open("rb") as file:
        file.seek(start)
        for line in itertools.chain.from_iterable(line.splitlines(keepends=True) for line in file):
            start += len(line)
            count, _ = ends.feed(line)
            if count:
                return start
            if start > _LONGEST_HEADER:
                raise ValueError("its header line does not end: a quote may not be closed")
    if ends.rest():
        return start
    raise ValueError("it has no header line with the names of its columns")


def column_names(path: Path) -> list[str]:
    """The names in the header line of a CSV file.

    Raises:
        ValueError: If it has none, two are the same, or they are not UTF-8.
    """
    with path.open("rb") as file:
        line = file.read(header_end(path)).removeprefix(_BYTE_ORDER_MARK)
    table = pyarrow.csv.read_csv(io.BytesIO(line.strip(b"\r\n") + b"\n"))
    try:
        # As pandas calls those without a name, such as the index that it writes.
        names = [name or f"Unnamed: {at}" for at, name in enumerate(table.column_names)]
    except UnicodeDecodeError as error:
        raise ValueError("its header line is no text in UTF-8") from error
    _check_names(names)
    return names


def _check_names(names: list[str]) -> None:
    for name, count in collections.Counter(names).items():
        if count > 1:
            raise ValueError(f"{count} columns are called {name!r}")


def is_array(path: Path) -> bool:
    """Whether a file of JSON is an array of records, and no record itself."""
    start = _first_byte(path)
    if start is None:
        return False
    with path.open("rb") as file:
        file.seek(start)
        return file.read(1) == b"["


def first_line(path: Path) -> tuple[int, str]:
    """The number from 1, and the first characters, of the first line that is not blank."""
    number = 1
    with path.open("rb") as file:
        file.seek(_start_of_text(path))
        while line := file.readline(_SHOWN):
            if text := line.strip(_BLANK):
                return number, text.decode(errors="replace")
            number += line.endswith(b"\n")
    return number, ""


def _start_of_text(path: Path) -> int:
    with path.open("rb") as file:
        return len(_BYTE_ORDER_MARK) if file.read(3) == _BYTE_ORDER_MARK else 0


def _first_byte(path: Path) -> int | None:
    """Offset of the first byte that is not blank; None if there is none."""
    at = _start_of_text(path)
    with path.open("rb") as file:
        file.seek(at)
        while block := file.read(_BLOCK):
            if left := block.lstrip(_BLANK):
                return at + len(block) - len(left)
            at += len(block)
    return None
