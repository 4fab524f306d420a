"""What a server printed last, for the message of a failure."""

from __future__ import annotations

import re
from collections import deque

_LAST = 5
_ERRORS = 10
_LONGEST = 300
# A line of Triton's at the level of errors; and what vLLM, Python and programs print of errors.
_ERROR = re.compile(
    r"^E\d{4} |\b(?:error|\w+error|exception|failed|fatal|unrecognized)\b", re.IGNORECASE
)
_TABLE = re.compile(r"^[|+]")


class ServerLog:
    """The last lines of a server, and the last ones of errors, which may be far above these.

    Triton prints tables after the reason for which it could not load a model, and how it is used
    after an argument that it does not have.
    """

    def __init__(self) -> None:
        self._count = 0
        self._errors: deque[tuple[int, str]] = deque(maxlen=_ERRORS)
        self._last: deque[tuple[int, str]] = deque(maxlen=_LAST)

    def add(self, line: str) -> None:
        """Add a line."""
        if not line.strip() or _TABLE.match(line):
            return
        numbered = (self._count, line[:_LONGEST])
        self._count += 1
        self._last.append(numbered)
        if _ERROR.search(line):
            self._errors.append(numbered)

    def excerpt(self) -> str:
        """The lines, in their order, below a heading."""
        lines = [line for _, line in sorted({*self._errors, *self._last})]
        return "\n".join(["The server printed:", *lines] if lines else ["It printed nothing."])
