"""A client of HTTP/2 that sends any frames, and a handler of what it asks."""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
from collections.abc import Awaitable, Callable
from typing import Any

from modelyard_runtime.server.http2_frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    PREFACE,
    ErrorCode,
    FrameType,
    frame,
    header,
)
from modelyard_runtime.server.http2_frames import settings as settings_frame
from modelyard_runtime.server.http2_heads import Http2Head
from modelyard_runtime.server.http2_requests import Http2Answer, Http2Request

BEGIN = PREFACE + settings_frame({})
FIELDS = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/echo")]
MOST_BODY = 3 * 2**20
Code = ErrorCode


def block(*more: tuple[bytes, bytes], fields: Any = FIELDS) -> bytes:
    return b"".join(header(name, value) for name, value in [*fields, *more])


def headers(number: int, flags: int = END_HEADERS | END_STREAM, payload: bytes = b"") -> bytes:
    return frame(FrameType.HEADERS, flags, number, payload or block())


def data(number: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return frame(FrameType.DATA, flags, number, payload)


OPEN = headers(1, END_HEADERS)


class Handler:
    """Answers with what it gets; requests for ``/wait`` wait until they are let go."""

    def __init__(self) -> None:
        self.requests: list[Http2Request] = []
        self.faults = 0
        self.cancelled = 0
        self.go = asyncio.Event()

    def refuse(self, head: Http2Head, client: str) -> Http2Answer | None:
        return Http2Answer(header(b":status", b"403")) if head.path == b"/secret" else None

    def on_fault(self, client: str) -> None:
        self.faults += 1

    async def answer(self, request: Http2Request) -> Http2Answer:
        self.requests.append(request)
        if request.head.path == b"/wait":
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        if request.head.path == b"/fail":
            raise RuntimeError("fail")
        if request.body is None:
            return Http2Answer(header(b":status", b"413"))
        size = int(request.head.fields.get(b"size", b"0"))
        body = bytes(request.body) + random.Random(size).randbytes(size)
        return Http2Answer(b"\x88", body, header(b"status", b"0"))


class Client:
    """A client of frames: it sends what it is told to, and collects what comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, *frames: bytes) -> None:
        self.writer.write(b"".join(frames))

    async def receive(self) -> tuple[int, int, int, bytes]:
        """The next frame: its type, flags, stream and payload."""
        async with asyncio.timeout(20):
            high, low, kind, flags, number = struct.unpack(
                ">HBBBI", await self.reader.readexactly(9)
            )
            return kind, flags, number, await self.reader.readexactly(high << 8 | low)

    async def receive_until(self, *kinds: int) -> tuple[int, int, int, bytes]:
        while True:
            found = await self.receive()
            if found[0] in kinds and not (found[0] == FrameType.SETTINGS and not found[1]):
                return found

    async def is_alive(self) -> bool:
        """Whether the connection answers a ping."""
        self.send(frame(FrameType.PING, 0, 0, b"modelyrd"))
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                kind, flags, _, payload = await self.receive()
                if kind == FrameType.PING:
                    return (flags, payload) == (ACK, b"modelyrd")
        return False


Connect = Callable[..., Awaitable[Client]]
