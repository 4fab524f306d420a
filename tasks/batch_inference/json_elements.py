"""Where the elements of a large JSON array are, found without parsing them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_QUOTE, _COMMA, _ESCAPE = ord('"'), ord(","), ord("\\")
_OPENING, _CLOSING = frozenset(b"[{"), frozenset(b"]}")
_DELTA = np.zeros(256, dtype=np.int8)
_DELTA[list(_OPENING)], _DELTA[list(_CLOSING)] = 1, -1
_STRUCTURE = np.zeros(256, dtype=bool)
_STRUCTURE[[_QUOTE, _COMMA, *_OPENING, *_CLOSING]] = True


@dataclass(frozen=True)
class ElementEnds:
    """Ends of elements in a piece of an array.

    Attributes:
        commas: Offsets of the commas between elements, of the array itself.
        close: Offset of the bracket that closes the array; -1 if it is not in the piece.
    """

    commas: np.ndarray[Any, np.dtype[np.int64]]
    close: int


class ArrayScanner:
    """Scans an array piece by piece, from within it; it must not see the opening bracket."""

    def __init__(self) -> None:
        self._in_text = False
        self._escaped = False
        self._depth = 0

    def scan(self, piece: bytes) -> ElementEnds:
        """The ends of elements in the next piece, of any length."""
        data = np.frombuffer(piece, dtype=np.uint8)
        at = np.flatnonzero(_STRUCTURE[data])
        found = data[at]
        is_quote = found == _QUOTE
        if _ESCAPE in piece or self._escaped:
            is_quote &= ~self._are_escaped(data, at, piece)
        texts = np.cumsum(is_quote) + self._in_text
        outside = (texts & 1) == 0  # also at a text's last quote, which is no other structure
        depth = self._depth + np.cumsum(np.where(outside, _DELTA[found], 0))
        commas = at[outside & (found == _COMMA) & (depth == 0)]
        closing = np.flatnonzero(outside & (depth < 0))
        close = int(at[closing[0]]) if closing.size else -1
        if close >= 0:
            commas = commas[commas < close]
        if at.size:
            self._in_text = bool(texts[-1] & 1)
            self._depth = int(depth[-1])
        return ElementEnds(commas.astype(np.int64), close)

    def _are_escaped(self, data: Any, at: Any, piece: bytes) -> Any:
        """Which of the bytes at ``at`` follow an odd number of backslashes."""
        is_escape = data == _ESCAPE
        index = np.arange(data.size)
        # The last byte at or before each that is no backslash; a run may have begun earlier.
        start = -2 if self._escaped else -1
        last_other = np.maximum.accumulate(np.where(is_escape, start, index))
        run = index - last_other
        odd = (run & 1) == 1
        before = np.empty(data.size, dtype=bool)
        if data.size:
            before[0] = self._escaped
            before[1:] = odd[:-1] & is_escape[:-1]
            self._escaped = bool(odd[-1] and is_escape[-1])
        return before[at]
