"""Columns of Parquet files: what is to be known of them, and their values."""

from __future__ import annotations

import collections
import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from modelyard_runtime.frames import Array, objects

from tasks.batch_inference import value_columns
from tasks.batch_inference.value_columns import FLOATS, MIXED_LISTS, OBJECTS

_BLOCK = 2**20
# What Arrow raises of a damaged file, and Python of a value that it does not have.
UNREADABLE = (OSError, ValueError, NotImplementedError, OverflowError)

_PLAIN = (str, bytes, int, float, type(None))


@dataclass(frozen=True)
class ParquetSchema:
    """What is known of the columns of a file.

    Attributes:
        names: Their names.
        types: Their letters, for ``value_columns.parse_types``; "" without any. Where a value is
            missing, or the file does not say, integers are floats, and true and false are objects.
    """

    names: list[str]
    types: str


def read_schema(path: Path) -> ParquetSchema:
    """What is known of the columns of a file.

    Raises:
        OSError: If it cannot be read.
    """
    metadata = pq.read_metadata(path)
    schema = metadata.schema.to_arrow_schema()
    leaves = [metadata.schema.column(at) for at in range(metadata.num_columns)]
    columns = {leaf.name: at for at, leaf in enumerate(leaves) if leaf.path == leaf.name}
    groups = [metadata.row_group(at) for at in range(metadata.num_row_groups)]
    found = {}
    for field in schema:
        is_whole = pa.types.is_integer(field.type)
        if (is_whole or pa.types.is_boolean(field.type)) and any(
            _may_lack(group.column(columns[field.name])) for group in groups
        ):
            found[field.name] = FLOATS if is_whole else OBJECTS
    return ParquetSchema(schema.names, json.dumps(found) if found else "")


def _may_lack(chunk: pq.ColumnChunkMetaData) -> bool:
    """Whether a value of a chunk may be missing."""
    statistics = chunk.statistics
    return statistics is None or not statistics.has_null_count or statistics.null_count > 0


def tables(path: Path, groups: range, rows: int) -> Iterator[pa.Table]:
    """The rows of row groups of a file, ``rows`` at once at most.

    Raises:
        OSError: If there is no such file.
        ValueError: If they cannot be read; the message names the column.
    """
    # Through a buffer: else a row group, which may have gigabytes, would be read as a whole.
    with pq.ParquetFile(
        path, buffer_size=_BLOCK, pre_buffer=False, page_checksum_verification=True
    ) as file:
        try:
            for batch in file.iter_batches(rows, groups):
                yield pa.Table.from_batches([batch])
        except UNREADABLE as error:
            for name in file.schema_arrow.names:
                with _naming(name):
                    collections.deque(file.iter_batches(rows, groups, columns=[name]), maxlen=0)
            raise ValueError(str(error)) from error


def parse_types(types: str | None, schema: pa.Schema) -> Mapping[str, str]:
    """The letters of columns by their names; a missing list is no number."""
    lists = {
        field.name: OBJECTS + MIXED_LISTS * pa.types.is_uint64(_leaf(field.type))
        for field in schema
        if _is_list(field.type)
    }
    return {**lists, **value_columns.parse_types(types)}


def fields(table: pa.Table, letters: Mapping[str, str]) -> dict[str, list[Any] | Array]:
    """The columns of a table as ``value_columns.arrays`` takes them.

    Raises:
        ValueError: If a value has no counterpart in Python; the message names the column.
    """
    found = {}
    for name in table.column_names:
        with _naming(name):
            found[name] = _field(table[name], letters.get(name, ""))
    return found


def keys(table: pa.Table, name: str) -> list[Any]:
    """The values of a column as they are; times and decimals as texts.

    Raises:
        ValueError: If a value has no counterpart in Python; the message names the column.
    """
    with _naming(name):
        return _values(table[name])


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Have errors name a column."""
    try:
        yield
    except UNREADABLE as error:
        raise ValueError(f"its column {name!r}: {' '.join(str(error).split())}") from error


def _field(column: pa.ChunkedArray, letters: str) -> list[Any] | Array:
    if pa.types.is_integer(column.type) and FLOATS in letters:
        return np.asarray(column.to_numpy(), np.float64)
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return np.asarray(column.to_numpy())
    if pa.types.is_boolean(column.type) and OBJECTS not in letters:
        return np.asarray(column.to_numpy())
    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    if _is_list(column.type):
        tensor = None if MIXED_LISTS in letters else _tensor(column)
        return _values(column) if tensor is None else tensor
    return objects(_values(column))


def _tensor(column: pa.ChunkedArray) -> Array | None:
    """Lists of numbers that have one shape; None if they have not, or a value is missing."""
    array = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    shape = [len(array)]
    while _is_list(array.type):
        lengths = array.value_lengths()
        if array.null_count or not len(lengths) or lengths[0].as_py() == 0:
            return None
        if pc.min_max(lengths)["min"] != pc.min_max(lengths)["max"]:
            return None
        shape.append(lengths[0].as_py())
        array = array.flatten()
    dtype = next((dtype for is_kind, dtype in _DTYPES if is_kind(array.type)), None)
    if array.null_count or dtype is None:
        return None
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype).reshape(shape)


# Types whose values may be none of JSON's.
_MAY_HAVE_OTHERS: tuple[Callable[[pa.DataType], bool], ...] = (
    pa.types.is_temporal,
    pa.types.is_decimal,
    pa.types.is_nested,
    pa.types.is_dictionary,
    lambda kind: isinstance(kind, pa.BaseExtensionType),
)

# What Python's own numbers would become.
_DTYPES = (
    (pa.types.is_integer, np.int64),
    (pa.types.is_floating, np.float64),
    (pa.types.is_boolean, np.bool_),
)


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )


def _leaf(kind: pa.DataType) -> pa.DataType:
    """The type of what lists hold, and not themselves."""
    return _leaf(kind.value_type) if _is_list(kind) else kind


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Values as they are; times and decimals as texts."""
    found, leaf = column.to_pylist(), _leaf(column.type)
    return list(map(_plain, found)) if any(may(leaf) for may in _MAY_HAVE_OTHERS) else found


def _plain(value: Any) -> Any:
    """A value of JSON's types; bytes as they are, others as texts."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return list(map(_plain, value)) if isinstance(value, list | tuple) else str(value)
