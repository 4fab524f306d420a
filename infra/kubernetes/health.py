"""A small HTTP answer to whether a process is well: ``GET /healthz`` for probes."""

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


async def serve(host: str, port: int, well: Callable[[], bool]) -> asyncio.Server:
    """Answer at ``/healthz`` with 200 while ``well()`` says so, else with 503.

    Args:
        host: The address to listen at.
        port: The port; 0 for any that is free.
        well: Asked for every answer; must not block.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, ValueError):
            async with asyncio.timeout(_PATIENCE_SECONDS):
                words = (await reader.readline()).split()
                path = words[1].decode(errors="replace") if len(words) > 1 else ""
                status, reason, text = _ANSWERS[well() if path == _PATH else None]
                head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain\r\n"
                head += f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n"
                writer.write((head + text).encode())
                await writer.drain()
        writer.close()

    return await asyncio.start_server(answer, host, port)
