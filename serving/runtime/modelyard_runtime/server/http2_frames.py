"""Frames of HTTP/2 (RFC 9113), and header fields as HPACK has them (RFC 7541)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import NamedTuple

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MOST_FRAME_BYTES = 256 * 2**10  # of what a client may send in one frame
MOST_WINDOW = 2**31 - 1

_HEAD = struct.Struct(">HBBBI")  # length of the payload, in two parts, type, flags, stream
_MOST_BLOCK_BYTES = 64 * 2**10  # of a compressed head
_MOST_BLOCK_FRAMES = 32
_PRIORITY_BYTES = 5


class FrameType(IntEnum):
    """Type of a frame (RFC 9113, section 6)."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


# Flags; ACK is that of SETTINGS and PING, END_STREAM that of DATA and HEADERS.
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITIZED = 0x20


class Setting(IntEnum):
    """Parameter of SETTINGS (RFC 9113, section 6.5.2)."""

    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class ErrorCode(IntEnum):
    """Why a stream or a connection ends (RFC 9113, section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class Http2Error(Exception):
    """A frame that the protocol does not allow.

    Attributes:
        code: What it ends with.
        stream: The stream that it ends; 0 for the whole connection.
    """

    def __init__(self, code: ErrorCode, message: str, stream: int = 0) -> None:
        """End ``stream``, or the connection, with ``code``."""
        super().__init__(message)
        self.code = code
        self.stream = stream


def frame(kind: FrameType, flags: int, stream: int, payload: bytes | memoryview = b"") -> bytes:
    """Encode a frame."""
    size = len(payload)
    return _HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def settings(values: Mapping[Setting, int]) -> bytes:
    """Encode SETTINGS."""
    payload = b"".join(struct.pack(">HI", one, value) for one, value in values.items())
    return frame(FrameType.SETTINGS, 0, 0, payload)


def window_update(stream: int, size: int) -> bytes:
    """Encode a WINDOW_UPDATE: ``size`` further bytes may be sent."""
    return frame(FrameType.WINDOW_UPDATE, 0, stream, size.to_bytes(4))


def rst_stream(stream: int, code: ErrorCode) -> bytes:
    """Encode an RST_STREAM."""
    return frame(FrameType.RST_STREAM, 0, stream, code.to_bytes(4))


def goaway(last_stream: int, code: ErrorCode, message: str = "") -> bytes:
    """Encode a GOAWAY; streams after ``last_stream`` were not processed."""
    words = message.encode(errors="replace")[:1000]
    return frame(FrameType.GOAWAY, 0, 0, struct.pack(">II", last_stream, code) + words)


def header(name: bytes, value: bytes) -> bytes:
    """Encode a header field that enters no table (RFC 7541, section 6.2.2)."""
    return b"".join([b"\0", _integer(len(name)), name, _integer(len(value)), value])


def _integer(value: int) -> bytes:
    """Encode an integer with a prefix of 7 bits (RFC 7541, section 5.1)."""
    if value < 0x7F:
        return bytes([value])
    found = [0x7F]
    value -= 0x7F
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


class Http2Frame(NamedTuple):
    """A frame that a client has sent.

    Attributes:
        kind: Its type; of an extension also one that is no :class:`FrameType`.
        flags: Its flags.
        stream: Its stream; 0 for the connection.
        payload: Its payload, without padding. HEADERS have all of a head.
        size: Bytes that count against the windows.
    """

    kind: int
    flags: int
    stream: int
    payload: bytes
    size: int


def check_is_of_connection(given: Http2Frame) -> None:
    """Check that a frame is of no stream.

    Raises:
        Http2Error: If it is of one.
    """
    if given.stream:
        name = FrameType(given.kind).name
        raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"{name} is of a stream.")


def check_size(given: Http2Frame, size: int) -> None:
    """Check that a frame has a payload of ``size`` bytes.

    Raises:
        Http2Error: If it has another.
    """
    if len(given.payload) != size:
        name = FrameType(given.kind).name
        raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, f"{name} has not {size} bytes.")


class FrameReader:
    """Reads the frames of one client."""

    def __init__(self) -> None:
        self._has_begun = False
        self._rest = b""  # of a frame that is not complete
        self._has_preface = False
        self._head: Http2Frame | None = None  # whose end is in CONTINUATION
        self._blocks: list[bytes] = []

    @property
    def is_within(self) -> bool:
        """Whether a frame or a head has begun that is not complete."""
        return bool(self._rest) or self._head is not None

    def read(self, data: bytes) -> Iterator[Http2Frame]:
        """Read all frames that are complete with ``data``.

        Raises:
            Http2Error: If the client does not speak HTTP/2; the connection ends.
        """
        received = self._rest + data if self._rest else data
        at = 0
        if not self._has_preface:
            if not PREFACE.startswith(received[: len(PREFACE)]):
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, "This port is for HTTP/2 alone.")
            self._has_preface = len(received) >= len(PREFACE)
            at = len(PREFACE) if self._has_preface else len(received)
        while len(received) - at >= _HEAD.size:
            high, low, kind, flags, stream = _HEAD.unpack_from(received, at)
            size = high << 8 | low
            if size > MOST_FRAME_BYTES:
                raise Http2Error(
                    ErrorCode.FRAME_SIZE_ERROR, f"A frame has more than {MOST_FRAME_BYTES} bytes."
                )
            begin = at + _HEAD.size
            end = begin + size
            if end > len(received):
                break
            at = end
            payload = received[begin:end]
            if found := self._taken(Http2Frame(kind, flags, stream & MOST_WINDOW, payload, size)):
                yield found
        self._rest = received[at:] if self._has_preface else received

    def _taken(self, given: Http2Frame) -> Http2Frame | None:
        """A frame as it is handled; None of a part of a head."""
        if self._head and given.kind != FrameType.CONTINUATION:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "A head is followed by another frame.")
        if not self._has_begun and given.kind != FrameType.SETTINGS:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "The first frame is not SETTINGS.")
        self._has_begun = True
        if given.kind == FrameType.DATA:
            return given._replace(payload=_unpadded(given)) if given.flags & PADDED else given
        if given.kind == FrameType.HEADERS:
            block = _unpadded(given)
            if given.flags & PRIORITIZED:
                if len(block) < _PRIORITY_BYTES:
                    raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "HEADERS are too short.")
                block = block[_PRIORITY_BYTES:]
            given = given._replace(payload=block)
            if given.flags & END_HEADERS:
                return given
            self._head, self._blocks = given, [block]
            return None
        if given.kind == FrameType.CONTINUATION:
            return self._continued(given)
        return given

    def _continued(self, given: Http2Frame) -> Http2Frame | None:
        head, blocks = self._head, self._blocks
        if head is None or head.stream != given.stream:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "CONTINUATION continues nothing.")
        blocks.append(given.payload)
        if len(blocks) > _MOST_BLOCK_FRAMES or sum(map(len, blocks)) > _MOST_BLOCK_BYTES:
            raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, "A head is too long.")
        if not given.flags & END_HEADERS:
            return None
        self._head = None
        return head._replace(payload=b"".join(blocks))


def _unpadded(given: Http2Frame) -> bytes:
    payload = given.payload
    if not given.flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise Http2Error(ErrorCode.PROTOCOL_ERROR, "A frame has more padding than bytes.")
    return payload[1 : len(payload) - payload[0]]
