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
    check_is_of_connection,
    check_size,
    frame,
    goaway,
    rst_stream,
    settings,
    window_update,
)
from modelyard_runtime.server.http2_heads import HEAD_BYTES, HeadDecoder
from modelyard_runtime.server.http2_requests import (
    ConnectionLimits,
    Http2Answer,
    Http2Handler,
    Http2Request,
)
from modelyard_runtime.server.http2_streams import (
    DEFAULT_WINDOW,
    ClientSettings,
    ControlBudget,
    Http2Stream,
)
from modelyard_runtime.server.refusals import RequestRefused

_MOST_STREAMS = 128  # of one client, which then waits: fewer than a model's queue takes
_STREAM_WINDOW = 2**20  # bytes that a client may send of one request before it hears of more
_WINDOW = 2**24  # and of all
_MOST_RESETS = 1000  # more than requests that were answered
_USUAL_BYTES = 2**10  # of a part of an answer; smaller ones earn a client nothing
_TICK_SECONDS = 0.01
_CLOSING_SECONDS = 1.0  # for a client to read why its connection ends


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
        self._heads = HeadDecoder()
        self._settings = ClientSettings()
        self._streams: dict[int, Http2Stream] = {}
        self._abandoned: deque[int] = deque(maxlen=100)  # ended while the client sent them
        self._last_stream = 0
        self._read_bytes = 0  # since the client has heard that it may send more
        self._send_window = DEFAULT_WINDOW
        self._widest_credit = 0  # of any stream, also of those that have ended
        self._unsent: list[bytes] = []
        self._resets = 0
        self._is_draining = False
        now = self._loop.time()
        self._controls = ControlBudget(now)
        self._idle_since = now
        self._frame_since = 0.0  # the time at which a frame began that is not complete
        self._timer: asyncio.TimerHandle | None = None
        self._handlers: Mapping[int, Callable[[Http2Frame], None]] = {
            FrameType.DATA: self._on_data,
            FrameType.HEADERS: self._on_headers,
            FrameType.PRIORITY: self._on_priority,
            FrameType.RST_STREAM: self._on_rst_stream,
            FrameType.SETTINGS: self._on_settings,
            FrameType.PUSH_PROMISE: self._on_push_promise,
            FrameType.PING: self._on_ping,
            FrameType.GOAWAY: check_is_of_connection,  # the client awaits its answers
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
        if len(self._connections) >= self._limits.connections:
            self._transport.abort()
            return
        self._connections.add(self)
        self._transport.write(
            settings({
                Setting.MAX_CONCURRENT_STREAMS: _MOST_STREAMS,
                Setting.INITIAL_WINDOW_SIZE: _STREAM_WINDOW,
                Setting.MAX_FRAME_SIZE: MOST_FRAME_BYTES,
                Setting.MAX_HEADER_LIST_SIZE: HEAD_BYTES,
            })
            + window_update(0, _WINDOW - DEFAULT_WINDOW)
        )  # fmt: skip
        self._watch(self._limits.head_seconds)

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
        has_frame = False
        try:
            for one in self._frames.read(data):
                has_frame = True
                self._handle(one)
                if self._transport.is_closing():
                    return
        except Http2Error as error:
            self._end(error.code, str(error))
            return
        if not self._frames.is_within:
            self._frame_since = 0.0
        elif has_frame or not self._frame_since:
            self._frame_since = self._loop.time()
        if self._frame_since or any(not one.is_received for one in self._streams.values()):
            self._watch(self._limits.body_seconds)

    def _handle(self, given: Http2Frame) -> None:
        """Handle a frame, and end its stream if that is at fault."""
        if given.kind == FrameType.HEADERS or (given.kind == FrameType.DATA and given.payload):
            self._controls.earn()
        else:
            self._controls.spend(self._loop.time())
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
        held = self._limits.memory.hold()
        stream = Http2Stream(number, head, held, self._loop.time())
        self._streams[number] = stream
        if flags & END_STREAM:
            stream.is_received = True
        if refusal := self._handler.refuse(head, self._client):
            stream.body = None
            self._send(stream, refusal)
        elif flags & END_STREAM:
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

    def _add(self, stream: Http2Stream, data: bytes) -> None:
        """Add to the body of a request; one that is too long is answered at once."""
        stream.size += len(data)
        if stream.body is None:
            return
        if stream.size > self._limits.body_bytes:
            stream.body = None
            self._answer_soon(stream)
            return
        try:
            stream.held.add(len(data))
        except RequestRefused as refusal:
            raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, refusal.message, stream.number) from None
        if not stream.body:
            stream.body = data
        else:
            if isinstance(stream.body, bytes):
                stream.body = bytearray(stream.body)
            stream.body += data

    def _on_received(self, stream: Http2Stream) -> None:
        stream.is_received = True
        declared = stream.head.fields.get(b"content-length")
        if declared is not None and declared != str(stream.size).encode():
            raise Http2Error(
                ErrorCode.PROTOCOL_ERROR, "content-length is not that of the body.", stream.number
            )
        if stream.task is None:
            self._answer_soon(stream)

    def _answer_soon(self, stream: Http2Stream) -> None:
        request = Http2Request(stream.head, stream.body, stream.held, self._client)
        stream.body = None
        stream.task = self._loop.create_task(self._answer(stream, request))
        stream.task.add_done_callback(lambda _: stream.held.release())

    async def _answer(self, stream: Http2Stream, request: Http2Request) -> None:
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

    def _send(self, stream: Http2Stream, answer: Http2Answer) -> None:
        flags = END_HEADERS if answer.trailers else END_HEADERS | END_STREAM
        self._write(frame(FrameType.HEADERS, flags, stream.number, answer.head))
        if not answer.trailers:
            self._complete(stream)
            return
        stream.unsent, stream.trailers = memoryview(answer.body), answer.trailers
        stream.since = self._loop.time()
        self._send_body(stream)
        if stream.unsent:
            self._watch(self._limits.body_seconds)

    def _send_body(self, stream: Http2Stream) -> None:
        """Send as much of an answer as the client takes."""
        while stream.unsent:
            window = min(self._send_window, self._settings.window + stream.credit)
            size = min(len(stream.unsent), self._settings.frame_bytes, window)
            if size <= 0:
                return  # until there is a WINDOW_UPDATE
            self._write(frame(FrameType.DATA, 0, stream.number, stream.unsent[:size]))
            if size >= _USUAL_BYTES:
                self._controls.earn()
            stream.unsent = stream.unsent[size:]
            stream.since = self._loop.time()
            self._send_window -= size
            stream.credit -= size
        flags = END_HEADERS | END_STREAM
        self._write(frame(FrameType.HEADERS, flags, stream.number, stream.trailers))
        self._complete(stream)

    def _send_waiting(self) -> None:
        for stream in [one for one in self._streams.values() if one.trailers]:
            if self._send_window > 0 or not stream.unsent:
                self._send_body(stream)

    def _complete(self, stream: Http2Stream) -> None:
        if not stream.is_received:
            self._abandoned.append(stream.number)
            self._write(rst_stream(stream.number, ErrorCode.NO_ERROR))
        self._resets = max(0, self._resets - 1)
        stream.task = None  # which has done its work
        self._forget(stream)

    def _reset(self, number: int, code: ErrorCode) -> None:
        """End a stream for a fault; a client that has many of them ends its connection."""
        self._write(rst_stream(number, code))
        if number not in self._abandoned:
            self._abandoned.append(number)
        if stream := self._streams.get(number):
            self._forget(stream)
        self._count_reset()

    def _count_reset(self) -> None:
        self._resets += 1
        if self._resets > _MOST_RESETS:
            self._end(ErrorCode.ENHANCE_YOUR_CALM, "Too many requests end before their answers.")

    def _forget(self, stream: Http2Stream) -> None:
        self._streams.pop(stream.number, None)
        if stream.task:  # which still has the body
            stream.task.cancel()
        else:
            stream.held.release()
        if not self._streams:
            self._idle_since = self._loop.time()
        if self._is_draining and not self._streams:
            self._loop.call_soon(self._close)

    # The connection

    def _on_rst_stream(self, given: Http2Frame) -> None:
        number = given.stream
        self._check_known(number)
        check_size(given, 4)
        if stream := self._streams.get(number):
            self._forget(stream)
            self._count_reset()

    def _on_settings(self, given: Http2Frame) -> None:
        payload = given.payload
        check_is_of_connection(given)
        check_size(given, 0 if given.flags & ACK else len(payload) // 6 * 6)
        if given.flags & ACK:
            return
        self._settings.update(payload)
        if self._settings.window + self._widest_credit > MOST_WINDOW:
            credits = [one.credit for one in self._streams.values()]
            self._widest_credit = max(credits, default=0)
        if self._settings.window + self._widest_credit > MOST_WINDOW:
            raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "A window is too large.")
        self._write(frame(FrameType.SETTINGS, ACK, 0))
        self._send_waiting()

    def _on_window_update(self, given: Http2Frame) -> None:
        number = given.stream
        check_size(given, 4)
        if number:
            self._check_known(number)
        size = int.from_bytes(given.payload) & MOST_WINDOW
        if not size:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE is of 0 bytes.", number)
        stream = self._streams.get(number)
        if not number:
            was_closed = self._send_window <= 0
            self._send_window += size
            if self._send_window > MOST_WINDOW:
                raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "The window is too large.")
            if was_closed:
                self._send_waiting()
        elif stream:
            stream.credit += size
            self._widest_credit = max(self._widest_credit, stream.credit)
            if self._settings.window + stream.credit > MOST_WINDOW:
                raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "A window is too large.", number)
            if stream.trailers:
                self._send_body(stream)

    def _on_ping(self, given: Http2Frame) -> None:
        check_is_of_connection(given)
        check_size(given, 8)
        if not given.flags & ACK:
            self._write(frame(FrameType.PING, ACK, 0, given.payload))

    def _on_priority(self, given: Http2Frame) -> None:
        """Check what is sent; priorities are deprecated, and change nothing."""
        if not given.stream:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "PRIORITY is of no stream.")
        check_size(given, 5)

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

    def _watch(self, seconds: float) -> None:
        """Look in so many seconds, or sooner, at what takes too long."""
        at = self._loop.time() + seconds
        if self._timer is None or self._timer.when() > at + _TICK_SECONDS:
            if self._timer:
                self._timer.cancel()
            self._timer = self._loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        """End what takes too long, and look again when the next may."""
        self._timer = None
        limits = self._limits
        now = self._loop.time() + _TICK_SECONDS  # a timer may be early by less
        if self._frame_since and self._frame_since + limits.body_seconds <= now:
            self._end(ErrorCode.ENHANCE_YOUR_CALM, "A frame took too long to arrive.")
            return
        moving = [one for one in self._streams.values() if one.unsent or not one.is_received]
        late = [one for one in moving if one.since + limits.body_seconds <= now]
        for stream in late:
            self._reset(stream.number, ErrorCode.ENHANCE_YOUR_CALM)
        if not self._streams:
            seconds = limits.idle_seconds if self._last_stream else limits.head_seconds
            if self._idle_since + seconds <= now:
                self.drain()
                return
            self._watch(self._idle_since + seconds - now)
        times = [one.since for one in moving if one.number in self._streams]
        if self._frame_since:
            times.append(self._frame_since)
        if times:
            self._watch(min(times) + limits.body_seconds - now)
        elif self._streams:
            self._watch(limits.body_seconds)

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
        self._handler.on_fault(self._client)
        self._write(goaway(self._last_stream, code, message))
        for stream in list(self._streams.values()):
            self._forget(stream)
        self._close()

    def _close(self) -> None:
        """Send what is to be sent, and end."""
        self._flush()
        self._transport.close()
        self._loop.call_later(_CLOSING_SECONDS, self._transport.abort)
