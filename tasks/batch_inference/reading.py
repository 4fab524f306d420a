"""The records of a part, as batches of columns."""

from __future__ import annotations

import io
import itertools
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from modelyard_runtime.frames import Array, Columns, objects
from modelyard_runtime.records import alike, column, columns

from tasks.batch_inference.json_elements import ArrayScanner
from tasks.batch_inference.splitting import CsvEnds, FilePart, column_names, is_array

_BLOCK = 2**20
_BLANK = b" \t\r\n"
_SHOWN = 200
_TRUTH = {"true": True, "True": True, "TRUE": True} | {
    "false": False, "False": False, "FALSE": False
}  # fmt: skip
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][-+]?\d+)?")


@dataclass(frozen=True)
class Batch:
    """Records that share their form.

    Attributes:
        rows: Their numbers in the file, from 0.
        columns: Their fields; equally long.
        keys: Their keys as the file has them; None if records have none.
    """

    rows: Sequence[int]
    columns: Columns
    keys: Sequence[Any] | None = None

    def pieces(self, most: int) -> Iterator[Batch]:
        """The records in their order, ``most`` at once.

        A value that is no number makes its whole column one of objects: where it is not among
        the chosen records, theirs are numbers.
        """
        if most >= len(self.rows):
            yield self
            return
        for start in range(0, len(self.rows), most):
            chosen = slice(start, start + most)
            yield Batch(
                self.rows[chosen],
                {name: _chosen(values, chosen) for name, values in self.columns.items()},
                None if self.keys is None else self.keys[chosen],
            )


def _chosen(values: Array, at: slice) -> Array:
    return column(values[at].tolist()) if values.dtype == object else values[at]


@dataclass(frozen=True)
class BadRecord:
    """A record that cannot be read.

    Attributes:
        row: Its number in the file, from 0.
        reason: What is wrong.
    """

    row: int
    reason: str


def read(
    path: Path, input_format: str, part: FilePart, batch_size: int, key: str = ""
) -> Iterator[Batch | BadRecord]:
    """The records of a part in their order; batches have ``batch_size`` records at most.

    Args:
        path: The file.
        input_format: Its format.
        part: The part.
        batch_size: Most records of a batch.
        key: The field that is a record's key, which is among no columns; "" if none. A key stays
            what it is, in CSV a text: conversions are for the model's numbers.

    Raises:
        OSError: If the file cannot be read, or is shorter than it was; the message names it.
    """
    if not part.rows:
        return
    try:
        yield from _READERS[input_format](path, part, batch_size, key)
    except (OSError, ValueError, MemoryError) as error:  # Arrow's own are ValueErrors
        why = getattr(error, "strerror", None) or str(error) or "there is too little memory"
        raise OSError(f"{path} cannot be read: {why}") from error


def _read_lines(
    path: Path, part: FilePart, batch_size: int, key: str
) -> Iterator[Batch | BadRecord]:
    yield from _parsed(_lines(path, part), part.first_row, batch_size, key)


def _read_json(
    path: Path, part: FilePart, batch_size: int, key: str
) -> Iterator[Batch | BadRecord]:
    found = _elements(path, part) if is_array(path) else _whole(path, part)
    yield from _parsed(itertools.islice(found, part.rows), part.first_row, batch_size, key)


def _read_csv(
    path: Path, part: FilePart, batch_size: int, key: str
) -> Iterator[Batch | BadRecord]:
    names = column_names(path)
    row = part.first_row
    for lines in _csv_blocks(path, part):
        table, bad = _csv_table(lines, names)
        count = table.num_rows + len(bad)
        numbers = [row + at for at in range(count) if at not in bad]
        yield from (BadRecord(row + at, reason) for at, reason in bad.items())
        keys = None
        if key in names:
            known = _csv_keys(lines, names, key, count)
            keys = [known[number - row] for number in numbers]
            table = table.drop_columns(key)
        yield from _batches(table, numbers, batch_size, _csv_column, keys)
        row += count


def _read_parquet(
    path: Path, part: FilePart, batch_size: int, key: str
) -> Iterator[Batch | BadRecord]:
    row = part.first_row
    # Through a buffer: else a row group, which may have gigabytes, would be read as a whole.
    with pq.ParquetFile(path, buffer_size=_BLOCK, pre_buffer=False) as file:
        for group in file.iter_batches(batch_size, range(part.start, part.end)):
            table = pa.Table.from_batches([group])
            rows, keys = range(row, row + table.num_rows), None
            if key in table.column_names:
                keys = _arrow_values(table[key])
                table = table.drop_columns(key)
            yield from _batches(table, rows, batch_size, _arrow_column, keys)
            row += len(rows)


