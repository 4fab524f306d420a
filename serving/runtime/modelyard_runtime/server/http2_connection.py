"""The server's side of HTTP/2 (RFC 9113), for requests that are answered as a whole.

Libraries of Python for it cost more of a processor than a small model's prediction. This one knows
what a server of gRPC needs: whole requests and answers, several at once on one connection, with
flow control in both directions. A client that does not read its answers is not read either.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from modelyard_runtime.server.http2_frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    MOST_FRAME_BYTES,
    MOST_WINDOW,
    ErrorCode,
    FrameReader,
    FrameType,
    Http2Error,
    Http2Frame,
    Setting,
    frame,
    goaway,
    rst_stream,
    settings,
    window_update,
)
from modelyard_runtime.server.http2_heads import HEAD_BYTES, HeadDecoder, Http2Head
from modelyard_runtime.server.http2_requests import (
    ConnectionLimits,
    Http2Answer,
    Http2Handler,
    Http2Request,
)

_MOST_STREAMS = 128  # of one client, which then waits: fewer than a model's queue takes
_STREAM_WINDOW = 2**20  # bytes that a client may send of one request before it hears of more
_WINDOW = 2**24  # and of all
_DEFAULT_WINDOW = 2**16 - 1
_DEFAULT_FRAME_BYTES = 2**14
_MOST_RESETS = 1000  # by a client, more than requests that were answered
_CLOSING_SECONDS = 1.0  # for a client to read why its connection ends


@dataclass(slots=True)
class _Stream:
    """A request that arrives, or is answered.

    Attributes:
        number: The stream's.
        head: The head of the request.
        send_window: Bytes of the answer that the client takes.
        began: Time at which the request began to arrive.
        read_bytes: Bytes of the request since the client has heard that it may send more.
        body: What there is of its body; None once it is too long.
        size: Its bytes.
        is_received: Whether all of the request is there.
        task: The task that answers it.
        unsent: The rest of the answer's body.
        trailers: The answer's trailers.
    """

    number: int
    head: Http2Head
    send_window: int
    began: float
    read_bytes: int = 0
    body: bytes | bytearray | None = b""
    size: int = 0
    is_received: bool = False
    task: asyncio.Task[None] | None = None
    unsent: memoryview | bytes = b""
    trailers: bytes = b""


class Http2Connection(asyncio.Protocol):
    """A connection with a client that begins it as HTTP/2, without an upgrade."""

    def __init__(
        self, handler: Http2Handler, limits: ConnectionLimits,
        connections: set[Http2Connection],
    ) -> None:  # fmt: skip
        """Serve a connection.

        Args:
            handler: Answers the requests.
            limits: Limits of requests.
            connections: Has the connection as long as it is open.
        """
        self._handler = handler
        self._limits = limits
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._frames = FrameReader()
        self._has_begun = False
        self._heads = HeadDecoder()
        self._streams: dict[int, _Stream] = {}
        self._abandoned: deque[int] = deque(maxlen=100)  # ended while the client sent them
        self._last_stream = 0
        self._read_bytes = 0  # since the client has heard that it may send more
        self._send_window = self._initial_window = _DEFAULT_WINDOW
        self._peer_frame_bytes = _DEFAULT_FRAME_BYTES
        self._unsent: list[bytes] = []
        self._resets = 0
        self._is_draining = False
        self._timer: asyncio.TimerHandle | None = None
        self._handlers: Mapping[int, Callable[[Http2Frame], None]] = {
            FrameType.DATA: self._on_data,
            FrameType.HEADERS: self._on_headers,
            FrameType.PRIORITY: self._on_priority,
            FrameType.RST_STREAM: self._on_rst_stream,
            FrameType.SETTINGS: self._on_settings,
            FrameType.PUSH_PROMISE: self._on_push_promise,
            FrameType.PING: self._on_ping,
            FrameType.GOAWAY: _check_is_of_connection,  # the client awaits its answers
            FrameType.WINDOW_UPDATE: self._on_window_update,
        }

    # Of the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the connection."""
        self._transport = cast(asyncio.Transport, transport)
        opened = transport.get_extra_info("socket")
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # clients may vanish
        self._client = str((transport.get_extra_info("peername") or ("",))[0])
        self._connections.add(self)
        self._transport.write(
            settings({
                Setting.MAX_CONCURRENT_STREAMS: _MOST_STREAMS,
                Setting.INITIAL_WINDOW_SIZE: _STREAM_WINDOW,
                Setting.MAX_FRAME_SIZE: MOST_FRAME_BYTES,
                Setting.MAX_HEADER_LIST_SIZE: HEAD_BYTES,
            })
            + window_update(0, _WINDOW - _DEFAULT_WINDOW)
        )  # fmt: skip
        self._timer = self._loop.call_later(self._limits.head_seconds, self._on_overdue)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up what is not answered."""
        self._connections.discard(self)
        if self._timer:
            self._timer.cancel()
        for stream in list(self._streams.values()):
            self._forget(stream)

    def pause_writing(self) -> None:
        """Read nothing more of a client that does not read."""
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Read on."""
        self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Handle the frames that have come."""
        if self._transport.is_closing():
            return
        try:
            for one in self._frames.read(data):
                self._handle(one)
        except Http2Error as error:
            self._end(error.code, str(error))
            return
        is_within = self._frames.is_within_head or any(
            not one.is_received for one in self._streams.values()
        )
        if is_within and self._timer is None:
            self._timer = self._loop.call_later(self._limits.body_seconds, self._on_overdue)

    def _handle(self, given: Http2Frame) -> None:
        """Handle a frame, and end its stream if that is at fault."""
        if self._timer and not self._has_begun:
            self._has_begun = True
            self._timer.cancel()
            self._timer = None
        if not (handle := self._handlers.get(given.kind)):
            return  # of an extension
        try:
            handle(given)
        except Http2Error as error:
            if not error.stream:
                raise
            self._reset(error.stream, error.code)

    # Requests

    def _on_headers(self, given: Http2Frame) -> None:
        """Begin a request, or end it with trailers."""
        number, flags = given.stream, given.flags
        if not number % 2:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "HEADERS are of no stream of a client.")
        head = self._heads.decode(given.payload)  # those that follow may refer to it
        stream = self._streams.get(number)
        if stream:
            if stream.is_received:
                raise Http2Error(ErrorCode.STREAM_CLOSED, "HEADERS follow a request.", number)
            if not flags & END_STREAM:
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, "Trailers do not end it.", number)
            self._on_received(stream)
            return
        if number <= self._last_stream:
            if number in self._abandoned:
                return
            raise Http2Error(ErrorCode.STREAM_CLOSED, "HEADERS are of a stream that has ended.")
        if self._is_draining:  # the client knows by GOAWAY that it is not answered
            self._abandoned.append(number)
            return
        self._last_stream = number
        if head.fault:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, head.fault, number)
        if len(self._streams) >= _MOST_STREAMS:
            raise Http2Error(ErrorCode.REFUSED_STREAM, "Too many streams.", number)
        stream = _Stream(number, head, self._initial_window, self._loop.time())
        self._streams[number] = stream
        if flags & END_STREAM:
            self._on_received(stream)

    def _on_data(self, given: Http2Frame) -> None:
        number = given.stream
        self._read_bytes += given.size
        if self._read_bytes >= _WINDOW // 2:
            self._write(window_update(0, self._read_bytes))
            self._read_bytes = 0
        stream = self._streams.get(number)
        if stream is None or stream.is_received:
            self._check_known(number)
            if number in self._abandoned:
                return
            raise Http2Error(ErrorCode.STREAM_CLOSED, "DATA follows the end of it.", number)
        self._add(stream, given.payload)
        stream.read_bytes += given.size
        if given.flags & END_STREAM:
            self._on_received(stream)
        elif stream.read_bytes >= _STREAM_WINDOW // 2:
            self._write(window_update(number, stream.read_bytes))
            stream.read_bytes = 0

    def _add(self, stream: _Stream, data: bytes) -> None:
        """Add to the body of a request; one that is too long is answered at once."""
        stream.size += len(data)
        if stream.body is None:
            return
        if stream.size > self._limits.body_bytes:
            stream.body = None
            self._answer_soon(stream)
        elif not stream.body:
            stream.body = data
        else:
            if isinstance(stream.body, bytes):
                stream.body = bytearray(stream.body)
            stream.body += data

    def _on_received(self, stream: _Stream) -> None:
        stream.is_received = True
        declared = stream.head.fields.get(b"content-length")
        if declared is not None and declared != str(stream.size).encode():
            raise Http2Error(
                ErrorCode.PROTOCOL_ERROR, "content-length is not that of the body.", stream.number
            )
        if stream.task is None:
            self._answer_soon(stream)

    def _answer_soon(self, stream: _Stream) -> None:
        request = Http2Request(stream.head, stream.body, self._client)
        stream.body = None
        stream.task = self._loop.create_task(self._answer(stream, request))

    async def _answer(self, stream: _Stream, request: Http2Request) -> None:
        try:
            answer = await self._handler.answer(request)
        except Exception:  # noqa: BLE001 (the edge of the server)
            print(traceback.format_exc(), file=sys.stderr, end="", flush=True)
            if stream.number in self._streams:
                self._reset(stream.number, ErrorCode.INTERNAL_ERROR)
            return
        if stream.number in self._streams:
            self._send(stream, answer)

    # Answers

    def _send(self, stream: _Stream, answer: Http2Answer) -> None:
        flags = END_HEADERS if answer.trailers else END_HEADERS | END_STREAM
        self._write(frame(FrameType.HEADERS, flags, stream.number, answer.head))
        if not answer.trailers:
            self._complete(stream)
            return
        stream.unsent, stream.trailers = memoryview(answer.body), answer.trailers
        self._send_body(stream)

    def _send_body(self, stream: _Stream) -> None:
        """Send as much of an answer as the client takes."""
        while stream.unsent:
            size = min(
                len(stream.unsent), self._peer_frame_bytes, self._send_window, stream.send_window
            )
            if size <= 0:
                return  # until there is a WINDOW_UPDATE
            self._write(frame(FrameType.DATA, 0, stream.number, stream.unsent[:size]))
            stream.unsent = stream.unsent[size:]
            self._send_window -= size
            stream.send_window -= size
        flags = END_HEADERS | END_STREAM
        self._write(frame(FrameType.HEADERS, flags, stream.number, stream.trailers))
        self._complete(stream)

    def _send_waiting(self) -> None:
        for stream in [one for one in self._streams.values() if one.trailers]:
            self._send_body(stream)

    def _complete(self, stream: _Stream) -> None:
        if not stream.is_received:
            self._abandoned.append(stream.number)
            self._write(rst_stream(stream.number, ErrorCode.NO_ERROR))
        self._resets = max(0, self._resets - 1)
        stream.task = None  # which has done its work
        self._forget(stream)

    def _reset(self, number: int, code: ErrorCode) -> None:
        """End a stream."""
        self._write(rst_stream(number, code))
        if number not in self._abandoned:
            self._abandoned.append(number)
        if stream := self._streams.get(number):
            self._forget(stream)

    def _forget(self, stream: _Stream) -> None:
        self._streams.pop(stream.number, None)
        if stream.task:
            stream.task.cancel()
        if self._is_draining and not self._streams:
            self._loop.call_soon(self._close)

    # The connection

    def _on_rst_stream(self, given: Http2Frame) -> None:
        number = given.stream
        self._check_known(number)
        _check_size(given, 4)
        if stream := self._streams.get(number):
            self._resets += 1
            if self._resets > _MOST_RESETS:
                raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, "Too many requests are given up.")
            self._forget(stream)

    def _on_settings(self, given: Http2Frame) -> None:
        payload = given.payload
        _check_is_of_connection(given)
        _check_size(given, 0 if given.flags & ACK else len(payload) // 6 * 6)
        if given.flags & ACK:
            return
        for at in range(0, len(payload), 6):
            name = int.from_bytes(payload[at : at + 2])
            self._set(name, int.from_bytes(payload[at + 2 : at + 6]))
        self._write(frame(FrameType.SETTINGS, ACK, 0))
        self._send_waiting()

    def _set(self, name: int, value: int) -> None:
        """Heed a setting of the client's."""
        if name == Setting.ENABLE_PUSH and value > 1:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1.")
        if name == Setting.MAX_FRAME_SIZE:
            if not _DEFAULT_FRAME_BYTES <= value < 2**24:
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, "MAX_FRAME_SIZE is out of range.")
            self._peer_frame_bytes = min(value, MOST_FRAME_BYTES)
        if name == Setting.INITIAL_WINDOW_SIZE:
            if value > MOST_WINDOW:
                raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "The window is too large.")
            for stream in self._streams.values():
                stream.send_window += value - self._initial_window
                if stream.send_window > MOST_WINDOW:
                    raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "A window is too large.")
            self._initial_window = value

    def _on_window_update(self, given: Http2Frame) -> None:
        number = given.stream
        _check_size(given, 4)
        if number:
            self._check_known(number)
        size = int.from_bytes(given.payload) & MOST_WINDOW
        if not size:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE is of 0 bytes.", number)
        stream = self._streams.get(number)
        if not number:
            self._send_window += size
            if self._send_window > MOST_WINDOW:
                raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "The window is too large.")
            self._send_waiting()
        elif stream:
            stream.send_window += size
            if stream.send_window > MOST_WINDOW:
                raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "A window is too large.", number)
            if stream.trailers:
                self._send_body(stream)

    def _on_ping(self, given: Http2Frame) -> None:
        _check_is_of_connection(given)
        _check_size(given, 8)
        if not given.flags & ACK:
            self._write(frame(FrameType.PING, ACK, 0, given.payload))

    def _on_priority(self, given: Http2Frame) -> None:
        """Check what is sent; priorities are deprecated, and change nothing."""
        if not given.stream:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "PRIORITY is of no stream.")
        _check_size(given, 5)

    def _on_push_promise(self, _: Http2Frame) -> None:
        raise Http2Error(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE is for servers.")

    def _check_known(self, number: int) -> None:
        """Refuse frames of the whole connection, or of a stream that was never opened."""
        if not number % 2 or (number > self._last_stream and not self._is_draining):
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"The stream {number} is not open.")

    def _write(self, data: bytes) -> None:
        """Send with what else is sent in this round of the event loop."""
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(data)

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if unsent and not self._transport.is_closing():
            self._transport.write(b"".join(unsent))

    def _on_overdue(self) -> None:
        """End what takes too long to arrive; wait on for what came later."""
        self._timer = None
        if not self._has_begun or self._frames.is_within_head:
            self._end(ErrorCode.ENHANCE_YOUR_CALM, "The headers took too long to arrive.")
            return
        now = self._loop.time()
        arriving = [one for one in self._streams.values() if not one.is_received]
        for stream in arriving:
            if stream.began + self._limits.body_seconds <= now:
                self._reset(stream.number, ErrorCode.ENHANCE_YOUR_CALM)
        if later := [one.began for one in arriving if one.number in self._streams]:
            soon = min(later) + self._limits.body_seconds
            self._timer = self._loop.call_at(soon, self._on_overdue)

    def drain(self) -> None:
        """Begin nothing more, and end once all is answered."""
        if self._is_draining or self._transport.is_closing():
            return
        self._is_draining = True
        self._write(goaway(self._last_stream, ErrorCode.NO_ERROR))
        if not self._streams:
            self._loop.call_soon(self._close)

    def abort(self) -> None:
        """End at once."""
        self._transport.abort()

    def _end(self, code: ErrorCode, message: str) -> None:
        """End the connection because of a fault of the client's."""
        self._write(goaway(self._last_stream, code, message))
        for stream in list(self._streams.values()):
            self._forget(stream)
        self._close()

    def _close(self) -> None:
        """Send what is to be sent, and end."""
        self._flush()
        self._transport.close()
        self._loop.call_later(_CLOSING_SECONDS, self._transport.abort)


def _check_is_of_connection(given: Http2Frame) -> None:
    if given.stream:
        name = FrameType(given.kind).name
        raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"{name} is of a stream.")


def _check_size(given: Http2Frame, size: int) -> None:
    if len(given.payload) != size:
        name = FrameType(given.kind).name
        raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, f"{name} has not {size} bytes.")
