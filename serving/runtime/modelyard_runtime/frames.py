"""Frames: batches of rows between two processes.

A frame is the length of its header (4 bytes, little endian), the header in JSON, and the bytes of
its columns one after another. The header lists the columns by name, kind and shape, and may carry
other fields. A column is one array, whose first axis is the rows:

``array``
    Numbers or booleans, as numpy lays them out in memory.
``text``
    Strings: where each ends (uint64), and all of them in UTF-8.
``bytes``
    Likewise, of byte strings; and which of them are there (uint8), and not missing.
``json``
    Other values, such as ragged lists, in JSON.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

Array = np.ndarray[Any, Any]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Columns = Mapping[str, Array]

_LENGTH = struct.Struct("<I")
_LONGEST_HEADER = 16 * 2**20
_LONGEST_COLUMN = 4 * 2**30
_PLAIN = "biufc"  # the kinds of dtype that have no pointers
_MISSING = frozenset({"NAType", "NaTType"})  # of pandas, which need not be there


class FrameError(ValueError):
    """What was read is no frame; the other side is not to be trusted any more."""


@dataclass(frozen=True)
class Frame:
    """A frame.

    Attributes:
        fields: What the header says beside the columns; plain data.
        columns: Arrays by name; their first axes are equally long.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    columns: Columns = field(default_factory=dict)


def write(file: BinaryIO, frame: Frame) -> None:
    """Write a frame and flush it.

    Raises:
        OSError: If the other side is gone.
        FrameError: If a value of a column cannot be sent; nothing is written then.
    """
    send(file, encoded(frame))


def send(file: Any, pieces: Sequence[memoryview]) -> None:
    """Write a frame that is :func:`encoded`, and flush it.

    Raises:
        OSError: If the other side is gone.
    """
    for piece in pieces:
        file.write(piece)
    file.flush()


def encoded(frame: Frame) -> list[memoryview]:
    """A frame's bytes, in pieces.

    Raises:
        FrameError: If a value of a column cannot be sent; the message names the column.
    """
    described, buffers = [], []
    for name, column in frame.columns.items():
        try:
            kind, parts = _encoded(column)
        except (TypeError, ValueError, RecursionError) as error:
            raise FrameError(f"{name}: {error}") from error
        if max(part.nbytes for part in parts) > _LONGEST_COLUMN:
            raise FrameError(f"{name}: more than {_LONGEST_COLUMN} bytes cannot be sent")
        described.append(
            {
                "name": name,
                "kind": kind,
                "dtype": column.dtype.str,
                "shape": column.shape,
                "bytes": [part.nbytes for part in parts],
            }
        )
        buffers += parts
    header = json.dumps({**frame.fields, "columns": described}).encode()
    if len(header) > _LONGEST_HEADER:
        raise FrameError("there are too many columns, or their names are too long")
    start = memoryview(_LENGTH.pack(len(header)) + header)
    return [start, *(buffer.data for buffer in buffers)]


def read(file: BinaryIO) -> Frame | None:
    """Read a frame; None where the stream ends before one.

    Raises:
        FrameError: If the stream holds something else, or ends within a frame.
    """
    start = file.read(_LENGTH.size)
    if not start:
        return None
    if len(start) < _LENGTH.size:
        raise FrameError("The stream ended within a frame.")
    (length,) = _LENGTH.unpack(start)
    if length > _LONGEST_HEADER:
        raise FrameError(f"A header of {length} bytes is no frame's.")
    try:
        fields = json.loads(_exactly(file, length).tobytes())
        columns = {str(one["name"]): _column(file, one) for one in fields.pop("columns")}
    except FrameError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise FrameError(f"The frame is malformed: {error}") from error
    return Frame(fields, columns)


def _encoded(column: Array) -> tuple[str, list[Bytes]]:
    if column.dtype.kind in _PLAIN:
        return "array", [np.ascontiguousarray(column).reshape(-1).view(np.uint8)]
    values = column.tolist()
    if column.ndim == 1 and all(type(value) is str for value in values):
        texts = [value.encode("utf-8", "surrogatepass") for value in values]
        ends = np.cumsum([len(text) for text in texts], dtype=np.uint64)
        return "text", [ends.view(np.uint8), _bytes(b"".join(texts))]
    if column.ndim == 1 and any(type(value) is bytes for value in values):
        there = np.array([value is not None for value in values], dtype=np.uint8)
        held = [b"" if value is None else value for value in values]
        ends = np.cumsum([len(value) for value in held], dtype=np.uint64)
        return "bytes", [ends.view(np.uint8), _bytes(b"".join(held)), there]
    return "json", [_bytes(json.dumps(values, default=plain).encode())]


def _bytes(data: bytes) -> Bytes:
    return np.frombuffer(data, dtype=np.uint8)


def plain(value: Any) -> Any:
    """A value as JSON has it; the ``default`` of ``json.dumps``.

    Arrays are lists, times as in ISO 8601, missing values of pandas null, bytes texts in UTF-8.

    Raises:
        TypeError: If it has no JSON.
    """
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else str(value)
    if isinstance(value, np.generic | np.ndarray) and value.dtype.kind not in "cmV":
        return value.astype(str).tolist() if value.dtype.kind == "M" else value.tolist()
    if type(value).__name__ in _MISSING:
        return None
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, bytes):
        with contextlib.suppress(UnicodeDecodeError):
            return value.decode()
        raise TypeError("bytes that are not UTF-8 have no JSON: encode them, such as in base64")
    raise TypeError(f"a {type(value).__name__} has no JSON")


def _column(file: BinaryIO, described: Mapping[str, Any]) -> Array:
    kind, shape = described["kind"], tuple(map(int, described["shape"]))
    parts = [_exactly(file, int(length)) for length in described["bytes"]]
    if kind == "array":
        dtype = np.dtype(described["dtype"])
        if dtype.kind not in _PLAIN:
            raise FrameError(f"A column of dtype {dtype} cannot be sent.")
        if math.prod(shape) * dtype.itemsize != parts[0].nbytes:
            raise FrameError("A column's shape does not fit its bytes.")
        return np.asarray(parts[0].view(dtype).reshape(shape))
    if kind in {"text", "bytes"}:
        data = parts[1].tobytes()
        ends = [0, *parts[0].view(np.uint64).tolist()]
        values: list[Any] = [data[start:end] for start, end in itertools.pairwise(ends)]
        if kind == "text":
            values = [value.decode("utf-8", "surrogatepass") for value in values]
        else:
            there = zip(values, parts[2].tolist(), strict=True)
            values = [value if is_there else None for value, is_there in there]
    elif kind == "json":
        values = json.loads(parts[0].tobytes())
    else:
        raise FrameError(f"There are no columns of kind {kind!r}.")
    if len(values) != shape[0]:
        raise FrameError("A column's shape does not fit its values.")
    return objects(values)


def objects(values: list[Any]) -> Array:
    """An array of one axis with any values, also lists."""
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _exactly(file: BinaryIO, length: int) -> Bytes:
    if not 0 <= length <= _LONGEST_COLUMN:
        raise FrameError(f"A column of {length} bytes cannot be sent.")
    buffer: Bytes = np.empty(length, dtype=np.uint8)
    view, at = buffer.data, 0
    while at < length:
        count = file.readinto(view[at:])  # type: ignore[attr-defined]
        if not count:
            raise FrameError("The stream ended within a frame.")
        at += count
    return buffer
