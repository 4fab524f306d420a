"""Long arrays in JSON, read in pieces.

No other thread runs while orjson reads, while lists become arrays of numpy, and while lists end: a
body of 80 MiB read at once would stop the server for seconds.

Where an array ends and where it can be cut is guessed by how its first element begins, which is
right of numbers, of rows, and of most records. If what is left and all pieces are JSON, it was
right, because together they are the text; else all of it is read at once. Where nothing can be
guessed cheaply, in deep nesting and among many short arrays, nothing is cut.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections import deque
from collections.abc import Iterator
from typing import Any

import orjson

_PIECE = 2**20  # bytes
LONG = 2 * _PIECE
_FAR = 64 * 2**10  # bytes before an array, or between two
_BLANKS = 64  # bytes
_MOST_SHORT = 256  # arrays
_DEEPEST = 3  # brackets at the beginning of an element
_FIRST = re.compile(rb"\s*(\"|(?:\[\s*){0,%d}\{?)(?!\[)" % _DEEPEST)
_CLOSING = bytes.maketrans(b"[{", b"]}")

Buffer = bytes | memoryview


def _spaced(marks: bytes) -> re.Pattern[bytes]:
    """Marks with blanks between them, a comma in a group."""
    escaped = [re.escape(bytes([mark])) for mark in marks]
    return re.compile(rb"\s*".join(escaped).replace(b",", b"(,)"))


def _marks(opening: bytes) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """Where arrays end whose elements begin with ``opening``, and where they can be cut."""
    closing = opening[::-1].translate(_CLOSING)
    return _spaced(closing + b"]"), _spaced(closing + b"," + opening)


_BRACKETS = [b"[" * depth for depth in range(_DEEPEST + 1)]
_MARKS = {
    opening: _marks(opening)
    for opening in (b'"', *_BRACKETS, *(brackets + b"{" for brackets in _BRACKETS))
}


class LongArray:
    """A long array in JSON; iterated, lists of its elements, one after another.

    Iterating raises:
        orjson.JSONDecodeError: If it is not JSON.
    """

    def __init__(self, text: Buffer, cut: re.Pattern[bytes]) -> None:
        """Read what is within its brackets, cut at the first group of ``cut``."""
        self._text = text
        self._cut = cut

    def __iter__(self) -> Iterator[list[Any]]:
        at, end = 0, len(self._text)
        while at <= end:
            found = self._cut.search(self._text, at + _PIECE)
            stop = found.start(1) if found else end
            try:
                piece = self._read(at, stop)
            except orjson.JSONDecodeError:  # cut within an element
                piece, stop = self._read(at, end), end
            if not piece and (at or stop < end):
                raise orjson.JSONDecodeError("an element is missing", "", 0)
            yield piece
            at = stop + 1

    def is_json(self) -> bool:
        """Whether iterating will not raise. It reads all of it, and keeps nothing."""
        try:
            deque(self, maxlen=0)
        except orjson.JSONDecodeError:
            return False
        return True

    def _read(self, start: int, stop: int) -> list[Any]:
        found: list[Any] = orjson.loads(b"".join([b"[", self._text[start:stop], b"]"]))
        return found


def take_out(body: Buffer, key: str) -> tuple[Any, dict[str, LongArray]]:
    """What JSON says, without its long arrays under a key.

    Args:
        body: The JSON.
        key: The name of the fields that may have long arrays.

    Returns:
        What it says, with words in place of the arrays; and the arrays by these words. Who does
        not find all of them where they are expected reads the body without this.

    Raises:
        orjson.JSONDecodeError: If it is not JSON.
    """
    if len(body) < LONG:
        return orjson.loads(body), {}
    begins = re.compile(rb'"%s"\s*:\s*\[' % re.escape(key.encode()))
    secret = secrets.token_hex(8)  # no field of the body has it
    parts: list[Buffer] = []
    arrays: dict[str, LongArray] = {}
    done = at = short = 0
    while short < _MOST_SHORT and (begin := begins.search(body, at, at + _FAR)):
        array, at = _array(body, begin.end())
        if not array:
            short += 1
        else:
            word = f"{secret} {len(arrays)}"
            arrays[word] = array
            parts += [body[done : begin.end() - 1], b'"%s"' % word.encode()]
            done = at
    if arrays:
        with contextlib.suppress(orjson.JSONDecodeError):  # unless one ends elsewhere
            found = orjson.loads(b"".join([*parts, body[done:]]))
            if type(found) is dict:
                return found, arrays
    return orjson.loads(body), {}


def _array(body: Buffer, start: int) -> tuple[LongArray | None, int]:
    """The array that begins before ``start``, if it is long; and where to read on behind it."""
    first = _FIRST.match(body, start)
    if first is None:  # it is nested too deeply
        return None, len(body)
    ends, cut = _MARKS[b"".join(first[1].split())]
    for at in range(start, len(body), _PIECE):
        if found := ends.search(body, at, at + _PIECE + _BLANKS):
            is_long = found.end() > start + LONG
            text = body[start : found.end() - 1]
            return LongArray(text, cut) if is_long else None, found.end()
    return None, len(body)
