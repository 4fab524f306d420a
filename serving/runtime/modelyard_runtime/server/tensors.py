"""Tensors of the Open Inference Protocol, in JSON and in its binary extension.

The protocol is https://github.com/kserve/open-inference-protocol; the extension is described in
docs/protocol/extension_binary_data.md of https://github.com/triton-inference-server/server.
Shape, datatype and data must agree to the last value: numpy would make True of the text
``"false"`` and wrap 300 into a byte.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Any

import numpy as np
import orjson

from modelyard_runtime.frames import Array, objects, plain
from modelyard_runtime.server.long_arrays import LongArray
from modelyard_runtime.server.refusals import RequestRefused, bad, shown

TEXT = "BYTES"
BRAIN_FLOAT = "BF16"  # the upper half of an FP32, as which it is read: numpy has no BF16
NUMBERS: Mapping[str, Any] = {
    "BOOL": np.dtype("?"),
    "INT8": np.dtype("<i1"), "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"), "INT64": np.dtype("<i8"),
    "UINT8": np.dtype("<u1"), "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"), "UINT64": np.dtype("<u8"),
    "FP16": np.dtype("<f2"), "FP32": np.dtype("<f4"), "FP64": np.dtype("<f8"),
}  # fmt: skip
_DATATYPES = (*NUMBERS, BRAIN_FLOAT, TEXT)
_HALVES = np.dtype("<u2")
_NAMES = {dtype: name for name, dtype in NUMBERS.items()}
_LENGTH = struct.Struct("<I")
_MOST_DIMENSIONS = 32
_MOST_ELEMENTS = 2**31
_MOST_AT_ONCE = 2**17  # values that are written while no other thread runs

# Types of values in JSON, of a tensor of each kind of dtype.
_VALUES: Mapping[str, set[type]] = {"b": {bool}, "i": {int}, "u": {int}, "f": {int, float}}


@dataclass(frozen=True)
class TensorSpec:
    """What is known of a tensor of a model.

    Attributes:
        name: Its name.
        datatype: The protocol's word for the type of its values.
        shape: Its dimensions; -1 for one of any length.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """As metadata has it."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


def shape_of(given: Any, name: str) -> tuple[int, ...]:
    """A shape of a request.

    Raises:
        RequestRefused: If it is none, or has too many elements to be true.
    """
    if type(given) is not list or not all(type(one) is int and one >= 0 for one in given):
        raise bad(
            f"The shape of {name} is {shown(given)}: give a list of whole numbers from 0 on."
        )
    # numpy wants the other dimensions to be possible even where one is 0.
    elements = prod(one or 1 for one in given)
    if len(given) > _MOST_DIMENSIONS or elements > _MOST_ELEMENTS:
        raise bad(
            f"The shape of {name} is {shown(given)}: at most {_MOST_DIMENSIONS} dimensions and "
            f"{_MOST_ELEMENTS} elements are taken."
        )
    return tuple(given)


def datatype_of(given: Any, name: str) -> str:
    """A datatype of a request.

    Raises:
        RequestRefused: If there is no such one.
    """
    if type(given) is not str or given not in _DATATYPES:
        raise bad(
            f"The datatype of {name} is {shown(given)}: give one of "
            f"{', '.join(_DATATYPES[:-1])} or {_DATATYPES[-1]}."
        )
    return given


def from_json(data: Any, datatype: str, shape: tuple[int, ...], name: str) -> Array:
    """The tensor of values in JSON: nested as its shape says, or flat in row-major order.

    Args:
        data: A list, or a :class:`LongArray`.
        datatype: The datatype.
        shape: The shape.
        name: The tensor's name.

    Raises:
        RequestRefused: If the values are not of the datatype, or not as many as the shape says.
        orjson.JSONDecodeError: If the long array is not JSON.
    """
    if datatype == BRAIN_FLOAT:
        raise bad(f"The input {name} is {BRAIN_FLOAT}: give its bytes, with binary_data_size.")
    found: list[Array] = []
    within: set[tuple[int, ...]] = set()
    for piece in data if isinstance(data, LongArray) else [data]:
        values, one = _flat(piece, name)
        found.append(_typed(values, datatype, name))
        within.add(one)
    if len(within) > 1:
        raise _ragged(name)
    _check_count(sum(map(len, found)), shape, name)
    return (found[0] if len(found) == 1 else np.concatenate(found)).reshape(shape)


def _typed(values: list[Any], datatype: str, name: str) -> Array:
    kinds = set(map(type, values))
    if datatype == TEXT:
        if kinds - {str}:
            raise _wrong_value(values, {str}, name, datatype)
        return objects(values)
    dtype = NUMBERS[datatype]
    allowed = _VALUES[dtype.kind]
    if kinds - allowed:
        raise _wrong_value(values, allowed, name, datatype)
    return _numbers(values, dtype, name, datatype)


def from_values(values: Sequence[Any], datatype: str, shape: tuple[int, ...], name: str) -> Array:
    """The tensor of values whose types are known: numbers, truth values, or bytes.

    Raises:
        RequestRefused: If they are beyond the datatype, or not as many as the shape says.
    """
    _check_count(len(values), shape, name)
    if datatype == TEXT:
        return objects([_decoded(one) for one in values]).reshape(shape)
    try:
        return np.fromiter(values, NUMBERS[datatype], len(values)).reshape(shape)
    except OverflowError:
        raise bad(f"The data of {name} has values beyond {datatype}.") from None


def _check_count(count: int, shape: tuple[int, ...], name: str) -> None:
    if count != prod(shape):
        raise bad(
            f"The shape {list(shape)} of {name} has {prod(shape)} elements, and its data has "
            f"{count}."
        )


def _numbers(values: list[Any], dtype: Any, name: str, datatype: str) -> Array:
    if dtype.kind in "iu" and values:
        limits = np.iinfo(dtype)
        if min(values) < limits.min or max(values) > limits.max:
            raise bad(f"The data of {name} has values beyond {datatype}.")
    try:
        with np.errstate(over="ignore"):
            found = np.array(values, dtype)
    except OverflowError:
        raise bad(f"The data of {name} has values beyond {datatype}.") from None
    if dtype.kind == "f" and not np.isfinite(found).all():
        raise bad(f"The data of {name} has values beyond {datatype}.")
    return found


def _flat(data: Any, name: str) -> tuple[list[Any], tuple[int, ...]]:
    """The values of nested lists of one shape, and the shape of an element of the outermost."""
    if type(data) is not list:
        raise bad(f"The data of {name} is {shown(data)}: give a list.")
    level = data
    within: list[int] = []
    for _ in range(_MOST_DIMENSIONS):
        if not level or type(level[0]) is not list:
            return level, tuple(within)
        length = len(level[0])
        if any(type(one) is not list or len(one) != length for one in level):
            raise _ragged(name)
        level = list(chain.from_iterable(level))
        within.append(length)
    raise bad(f"The data of {name} is nested more than {_MOST_DIMENSIONS} times.")


def _ragged(name: str) -> Exception:
    return bad(f"The data of {name} is ragged: lists beside each other differ in length.")


def _wrong_value(values: Sequence[Any], allowed: set[type], name: str, datatype: str) -> Exception:
    wrong = next(one for one in values if type(one) not in allowed)
    return bad(f"The data of {name} has {shown(wrong)}, which is no {datatype}.")


def from_bytes(data: memoryview, datatype: str, shape: tuple[int, ...], name: str) -> Array:
    """The tensor of its bytes: little-endian, row-major; texts each behind their length.

    Raises:
        RequestRefused: If there are more, or fewer, than the shape says.
    """
    if datatype == TEXT:
        return _texts(data, shape, name)
    dtype = _HALVES if datatype == BRAIN_FLOAT else NUMBERS[datatype]
    wanted = prod(shape) * dtype.itemsize
    if len(data) != wanted:
        raise bad(
            f"{name} has {len(data)} bytes, and {list(shape)} of {datatype} are {wanted} bytes."
        )
    if dtype.kind == "b" and len(data) and np.frombuffer(data, np.uint8).max() > 1:
        raise bad(f"The bytes of {name} are not BOOL: each is 0 or 1.")
    found = np.frombuffer(data, dtype)
    if datatype == BRAIN_FLOAT:
        found = (found.astype(np.uint32) << 16).view(np.float32)
    return found.reshape(shape)


def _texts(data: memoryview, shape: tuple[int, ...], name: str) -> Array:
    found: list[Any] = []
    at = 0
    while at < len(data):
        if at + _LENGTH.size > len(data):
            raise bad(f"The bytes of {name} end within the length of an element.")
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if length > len(data) - at:
            raise bad(f"An element of {name} has {length} bytes, and {len(data) - at} are left.")
        found.append(_decoded(bytes(data[at : at + length])))
        at += length
    if len(found) != prod(shape):
        raise bad(
            f"The shape {list(shape)} of {name} has {prod(shape)} elements, and its bytes have "
            f"{len(found)}."
        )
    return objects(found).reshape(shape)


def _decoded(value: bytes) -> str | bytes:
    """A text where it is UTF-8: what models take; other bytes stay as they are."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def datatype(array: Array) -> str:
    """The protocol's word for what an output of a model is."""
    if array.dtype == object:
        return TEXT
    return _NAMES[array.dtype.newbyteorder("<")]


