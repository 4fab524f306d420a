"""Columns of CSV files: their types, as pandas finds them, and their values.

A column has one type in its whole file, which all of its cells decide as in ``pandas.read_csv``:
what most models were fitted with. It is found while the file is cut into parts, so that whatever
is read of the file later is converted alike.
"""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from modelyard_runtime.frames import Array, objects

# Cells without a value.
MISSING_CELLS = frozenset({
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
    "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
})  # fmt: skip
_TRUTH = {
    "".join(letters): word == "true"
    for word in ("true", "false")
    for letters in itertools.product(*zip(word, word.upper(), strict=True))
}
_TRUE, _FALSE = ([text for text, value in _TRUTH.items() if value is one] for one in (True, False))
_WHOLE = re.compile(r"\s*[+-]?\d{1,4000}\s*", re.ASCII)  # Python refuses longer ones
_FLOAT = re.compile(
    r"\s*[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf|infinity)\s*", re.ASCII | re.IGNORECASE
)
_HEXADECIMAL = re.compile(rb"0[xX]")  # a number for Arrow, a text for pandas


class CsvType(StrEnum):
    """Type of a column of CSV; a letter, because a plan has those of each column of each file."""

    EMPTY = "e"
    """No cell has a value: all are NaN."""
    WHOLE = "i"
    """Integers of 64 bits."""
    UNSIGNED = "u"
    """Integers of 64 bits, none of them negative, and some beyond :attr:`WHOLE`."""
    LARGE = "n"
    """Integers of any size, and NaN for a missing one."""
    FLOAT = "f"
    """Numbers, and NaN for a missing one; integers too, if one is missing."""
    TRUTH = "b"
    """True and false."""
    OPTIONAL_TRUTH = "o"
    """True, false, and NaN for a missing one."""
    TEXT = "t"
    """Texts as they are written, and NaN for a missing one."""


_ARROW = {
    CsvType.EMPTY: pa.int64(), CsvType.WHOLE: pa.int64(), CsvType.UNSIGNED: pa.uint64(),
    CsvType.LARGE: pa.binary(), CsvType.FLOAT: pa.float64(), CsvType.TRUTH: pa.bool_(),
    CsvType.OPTIONAL_TRUTH: pa.bool_(), CsvType.TEXT: pa.binary(),
}  # fmt: skip
_PARSED: Mapping[CsvType, Callable[[str], Any]] = {
    CsvType.WHOLE: int, CsvType.UNSIGNED: int, CsvType.LARGE: int, CsvType.FLOAT: float,
    CsvType.TRUTH: _TRUTH.__getitem__, CsvType.OPTIONAL_TRUTH: _TRUTH.__getitem__,
}  # fmt: skip
_OBJECTS = {CsvType.LARGE, CsvType.OPTIONAL_TRUTH}
_INT64, _UINT64 = np.iinfo(np.int64), np.iinfo(np.uint64)


@dataclass
class _ObservedColumn:
    """What was seen of a column's cells.

    Attributes:
        kind: ``WHOLE`` of integers of any size, ``FLOAT``, ``TRUTH`` or ``TEXT``; ``EMPTY`` until
            there is a value.
        has_missing: Whether a cell has no value.
        lowest: The lowest integer, or 0.
        highest: The highest integer, or 0.
    """

    kind: CsvType = CsvType.EMPTY
    has_missing: bool = False
    lowest: int = 0
    highest: int = 0

    @property
    def type(self) -> CsvType:
        """The column's type, if these are all of its cells."""
        if self.kind is CsvType.WHOLE and self.has_missing:
            return CsvType.FLOAT if self._whole is CsvType.WHOLE else CsvType.LARGE
        if self.kind is CsvType.TRUTH and self.has_missing:
            return CsvType.OPTIONAL_TRUTH
        return self._whole if self.kind is CsvType.WHOLE else self.kind

    @property
    def _whole(self) -> CsvType:
        """The type of integers from the lowest to the highest."""
        if _INT64.min <= self.lowest and self.highest <= _INT64.max:
            return CsvType.WHOLE
        is_unsigned = self.lowest >= 0 and self.highest <= _UINT64.max
        return CsvType.UNSIGNED if is_unsigned else CsvType.LARGE

    @property
    def expected(self) -> pa.DataType:
        """What Arrow can read further cells as while they are like those before."""
        return _ARROW[self._whole if self.kind is CsvType.WHOLE else self.kind]

    def add(self, values: pa.ChunkedArray) -> bool:
        """See cells that are what was expected; False if pandas reads them otherwise."""
        has_values = values.null_count < len(values)
        if pa.types.is_binary(values.type):
            return False
        if has_values and pa.types.is_floating(values.type) and pc.any(pc.is_nan(values)).as_py():
            return False  # NAN, which is a text
        if has_values and pa.types.is_integer(values.type):
            least, most = pc.min_max(values).as_py().values()
            self.lowest, self.highest = min(self.lowest, least), max(self.highest, most)
            self.kind = CsvType.WHOLE
        self.has_missing |= values.null_count > 0
        return True

    def add_texts(self, cells: Iterable[str | None]) -> None:
        """See cells as they are written, None for one without a value."""
        for cell in cells:
            if cell is None:
                self.has_missing = True
                continue
            kind = _kind(cell)
            if kind is CsvType.WHOLE:
                value = int(cell)
                self.lowest, self.highest = min(self.lowest, value), max(self.highest, value)
            if self.kind in {CsvType.EMPTY, kind}:
                self.kind = kind
            elif {self.kind, kind} == {CsvType.WHOLE, CsvType.FLOAT}:
                self.kind = CsvType.FLOAT
            else:
                self.kind = CsvType.TEXT


