"""Statuses of HTTP answers."""

from __future__ import annotations

# Request timeout, too early, too many requests.
_RETRYABLE = frozenset({408, 425, 429})


def is_retryable(status: int) -> bool:
    """Whether the same request may succeed later: an error of the server, or of the moment."""
    return status >= 500 or status in _RETRYABLE
