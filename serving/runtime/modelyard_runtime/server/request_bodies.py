"""Bodies of requests, read within limits of length and time."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from modelyard_runtime.server.body_memory import BodyMemory, HeldBytes
from modelyard_runtime.server.refusals import RequestRefused, bad

# Sizes of zlib's window, which say the format as well; None for what is not compressed.
_WINDOWS = {"identity": None, "gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
ENCODINGS = tuple(_WINDOWS)
BODIES = 4  # of the longest that are kept at once
_SHORT = 64 * 2**10  # bytes that are decompressed on the event loop
_PIECE = 2**20  # bytes that are made of a compressed body at once

Receive = Callable[[], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True)
class RequestLimits:
    """Limits of requests.

    Attributes:
        body_bytes: Longest body.
        body_seconds: Longest time that a body may take to arrive.
        memory: What all bodies have together.
    """

    body_bytes: int = 128 * 2**20
    body_seconds: float = 60.0
    memory: BodyMemory = field(default_factory=lambda: BodyMemory(BODIES * 128 * 2**20))


async def read_body(
    headers: Mapping[str, str], receive: Receive, limits: RequestLimits, held: HeldBytes
) -> bytes:
    """Read the body of an ASGI request, and decompress it.

    Args:
        headers: The request's headers, in lower case.
        receive: Of the ASGI request.
        limits: Its limits.
        held: The body in the server's memory.

    Raises:
        RequestRefused: 413 if it is too long, 408 if it takes too long, 415 if its encoding is
            unknown, 400 if it ends early, 503 if the server keeps too many bodies.
    """
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ENCODINGS:
        known = ", ".join(ENCODINGS)
        raise RequestRefused(
            415, f"The body's encoding is {encoding}; give one of {known}.",
            {"accept-encoding": known},
        )  # fmt: skip
    body = await _received(headers, receive, limits, held)
    if encoding == "identity":
        return body
    if len(body) < _SHORT:
        return decompressed(body, encoding, limits.body_bytes, held)
    return await asyncio.to_thread(decompressed, body, encoding, limits.body_bytes, held)


def decompressed(body: bytes | memoryview, encoding: str, most: int, held: HeldBytes) -> bytes:
    """Decompress a body; no more than ``most`` bytes of it are made.

    Args:
        body: The body.
        encoding: One of :data:`ENCODINGS`.
        most: Most bytes that it may have.
        held: The body in the server's memory.

    Raises:
        RequestRefused: 413 if it has more, 400 if it is not of the encoding, 503 if the server
            keeps too many bodies.
    """
    window = _WINDOWS[encoding]
    if window is None:
        return bytes(body)
    decompressor = zlib.decompressobj(window)
    parts: list[bytes] = []
    size = 0
    rest: bytes | memoryview = body
    try:
        while not decompressor.eof:
            part = decompressor.decompress(rest, _PIECE)
            rest = decompressor.unconsumed_tail
            if not (part or rest):
                break  # it ends early
            size += len(part)
            if size > most:
                raise _too_large(most)
            held.add(len(part))
            parts.append(part)
    except zlib.error:
        raise bad(f"The body is no {encoding}, which its encoding says.") from None
    if not decompressor.eof or decompressor.unused_data:
        raise bad(f"The body is not all of one {encoding} stream.")
    return b"".join(parts)


async def _received(
    headers: Mapping[str, str], receive: Receive, limits: RequestLimits, held: HeldBytes
) -> bytes:
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
                held.add(len(parts[-1]))
                if not message.get("more_body"):
                    return parts[0] if len(parts) == 1 else b"".join(parts)
    except TimeoutError:
        raise RequestRefused(
            408, "The body took too long to arrive.", {"connection": "close"}
        ) from None


def _too_large(most: int) -> RequestRefused:
    return RequestRefused(413, f"The body has more than {most} bytes, the most that is taken.")
