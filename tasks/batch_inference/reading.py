"""The records of a part, as batches of columns."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from modelyard_runtime.frames import Array, Columns, objects
from modelyard_runtime.records import column, columns, form

from tasks.batch_inference import csv_columns, json_texts, splitting
from tasks.batch_inference.csv_columns import CsvType
from tasks.batch_inference.json_texts import MalformedText
from tasks.batch_inference.splitting import (
    CsvEnds,
    FilePart,
    column_names,
)

_BLOCK = 2**20
_SHOWN = 200


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
    path: Path,
    input_format: str,
    part: FilePart,
    batch_size: int,
    key: str = "",
    types: str | None = None,
) -> Iterator[Batch | BadRecord]:
    """The records of a part; batches have ``batch_size`` records at most.

    Those of JSON that have other fields come apart from them, behind those that follow.

    Args:
        path: The file.
        input_format: Its format.
        part: The part.
        batch_size: Most records of a batch.
        key: The field that is a record's key, which is among no columns; "" if none. A key stays
            what it is, in CSV a text: conversions are for the model's numbers.
        types: The types of the columns of CSV; without, cells are texts.

    Raises:
        OSError: If the file cannot be read, or is shorter than it was; the message names it.
    """
    if not part.rows:
        return
    try:
        yield from _READERS[input_format](path, part, batch_size, key, types)
    except (OSError, ValueError, MemoryError) as error:  # Arrow's own are ValueErrors
        why = getattr(error, "strerror", None) or str(error) or "there is too little memory"
        raise OSError(f"{path} cannot be read: {why}") from error


def _read_json(
    input_format: str, path: Path, part: FilePart, batch_size: int, key: str, _: str | None
) -> Iterator[Batch | BadRecord]:
    row = part.first_row
    for some in json_texts.chunks(json_texts.texts(path, part, input_format), batch_size):
        records, rows = [], []
        for at, found in enumerate(json_texts.load(some), row):
            if isinstance(found, MalformedText):
                yield BadRecord(at, found.reason)
            else:
                records.append(found)
                rows.append(at)
        for chosen in _by_form(records):
            yield _batch([rows[at] for at in chosen], [records[at] for at in chosen], key)
        row += len(some)


def _read_csv(
    path: Path, part: FilePart, batch_size: int, key: str, types: str | None
) -> Iterator[Batch | BadRecord]:
    names = column_names(path)
    types = CsvType.TEXT * len(names) if types is None else types
    if len(types) != len(names):
        raise ValueError(f"it has {len(names)} columns, where {len(types)} were counted")
    types_of = dict(zip(names, map(CsvType, types), strict=True))
    row = part.first_row
    for lines in _csv_blocks(path, part):
        table, bad = _csv_table(lines, names, types)
        count = table.num_rows + len(bad)
        numbers = [row + at for at in range(count) if at not in bad]
        yield from (BadRecord(row + at, reason) for at, reason in bad.items())
        keys = None
        if key in names:
            known = _csv_keys(lines, names, key, count)
            keys = [known[number - row] for number in numbers]
            table = table.drop_columns(key)
        columns = {
            name: csv_columns.as_array(table[name], types_of[name]) for name in table.column_names
        }
        yield from _batches(columns, numbers, batch_size, keys)
        row += count


def _read_parquet(
    path: Path, part: FilePart, batch_size: int, key: str, _: str | None
) -> Iterator[Batch | BadRecord]:
    row = part.first_row
    # Through a buffer: else a row group, which may have gigabytes, would be read as a whole.
    with pq.ParquetFile(path, buffer_size=_BLOCK, pre_buffer=False) as file:
        for group in file.iter_batches(batch_size, range(part.start, part.end)):
            table = pa.Table.from_batches([group])
            rows, keys = range(row, row + table.num_rows), None
            if key and key in table.column_names:
                keys = _arrow_values(table[key])
                table = table.drop_columns(key)
            columns = {name: _arrow_column(table[name]) for name in table.column_names}
            yield from _batches(columns, rows, batch_size, keys)
            row += len(rows)


_Reader = Callable[[Path, FilePart, int, str, str | None], Iterator[Batch | BadRecord]]
_READERS: dict[str, _Reader] = {
    "json": functools.partial(_read_json, "json"),
    "jsonl": functools.partial(_read_json, "jsonl"),
    "csv": _read_csv,
    "parquet": _read_parquet,
}


def _by_form(records: Sequence[Any]) -> Iterable[Sequence[int]]:
    """The positions of records, together with those of their form."""
    forms = list(map(form, records))
    if forms and forms.count(forms[0]) == len(forms):
        return [range(len(forms))]
    found: dict[Hashable, list[int]] = {}
    for at, one in enumerate(forms):
        found.setdefault(one, []).append(at)
    return found.values()


def _batch(rows: Sequence[int], records: Sequence[Any], key: str) -> Batch:
    found, keys = dict(columns(records)), None
    if key and key in found and isinstance(records[0], dict):
        keys = [record[key] for record in records]
        del found[key]
    return Batch(rows, found, keys)


def _csv_blocks(path: Path, part: FilePart) -> Iterator[bytes]:
    """Pieces of about a block that hold whole lines."""
    ends, begun = CsvEnds(), bytearray()
    for block in splitting.blocks(path, part):
        _, last = ends.feed(block)
        if last < 0:
            begun += block
            continue
        yield bytes(begun) + block[:last]
        begun = bytearray(block[last:])
    if begun.strip(b"\r\n"):
        yield bytes(begun)


def _csv_table(lines: bytes, names: list[str], types: str) -> tuple[pa.Table, dict[int, str]]:
    """The lines as a table, and why others of them, by their position, are not in it."""
    table, skipped = csv_columns.parse_as(lines, names, types)
    bad = {
        row.number - 1: f"It has {row.actual_columns} columns, and the header "
        f"{row.expected_columns}: {row.text[:_SHOWN]}"
        for row in skipped
    }
    texts = [name for name, one in zip(names, types, strict=True) if one == CsvType.TEXT]
    return _without_bad_text(table, texts, bad)


def _csv_keys(lines: bytes, names: list[str], key: str, count: int) -> list[str]:
    """The texts of a column by position; "" of lines that are no records."""
    table, skipped = csv_columns.parse(
        lines, names, {key: pa.binary()}, only=[key], has_missing=False
    )
    bad = {row.number - 1 for row in skipped}
    found = iter(table[key].to_pylist())
    return ["" if at in bad else next(found).decode(errors="replace") for at in range(count)]


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
    columns: Columns, rows: Sequence[int], batch_size: int, keys: Sequence[Any] | None
) -> Iterator[Batch]:
    for start in range(0, len(rows), batch_size):
        chosen = slice(start, start + batch_size)
        yield Batch(
            rows[chosen],
            {name: one[chosen] for name, one in columns.items()},
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
