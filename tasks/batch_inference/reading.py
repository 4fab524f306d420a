"""The records of a part, as batches of columns."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from modelyard_runtime.frames import Array, Columns
from modelyard_runtime.models.base import INPUT
from modelyard_runtime.records import form

from tasks.batch_inference import (
    csv_columns,
    json_texts,
    parquet_columns,
    splitting,
    value_columns,
)
from tasks.batch_inference.csv_columns import CsvType
from tasks.batch_inference.json_texts import MalformedText
from tasks.batch_inference.splitting import (
    CsvEnds,
    FilePart,
    column_names,
)

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
        """The records in their order, ``most`` at once."""
        if most >= len(self.rows):
            yield self
            return
        for start in range(0, len(self.rows), most):
            chosen = slice(start, start + most)
            yield Batch(
                self.rows[chosen],
                {name: values[chosen] for name, values in self.columns.items()},
                None if self.keys is None else self.keys[chosen],
            )


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
    only: Collection[str] | None = None,
) -> Iterator[Batch | BadRecord]:
    """The records of a part; batches have ``batch_size`` records at most.

    Those that have other fields, or other values, than their neighbours come apart from them,
    behind those that follow.

    Args:
        path: The file.
        input_format: Its format.
        part: The part.
        batch_size: Most records of a batch.
        key: The field that is a record's key, which is among no columns; "" if none. A key stays
            what it is, in CSV a text: conversions are for the model's numbers.
        types: What the plan knows of the fields of the file. Without, cells of CSV are texts, and
            integers beside fractions or missing values are floats, but not those of other batches.
        only: Fields that records have, the key among them; all by default. The others are read as
            well, because what is in them may be why a record cannot be.

    Raises:
        OSError: If the file cannot be read, or is shorter than it was; the message names it.
    """
    if not part.rows:
        return
    try:
        yield from _READERS[input_format](path, part, batch_size, key, types, only)
    except (OSError, ValueError, MemoryError) as error:  # Arrow's own are ValueErrors
        why = getattr(error, "strerror", None) or str(error) or "there is too little memory"
        raise OSError(f"{path} cannot be read: {why}") from error


def _read_json(
    input_format: str,
    path: Path,
    part: FilePart,
    batch_size: int,
    key: str,
    types: str | None,
    only: Collection[str] | None,
) -> Iterator[Batch | BadRecord]:
    row, letters = part.first_row, value_columns.parse_types(types)
    for some in json_texts.chunks(json_texts.texts(path, part, input_format), batch_size):
        for kind, (rows, records) in _by_form(json_texts.load(some), row).items():
            if kind is MalformedText:
                for at, malformed in zip(rows, records, strict=True):
                    yield BadRecord(at, malformed.reason)
                continue
            fields, keys = _fields(records, only), None
            if key and key in fields and isinstance(records[0], dict):
                keys = fields.pop(key)
            yield from _batches(fields, letters, rows, keys)
        row += len(some)


def _fields(records: Sequence[Any], only: Collection[str] | None) -> dict[str, list[Any]]:
    """The values of the fields of records of one form; of others as the one ``input``."""
    if isinstance(records[0], dict):
        names = [name for name in records[0] if only is None or name in only]
        return {name: [record[name] for record in records] for name in names}
    return {INPUT: list(records)}


def _batches(
    fields: Mapping[str, list[Any] | Array],
    letters: Mapping[str, str],
    rows: Sequence[int],
    keys: Sequence[Any] | None,
) -> Iterator[Batch]:
    """A batch of records; several where their values have no arrays in common."""
    for chosen, columns in value_columns.arrays(fields, letters, len(rows)):
        if len(chosen) == len(rows):
            yield Batch(rows, columns, keys)
        else:
            own_keys = None if keys is None else [keys[at] for at in chosen]
            yield Batch([rows[at] for at in chosen], columns, own_keys)


def _read_csv(
    path: Path,
    part: FilePart,
    batch_size: int,
    key: str,
    types: str | None,
    only: Collection[str] | None,
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
            name: csv_columns.as_array(table[name], types_of[name])
            for name in table.column_names
            if only is None or name in only
        }
        if numbers:
            yield from Batch(numbers, columns, keys).pieces(batch_size)
        row += count


def _read_parquet(
    path: Path,
    part: FilePart,
    batch_size: int,
    key: str,
    types: str | None,
    only: Collection[str] | None,
) -> Iterator[Batch | BadRecord]:
    row = part.first_row
    for whole in parquet_columns.tables(path, range(part.start, part.end), batch_size):
        letters = parquet_columns.parse_types(types, whole.schema)
        has_keys = key and key in whole.column_names
        names = [name for name in whole.column_names if name != key]
        table = whole.select([name for name in names if only is None or name in only])
        keys = parquet_columns.keys(whole, key) if has_keys else None
        rows = range(row, row + table.num_rows)
        yield from _batches(parquet_columns.fields(table, letters), letters, rows, keys)
        row += len(rows)


_Reader = Callable[
    [Path, FilePart, int, str, str | None, Collection[str] | None], Iterator[Batch | BadRecord]
]
_READERS: dict[str, _Reader] = {
    "json": functools.partial(_read_json, "json"),
    "jsonl": functools.partial(_read_json, "jsonl"),
    "csv": _read_csv,
    "parquet": _read_parquet,
}


def _by_form(
    records: Sequence[Any], row: int
) -> dict[Hashable, tuple[Sequence[int], Sequence[Any]]]:
    """Records and their rows by their form, the first of which is ``row``."""
    kinds = set(map(type, records))
    forms: list[Hashable] = list(map(tuple if kinds == {dict} else _form, records))
    if forms.count(forms[0]) == len(forms):
        return {forms[0]: (range(row, row + len(forms)), records)}
    found: dict[Hashable, tuple[list[int], list[Any]]] = {}
    for at, (one, record) in enumerate(zip(forms, records, strict=True), row):
        rows, alike = found.setdefault(one, ([], []))
        rows.append(at)
        alike.append(record)
    return {**found}


def _form(record: Any) -> Hashable:
    return MalformedText if isinstance(record, MalformedText) else form(record)


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
        row.number - 1: f"It has {row.actual_columns} cells, and the header names "
        f"{row.expected_columns} columns: {row.text[:_SHOWN]}"
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
    chosen = table.take(pa.array((row for row in range(table.num_rows) if row not in wrong),
                                 pa.int64()))  # fmt: skip
    return _without_bad_text(chosen, texts, bad)
