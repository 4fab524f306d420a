"""A walk over the top level of a protobuf message, to tell a real one from a broken one.

The wire format: https://protobuf.dev/programming-guides/encoding. Only the heads of fields are
read, so a model of many gigabytes costs a few small reads.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO

_LONGEST_VARINT = 10
_FIXED = {1: 8, 5: 4}
_VARINT, _LENGTH = 0, 2


class MalformedError(Exception):
    """The bytes are no protobuf message, or end early."""


def fields(file: BinaryIO, size: int) -> Iterator[int]:
    """Numbers of the fields at the top level, in their order.

    Args:
        file: The message.
        size: Its bytes.

    Raises:
        MalformedError: If it does not parse, or is shorter than it says.
    """
    at = 0
    while at < size:
        file.seek(at)
        tag = _varint(file)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise MalformedError(f"no field has the number 0, at byte {at}")
        if wire == _VARINT:
            _varint(file)
            at = file.tell()
        elif wire == _LENGTH:
            length = _varint(file)
            at = file.tell() + length
        elif wire in _FIXED:
            at = file.seek(_FIXED[wire], io.SEEK_CUR)
        else:
            raise MalformedError(f"no field has the type {wire}, at byte {at}")
        if at > size:
            raise MalformedError(f"the file ends at byte {size}, its field {number} at {at}")
        yield number


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(_LONGEST_VARINT):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << (7 * shift)
        if byte[0] < 0x80:
            return value
    raise MalformedError("a number does not end")