def _kind(cell: str) -> CsvType:
    if _WHOLE.fullmatch(cell):
        return CsvType.WHOLE
    if _FLOAT.fullmatch(cell):
        return CsvType.FLOAT
    return CsvType.TRUTH if cell in _TRUTH else CsvType.TEXT


class ColumnTypes:
    """Finds the types of a file's columns, of its lines piece by piece."""

    def __init__(self) -> None:
        self._columns: dict[str, _ObservedColumn] = {}
        self._open_line = bytearray()

    @property
    def letters(self) -> str:
        """The :class:`CsvType` of each column, in their order."""
        return "".join(one.type for one in self._columns.values())

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return list(self._columns)

    def begin(self, names: Sequence[str]) -> None:
        """See the names of the columns."""
        self._columns = {name: _ObservedColumn() for name in names}

    def feed(self, block: bytes, end: int) -> None:
        """See the next piece of the file; its last line ends at ``end``, or none does: -1."""
        if end < 0:
            self._open_line += block
            return
        lines = bytes(self._open_line) + block[:end]
        self._open_line = bytearray(block[end:])
        self._see(lines)

    def close(self) -> None:
        """See the last line, if it does not end."""
        lines = bytes(self._open_line)
        self._open_line.clear()
        self._see(lines)

    def _see(self, lines: bytes) -> None:
        left = {name: one for name, one in self._columns.items() if one.kind is not CsvType.TEXT}
        if not left or not lines.strip(b"\r\n"):
            return
        names, texts = list(self._columns), dict.fromkeys(left, pa.binary())
        is_first = all(one.kind is CsvType.EMPTY for one in left.values())
        if not (is_first or _HEXADECIMAL.search(lines)):
            types = {name: one.expected for name, one in left.items()}
            try:
                table, _ = parse(lines, names, types, only=left)
            except pa.ArrowInvalid:
                table, _ = parse(lines, names, texts, only=left)
            left = {
                name: one
                for name, one in left.items()
                if not one.add(_cast(table[name], types[name]))
            }
        if left:
            table, _ = parse(lines, names, texts, only=left)
            for name, one in left.items():
                one.add_texts(_texts(table[name].unique()))


def parse(
    lines: bytes,
    names: Sequence[str],
    types: Mapping[str, pa.DataType],
    *,
    only: Iterable[str] = (),
    has_missing: bool = True,
) -> tuple[pa.Table, list[pyarrow.csv.InvalidRow]]:
    """Lines as a table, and those that have more or fewer cells than there are columns.

    Args:
        lines: Whole lines.
        names: The names of the columns.
        types: The types of the columns.
        only: The columns to read; all by default.
        has_missing: Whether cells such as NA are null, also where a column has texts.

    Raises:
        pa.ArrowInvalid: If a cell is not of its column's type.
    """
    skipped: list[pyarrow.csv.InvalidRow] = []
    has_truths = pa.bool_() in types.values()  # the words cost more than a small file

    def skip(row: pyarrow.csv.InvalidRow) -> str:
        skipped.append(row)
        return "skip"

    table = pyarrow.csv.read_csv(
        io.BytesIO(lines),
        read_options=pyarrow.csv.ReadOptions(
            column_names=names, use_threads=False, block_size=len(lines) + 1
        ),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=types,
            include_columns=list(only),
            null_values=list(MISSING_CELLS),
            true_values=_TRUE if has_truths else (),
            false_values=_FALSE if has_truths else (),
            strings_can_be_null=has_missing,
        ),
    )
    return table, skipped


def parse_as(
    lines: bytes, names: Sequence[str], types: str
) -> tuple[pa.Table, list[pyarrow.csv.InvalidRow]]:
    """Lines as a table whose columns :func:`as_array` takes, by their types; see :func:`parse`."""
    arrow = {name: _ARROW[CsvType(one)] for name, one in zip(names, types, strict=True)}
    try:
        return parse(lines, names, arrow)
    except pa.ArrowInvalid:  # what pandas reads as a number and Arrow does not, such as +1
        return parse(lines, names, dict.fromkeys(names, pa.binary()))


def as_array(values: pa.ChunkedArray, kind: CsvType) -> Array:
    """A column of :func:`parse_as` as an array.

    Raises:
        ValueError: If a cell is not of the type.
    """
    if kind is CsvType.TEXT:
        return objects([math.nan if one is None else one for one in values.to_pylist()])
    if kind is CsvType.EMPTY:
        return np.full(len(values), np.nan)
    values = _cast(values, _ARROW[kind])
    found: list[Any] = []
    if pa.types.is_binary(values.type):
        try:
            found = [None if one is None else _PARSED[kind](one) for one in _texts(values)]
        except KeyError as error:
            raise ValueError(f"a cell is neither true nor false: {error}") from error
    elif kind is CsvType.OPTIONAL_TRUTH:
        found = values.to_pylist()
    else:
        return np.asarray(values.to_numpy())
    if kind in _OBJECTS:
        return objects([math.nan if one is None else one for one in found])
    return np.array(found, _ARROW[kind].to_pandas_dtype())  # None is NaN


def _cast(values: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Texts as the numbers that Arrow reads them as; as they are if it cannot."""
    if not pa.types.is_binary(values.type) or pa.types.is_boolean(kind):
        return values
    try:
        return values.cast(pa.string()).cast(kind)
    except pa.ArrowInvalid:
        return values


def _texts(values: pa.Array | pa.ChunkedArray) -> Iterable[str | None]:
    return (None if one is None else one.decode(errors="replace") for one in values.to_pylist())
