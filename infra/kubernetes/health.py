"""Health endpoint for probes: ``GET /healthz``."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

_PATH = "/healthz"
_PATIENCE_SECONDS = 5.0
_ANSWERS = {
    True: (200, "OK", "ok"),
    False: (503, "Service Unavailable", "not well"),
    None: (404, "Not Found", f"only {_PATH} is here"),
}


async def serve(host: str, port: int, is_healthy: Callable[[], bool]) -> asyncio.Server:
    """Serve ``/healthz``: 200 while ``is_healthy()``, else 503.

    Args:
        host: The address to listen on.
        port: The port; 0 for any free one.
        is_healthy: Called for every request; must not block.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, ValueError):
            async with asyncio.timeout(_PATIENCE_SECONDS):
                words = (await reader.readline()).split()
                path = words[1].decode(errors="replace") if len(words) > 1 else ""
                status, reason, text = _ANSWERS[is_healthy() if path == _PATH else None]
                head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain\r\n"
                head += f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n"
                writer.write((head + text).encode())
                await writer.drain()
        writer.close()

    return await asyncio.start_server(answer, host, port)
