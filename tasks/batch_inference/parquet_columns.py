"""Columns of Parquet files: what is to be known of them, and their values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from modelyard_runtime.frames import Array, objects

from tasks.batch_inference import value_columns
from tasks.batch_inference.value_columns import FLOATS, OBJECTS


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
    columns = {metadata.schema.column(at).path: at for at in range(metadata.num_columns)}
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


def parse_types(types: str | None, schema: pa.Schema) -> Mapping[str, str]:
    """The letters of columns by their names; a missing list is no number."""
    lists = {field.name: OBJECTS for field in schema if _is_list(field.type)}
    return {**lists, **value_columns.parse_types(types)}


def fields(table: pa.Table, letters: Mapping[str, str]) -> dict[str, list[Any] | Array]:
    """The columns of a table as ``value_columns.arrays`` takes them."""
    return {name: _field(table[name], letters.get(name, "")) for name in table.column_names}


def _field(column: pa.ChunkedArray, letters: str) -> list[Any] | Array:
    if pa.types.is_integer(column.type) and FLOATS in letters:
        return np.asarray(column.to_numpy(), np.float64)
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return np.asarray(column.to_numpy())
    if pa.types.is_boolean(column.type) and OBJECTS not in letters:
        return np.asarray(column.to_numpy())
    found = values(column)
    return found if _is_list(column.type) else objects(found)


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def values(column: pa.ChunkedArray) -> list[Any]:
    """Values as they are; times and decimals as texts."""
    if pa.types.is_temporal(column.type) or pa.types.is_decimal(column.type):
        return [None if one is None else str(one) for one in column.to_pylist()]
    return list(column.to_pylist())
