"""The texts of the records of JSON files, and what they say."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tasks.batch_inference.json_elements import ArrayScanner
from tasks.batch_inference.splitting import LONGEST_RECORD, FilePart, blocks, is_array

_BLANK = b" \t\r\n"
_SHOWN = 200


@dataclass(frozen=True)
class MalformedText:
    """A text that is no JSON.

    Attributes:
        reason: Why.
    """

    reason: str


def texts(path: Path, part: FilePart, input_format: str) -> Iterator[bytes]:
    """The texts of the records of a part, one after another.

    Raises:
        OSError: If the file is shorter than it was.
    """
    if input_format == "jsonl":
        return _lines(path, part)
    found = _elements(path, part) if is_array(path) else _whole(path, part)
    return itertools.islice(found, part.rows)


def chunks(found: Iterable[bytes], most: int) -> Iterator[Sequence[bytes]]:
    """Texts, ``most`` at once."""
    found = iter(found)
    while some := list(itertools.islice(found, most)):
        yield some


def load(some: Sequence[bytes]) -> list[Any]:
    """What texts say; a :class:`MalformedText` in the place of one that is no JSON."""
    if max(map(len, some)) <= LONGEST_RECORD:
        with contextlib.suppress(orjson.JSONDecodeError):
            return list(map(orjson.loads, some))
    return [_loaded(text) for text in some]


def _loaded(text: bytes) -> Any:
    if len(text) > LONGEST_RECORD:
        return MalformedText(f"It is longer than {LONGEST_RECORD / 2**20:g} MiB.")
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(text)  # what orjson refuses and Python writes: NaN, Infinity
    except (ValueError, RecursionError) as error:
        shown = text[:_SHOWN].decode("utf-8", "replace").strip()
        return MalformedText(f"It is no JSON ({error}): {shown}")


class _OpenText:
    """The text of a record that has begun; of a too long one no more than shows that it is."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def add(self, piece: bytes) -> None:
        if self._size <= LONGEST_RECORD:
            self._pieces.append(piece)
            self._size += len(piece)

    def end(self, piece: bytes = b"") -> bytes:
        """The text with its last piece; another one begins."""
        self.add(piece)
        text = b"".join(self._pieces)
        self._pieces, self._size = [], 0
        return text


def _lines(path: Path, part: FilePart) -> Iterator[bytes]:
    """Lines that are not blank."""
    begun = _OpenText()
    for block in blocks(path, part):
        *lines, tail = block.split(b"\n")
        if lines:
            lines[0] = begun.end(lines[0])
            yield from [line for line in lines if line.strip(_BLANK)]
        begun.add(tail)
    if (line := begun.end()).strip(_BLANK):
        yield line


def _elements(path: Path, part: FilePart) -> Iterator[bytes]:
    """Elements of an array, without the commas between them."""
    scanner = ArrayScanner()
    begun = _OpenText()
    for block in blocks(path, part):
        found = scanner.scan(block)
        start = 0
        for comma in found.commas.tolist():
            yield begun.end(block[start:comma])
            start = comma + 1
        begun.add(block[start : found.close if found.close >= 0 else None])
        if found.close >= 0:
            break
    if (element := begun.end()).strip(_BLANK):
        yield element


def _whole(path: Path, part: FilePart) -> Iterator[bytes]:
    text = _OpenText()
    for block in blocks(path, part):
        text.add(block)
    yield text.end()