def as_output(array: Array) -> Array:
    """An output of a model as a tensor: texts, and other plain values as their JSON.

    Numbers with missing ones among them are FP64, and NaN where one is missing.
    """
    if array.dtype != object:
        return array
    values = array.ravel().tolist()
    kinds = set(map(type, values))
    if kinds and kinds <= {int, float, type(None)} and kinds != {type(None)}:
        return np.array(values, np.float64).reshape(array.shape)
    if kinds <= {str, bytes}:
        return array
    texts = [one if type(one) in {str, bytes} else to_body(one).decode() for one in values]
    return objects(texts).reshape(array.shape)


def to_json(array: Array, name: str) -> Any:
    """The values of an output in row-major order, for orjson; NaN becomes null.

    Raises:
        RequestRefused: If they have no JSON, which binary output has.
    """
    values: Any
    if array.dtype == object:
        values = array.ravel().tolist()
        if bytes in set(map(type, values)):
            raise bad(
                f"The output {name} has bytes that are not UTF-8, which JSON does not have: ask "
                "for it as binary data."
            )
    elif array.dtype == np.float16:
        values = array.ravel().tolist()
    else:
        values = np.ascontiguousarray(array).ravel()
    return values if len(values) <= _MOST_AT_ONCE else _in_pieces(values)


