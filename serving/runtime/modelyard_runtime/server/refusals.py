"""Refusals: what a request is answered with if it is not served."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping

# A repr() of a whole body would be as long as it is, and nested as deeply.
_SHORT = reprlib.Repr()
_SHORT.maxlevel = 4
_SHORT.maxstring = _SHORT.maxother = 60


class RequestRefused(Exception):
    """A request that is not served; the message is for who sent it."""

    def __init__(
        self, status: int, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """Refuse with an HTTP ``status``, a ``message`` and further ``headers``."""
        super().__init__(message)
        self.status = status
        # Words of an error of a model's may have what no UTF-8 has, such as the name of a file.
        self.message = message.encode(errors="replace").decode()
        self.headers = headers or {}


def bad(message: str) -> RequestRefused:
    """A refusal of a request that is malformed."""
    return RequestRefused(400, message)


def shown(value: object, most: int = 60) -> str:
    """A value of a request, for a message."""
    text = _SHORT.repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."
