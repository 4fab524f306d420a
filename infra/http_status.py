"""Statuses of HTTP answers."""

from __future__ import annotations

from infra.errors import StackError

# Request timeout, too early, too many requests.
_RETRYABLE = frozenset({408, 425, 429})


def is_retryable(status: int) -> bool:
    """Whether the same request may succeed later: an error of the server, or of the moment."""
    return status >= 500 or status in _RETRYABLE


def failed(server: str, method: str, path: str, status: int) -> StackError:
    """Build the error for a server of the stack that answered with an error of its own.

    Args:
        server: Its name for people, such as ``Prefect``.
        method: The request's.
        path: The same.
        status: The answer's.
    """
    return StackError(
        f"{server} answered {status} to {method} {path}.",
        f"Its log says why: modelyard status --logs {server.lower()}.",
        code="StackFailed",
    )