def _in_pieces(values: Any) -> orjson.Fragment:
    """The JSON of many values; other threads run while it is written."""
    parts = [
        to_body(values[at : at + _MOST_AT_ONCE])[1:-1]
        for at in range(0, len(values), _MOST_AT_ONCE)
    ]
    return orjson.Fragment(b"".join([b"[", b",".join(parts), b"]"]))


def text_bytes(value: str | bytes) -> bytes:
    """An element of a tensor of texts.

    Raises:
        RequestRefused: 500, if it has no UTF-8.
    """
    try:
        return value.encode() if isinstance(value, str) else value
    except UnicodeEncodeError as error:
        raise RequestRefused(
            500, f"The model returned a text that has no UTF-8: {error}."
        ) from None


def to_body(answer: object) -> bytes:
    """The JSON of what a model returned; NaN becomes null.

    Raises:
        RequestRefused: 500, if it has none.
    """
    try:
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError:  # keys that are no texts, and values that only we have JSON of
        options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
    try:
        return orjson.dumps(answer, plain, options)
    except orjson.JSONEncodeError as error:
        why = error.__cause__ or error
        raise RequestRefused(500, f"The model returned what has no JSON: {why}.") from None


def to_bytes(array: Array) -> bytes:
    """The bytes of an output; see :func:`from_bytes`."""
    if array.dtype != object:
        return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    parts = []
    for one in array.ravel().tolist():
        value = text_bytes(one)
        parts += [_LENGTH.pack(len(value)), value]
    return b"".join(parts)
