"""Bodies of requests, read within limits of length and time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from modelyard_runtime.server.refusals import RequestRefused

Receive = Callable[[], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True)
class RequestLimits:
    """Limits of a request.

    Attributes:
        body_bytes: Longest body.
        body_seconds: Longest time that a body may take to arrive.
    """

    body_bytes: int = 128 * 2**20
    body_seconds: float = 60.0


async def read_body(headers: Mapping[str, str], receive: Receive, limits: RequestLimits) -> bytes:
    """Read the body of an ASGI request.

    Args:
        headers: The request's headers, in lower case.
        receive: Of the ASGI request.
        limits: Its limits.

    Raises:
        RequestRefused: 413 if it is too long, 408 if it takes too long, 400 if it ends early.
    """
    most = limits.body_bytes
    declared = headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most:
        raise _too_large(most)
    parts: list[bytes] = []
    length = 0
    try:
        async with asyncio.timeout(limits.body_seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise RequestRefused(400, "The request ended before its body did.")
                parts.append(message.get("body", b""))
                length += len(parts[-1])
                if length > most:
                    raise _too_large(most)
                if not message.get("more_body"):
                    return parts[0] if len(parts) == 1 else b"".join(parts)
    except TimeoutError:
        raise RequestRefused(
            408, "The body took too long to arrive.", {"connection": "close"}
        ) from None


def _too_large(most: int) -> RequestRefused:
    return RequestRefused(
        413, f"The body has more than {most} bytes, the most that is taken.",
        {"connection": "close"},
    )  # fmt: skip