_READERS: dict[str, Callable[[Path, FilePart, int, str], Iterator[Batch | BadRecord]]] = {
    "json": _read_json,
    "jsonl": _read_lines,
    "csv": _read_csv,
    "parquet": _read_parquet,
}


def _parsed(
    texts: Iterator[bytes], row: int, batch_size: int, key: str
) -> Iterator[Batch | BadRecord]:
    """Batches of JSON texts, one for each record."""
    while some := list(itertools.islice(texts, batch_size)):
        try:
            records, rows = list(map(orjson.loads, some)), list(range(row, row + len(some)))
        except orjson.JSONDecodeError:
            records, rows = [], []
            for at, text in enumerate(some, row):
                found = _loaded(text)
                if isinstance(found, _Malformed):
                    yield BadRecord(at, found.reason)
                else:
                    records.append(found)
                    rows.append(at)
        for group in alike(records):
            chosen = slice(group.start, group.stop)
            found, keys = dict(columns(records[chosen])), None
            if key and key in found and isinstance(records[group.start], dict):
                keys = [record[key] for record in records[chosen]]
                del found[key]
            yield Batch(rows[chosen], found, keys)
        row += len(some)


@dataclass(frozen=True)
class _Malformed:
    reason: str


def _loaded(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(text)  # what orjson refuses and Python writes: NaN, Infinity
    except (ValueError, RecursionError) as error:
        shown = text[:_SHOWN].decode("utf-8", "replace").strip()
        return _Malformed(f"It is no JSON ({error}): {shown}")


def _blocks(path: Path, part: FilePart) -> Iterator[bytes]:
    """The bytes of a part.

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


def _lines(path: Path, part: FilePart) -> Iterator[bytes]:
    """Lines that are not blank."""
    open_line: list[bytes] = []
    for block in _blocks(path, part):
        head, newline, tail = block.rpartition(b"\n")
        if not newline:
            open_line.append(block)
            continue
        lines = head.split(b"\n")
        lines[0] = b"".join([*open_line, lines[0]])
        open_line = [tail]
        yield from (line for line in lines if line.strip(_BLANK))
    if (line := b"".join(open_line)).strip(_BLANK):
        yield line


def _elements(path: Path, part: FilePart) -> Iterator[bytes]:
    """Elements of an array, without the commas between them."""
    scanner = ArrayScanner()
    begun: list[bytes] = []
    for block in _blocks(path, part):
        found = scanner.scan(block)
        start = 0
        for comma in found.commas.tolist():
            yield b"".join([*begun, block[start:comma]])
            begun, start = [], comma + 1
        begun.append(block[start : found.close if found.close >= 0 else None])
        if found.close >= 0:
            break
    if (element := b"".join(begun)).strip(_BLANK):
        yield element


def _whole(path: Path, part: FilePart) -> Iterator[bytes]:
    yield b"".join(_blocks(path, part))


def _csv_blocks(path: Path, part: FilePart) -> Iterator[bytes]:
    """Pieces of about a block that hold whole lines."""
    ends, begun = CsvEnds(), bytearray()
    for block in _blocks(path, part):
        _, last = ends.feed(block)
        if last < 0:
            begun += block
            continue
        yield bytes(begun) + block[:last]
        begun = bytearray(block[last:])
    if begun.strip(b"\r\n"):
        yield bytes(begun)


def _csv_table(lines: bytes, names: list[str]) -> tuple[pa.Table, dict[int, str]]:
    """The lines as a table, and why others of them, by their position, are not in it."""
    skipped: list[pyarrow.csv.InvalidRow] = []

    def skip(row: pyarrow.csv.InvalidRow) -> str:
        skipped.append(row)
        return "skip"

    table = _parsed_csv(lines, names, {}, skip)
    # What is no number stays as it is written: times would be written anew, and what a column is
    # must not depend on the other records.
    texts = {
        field.name: pa.binary()
        for field in table.schema
        if not pa.types.is_null(field.type) and not _is_number(field.type)
    }
    if texts:
        skipped.clear()
        table = _parsed_csv(lines, names, texts, skip)
    bad = {
        row.number - 1: f"It has {row.actual_columns} columns, and the header "
        f"{row.expected_columns}: {row.text[:_SHOWN]}"
        for row in skipped
    }
    return _without_bad_text(table, list(texts), bad)


def _csv_keys(lines: bytes, names: list[str], key: str, count: int) -> list[str]:
    """The texts of a column by position; "" of lines that are no records."""
    skipped: set[int] = set()

    def skip(row: pyarrow.csv.InvalidRow) -> str:
        skipped.add(row.number - 1)
        return "skip"

    texts = dict.fromkeys(names, pa.binary())
    found = iter(_parsed_csv(lines, names, texts, skip, nulls=False)[key].to_pylist())
    return ["" if at in skipped else next(found).decode(errors="replace") for at in range(count)]


def _parsed_csv(
    lines: bytes,
    names: list[str],
    types: dict[str, pa.DataType],
    skip: Callable[[pyarrow.csv.InvalidRow], str],
    *,
    nulls: bool = True,
) -> pa.Table:
    return pyarrow.csv.read_csv(
        io.BytesIO(lines),
        read_options=pyarrow.csv.ReadOptions(
            column_names=names, use_threads=False, block_size=len(lines) + 1
        ),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
        convert_options=pyarrow.csv.ConvertOptions(column_types=types, strings_can_be_null=nulls),
    )


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _without_bad_text(
    table: pa.Table, texts: list[str], bad: dict[int, str]
) -> tuple[pa.Table, dict[int, str]]:
    """The table with texts that are UTF-8, and why records are not in it."""
    wrong: dict[int, str] = {}
    for name in texts:
        at = table.column_names.index(name)
        try:
            table = table.set_column(at, name, table[name].cast(pa.string()))
        except pa.ArrowInvalid:
            for row, value in enumerate(table[name].to_pylist()):
                try:
                    _ = value and value.decode()
                except UnicodeDecodeError:
                    shown = value[:_SHOWN].decode(errors="replace")
                    wrong[row] = f"{name} is no text in UTF-8: {shown}"
    if not wrong:
        return table, bad
    left = [at for at in range(table.num_rows + len(bad)) if at not in bad]
    bad = {**bad, **{left[row]: reason for row, reason in wrong.items()}}
    chosen = table.take([row for row in range(table.num_rows) if row not in wrong])
    return _without_bad_text(chosen, texts, bad)


def _batches(
    table: pa.Table,
    rows: Sequence[int],
    batch_size: int,
    as_column: Callable[[pa.ChunkedArray], Array],
    keys: Sequence[Any] | None,
) -> Iterator[Batch]:
    found = {name: as_column(table[name]) for name in table.column_names}
    for start in range(0, table.num_rows, batch_size):
        chosen = slice(start, start + batch_size)
        yield Batch(
            rows[chosen],
            {name: one[chosen] for name, one in found.items()},
            None if keys is None else keys[chosen],
        )


def _arrow_column(values: pa.ChunkedArray) -> Array:
    """A column as an array: of numbers, with NaN for a missing one, else of plain values."""
    if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        return np.asarray(values.to_numpy())
    if pa.types.is_boolean(values.type) and not values.null_count:
        return np.asarray(values.to_numpy())
    if pa.types.is_temporal(values.type) or pa.types.is_decimal(values.type):
        return objects(_arrow_values(values))
    return column(values.to_pylist())


def _arrow_values(values: pa.ChunkedArray) -> list[Any]:
    """Values as they are; times and decimals as texts."""
    if pa.types.is_temporal(values.type) or pa.types.is_decimal(values.type):
        return [None if one is None else str(one) for one in values.to_pylist()]
    return list(values.to_pylist())


def _csv_column(values: pa.ChunkedArray) -> Array:
    """Likewise; in a column of texts numbers, true and false stay such, and missing ones NaN."""
    if pa.types.is_null(values.type):
        return np.full(len(values), np.nan)
    if not pa.types.is_string(values.type):
        return _arrow_column(values)
    found = [_number(one) for one in values.to_pylist()]
    return np.array(found) if found and {*map(type, found)} == {bool} else objects(found)


def _number(text: str | None) -> Any:
    if text is None:
        return math.nan
    if not _NUMBER.fullmatch(text):
        return _TRUTH.get(text, text)
    return int(text) if text.lstrip("-").isdigit() else float(text)
