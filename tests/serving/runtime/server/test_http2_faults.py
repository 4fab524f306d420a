"""What clients of HTTP/2 may not send, and what it leads to."""

from __future__ import annotations

import struct

import pytest
from modelyard_runtime.server.http2_frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    MOST_FRAME_BYTES,
    PADDED,
    PREFACE,
    PRIORITIZED,
    FrameType,
    Setting,
    frame,
    rst_stream,
    window_update,
)
from modelyard_runtime.server.http2_frames import settings as settings_frame

from tests.serving.runtime.server.http2_client import (
    BEGIN,
    FIELDS,
    OPEN,
    Code,
    Connect,
    block,
    data,
    headers,
)

pytestmark = pytest.mark.anyio

CONNECTION_FAULTS = {
    "http/1": (b"POST / HTTP/1.1\r\n\r\n", Code.PROTOCOL_ERROR),
    "no settings first": (PREFACE + headers(1), Code.PROTOCOL_ERROR),
    "headers of stream 0": (BEGIN + headers(0), Code.PROTOCOL_ERROR),
    "headers of an even stream": (BEGIN + headers(2), Code.PROTOCOL_ERROR),
    "headers of an earlier stream": (BEGIN + headers(3) + headers(1), Code.STREAM_CLOSED),
    "data of stream 0": (BEGIN + data(0), Code.PROTOCOL_ERROR),
    "data of an idle stream": (BEGIN + data(1), Code.PROTOCOL_ERROR),
    "rst_stream of an idle stream": (BEGIN + rst_stream(1, Code.NO_ERROR), Code.PROTOCOL_ERROR),
    "rst_stream of stream 0": (BEGIN + rst_stream(0, Code.NO_ERROR), Code.PROTOCOL_ERROR),
    "a short rst_stream": (
        BEGIN + OPEN + frame(FrameType.RST_STREAM, 0, 1, b"abc"), Code.FRAME_SIZE_ERROR
    ),
    "priority of stream 0": (
        BEGIN + frame(FrameType.PRIORITY, 0, 0, bytes(5)), Code.PROTOCOL_ERROR
    ),
    "a short priority": (
        BEGIN + frame(FrameType.PRIORITY, 0, 1, bytes(4)), Code.FRAME_SIZE_ERROR
    ),
    "settings of a stream": (
        BEGIN + frame(FrameType.SETTINGS, 0, 1), Code.PROTOCOL_ERROR
    ),
    "settings of five bytes": (
        BEGIN + frame(FrameType.SETTINGS, 0, 0, bytes(5)), Code.FRAME_SIZE_ERROR
    ),
    "an acknowledgement with settings": (
        BEGIN + frame(FrameType.SETTINGS, ACK, 0, bytes(6)), Code.FRAME_SIZE_ERROR
    ),
    "enable_push of 2": (
        PREFACE + settings_frame({Setting.ENABLE_PUSH: 2}), Code.PROTOCOL_ERROR
    ),
    "a frame size of 100": (
        PREFACE + settings_frame({Setting.MAX_FRAME_SIZE: 100}), Code.PROTOCOL_ERROR
    ),
    "a window of 4 GiB": (
        PREFACE + settings_frame({Setting.INITIAL_WINDOW_SIZE: 2**31}), Code.FLOW_CONTROL_ERROR
    ),
    "settings that overflow a window": (
        BEGIN + OPEN + window_update(1, 2**31 - 2**16)
        + settings_frame({Setting.INITIAL_WINDOW_SIZE: 2**31 - 1}), Code.FLOW_CONTROL_ERROR,
    ),
    "push_promise": (
        BEGIN + frame(FrameType.PUSH_PROMISE, END_HEADERS, 1, bytes(4)), Code.PROTOCOL_ERROR
    ),
    "goaway of a stream": (
        BEGIN + OPEN + frame(FrameType.GOAWAY, 0, 1, bytes(8)), Code.PROTOCOL_ERROR
    ),
    "headers of a stream that the client has ended": (
        BEGIN + OPEN + rst_stream(1, Code.NO_ERROR) + headers(1), Code.STREAM_CLOSED
    ),
    "ping of a stream": (BEGIN + frame(FrameType.PING, 0, 1, bytes(8)), Code.PROTOCOL_ERROR),
    "a short ping": (BEGIN + frame(FrameType.PING, 0, 0, bytes(7)), Code.FRAME_SIZE_ERROR),
    "a window update of 0": (BEGIN + window_update(0, 0), Code.PROTOCOL_ERROR),
    "a window update of an idle stream": (BEGIN + window_update(1, 1), Code.PROTOCOL_ERROR),
    "a short window update": (
        BEGIN + frame(FrameType.WINDOW_UPDATE, 0, 0, bytes(3)), Code.FRAME_SIZE_ERROR
    ),
    "too wide a window": (BEGIN + window_update(0, 2**31 - 1), Code.FLOW_CONTROL_ERROR),
    "a continuation of nothing": (
        BEGIN + frame(FrameType.CONTINUATION, END_HEADERS, 1, block()), Code.PROTOCOL_ERROR
    ),
    "a continuation of another": (
        BEGIN + headers(1, 0) + frame(FrameType.CONTINUATION, END_HEADERS, 3), Code.PROTOCOL_ERROR
    ),
    "another frame within a head": (
        BEGIN + headers(1, 0) + frame(FrameType.PING, 0, 0, bytes(8)), Code.PROTOCOL_ERROR
    ),
    "endless continuations": (
        BEGIN + headers(1, 0) + frame(FrameType.CONTINUATION, 0, 1) * 100, Code.ENHANCE_YOUR_CALM
    ),
    "long continuations": (
        BEGIN + headers(1, 0) + frame(FrameType.CONTINUATION, 0, 1, bytes(40_000)) * 2,
        Code.ENHANCE_YOUR_CALM,
    ),
    "a head that is longer than it looks": (
        BEGIN + headers(1, payload=block() + b"\x40\1a\x7f\xa1\x1e" + b"b" * 4000 + b"\xbe" * 20),
        Code.ENHANCE_YOUR_CALM,
    ),
    "no hpack": (BEGIN + headers(1, payload=b"\xff\xff\xff\xff\xff\xff"), Code.COMPRESSION_ERROR),
    "too long a frame": (
        BEGIN + OPEN + struct.pack(">HBBBI", MOST_FRAME_BYTES >> 8, 1, 0, 0, 1),
        Code.FRAME_SIZE_ERROR,
    ),
    "more padding than bytes": (
        BEGIN + OPEN + data(1, b"\5abcd", PADDED), Code.PROTOCOL_ERROR
    ),
    "padding of nothing": (BEGIN + OPEN + data(1, b"", PADDED), Code.PROTOCOL_ERROR),
    "priority of a short head": (
        BEGIN + headers(1, END_HEADERS | PRIORITIZED, b"abc"), Code.FRAME_SIZE_ERROR
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONNECTION_FAULTS)
async def test_a_fault_of_the_connection_ends_it(name: str, connect: Connect) -> None:
    sent, code = CONNECTION_FAULTS[name]
    client = await connect(sent)
    _, _, number, payload = await client.receive_until(FrameType.GOAWAY)

    assert (number, int.from_bytes(payload[4:8])) == (0, code), payload
    assert not await client.is_alive()


STREAM_FAULTS = {
    "data after its end": (headers(1, payload=block(fields=[*FIELDS[:2], (b":path", b"/wait")]))
                           + data(1), Code.STREAM_CLOSED),
    "headers after its end": (
        headers(1, payload=block(fields=[*FIELDS[:2], (b":path", b"/wait")])) + headers(1),
        Code.STREAM_CLOSED,
    ),
    "data after the client has ended it": (
        OPEN + rst_stream(1, Code.NO_ERROR) + data(1), Code.STREAM_CLOSED
    ),
    "trailers that do not end it": (OPEN + headers(1, END_HEADERS), Code.PROTOCOL_ERROR),
    "a window update of 0": (OPEN + window_update(1, 0), Code.PROTOCOL_ERROR),
    "too wide a window": (OPEN + window_update(1, 2**31 - 1), Code.FLOW_CONTROL_ERROR),
    "too little for content-length": (
        headers(1, END_HEADERS, block((b"content-length", b"2"))) + data(1, b"a", END_STREAM),
        Code.PROTOCOL_ERROR,
    ),
    "content-length of nothing": (
        headers(1, payload=block((b"content-length", b"2"))), Code.PROTOCOL_ERROR
    ),
    "a handler that fails": (
        headers(1, payload=block(fields=[*FIELDS[:2], (b":path", b"/fail")])),
        Code.INTERNAL_ERROR,
    ),
}  # fmt: skip
MALFORMED: dict[str, bytes] = {
    "no method": block(fields=FIELDS[1:]),
    "no path": block(fields=FIELDS[:2]),
    "an empty path": block(fields=[*FIELDS[:2], (b":path", b"")]),
    "two paths": block((b":path", b"/")),
    "an unknown pseudo-header": block((b":odd", b"1")),
    "a pseudo-header of answers": block((b":status", b"200")),
    "a pseudo-header after others": block(fields=[(b"a", b"b"), *FIELDS]),
    "upper case": block((b"Name", b"1")),
    "a name of nothing": block((b"", b"1")),
    "a name with a blank": block((b"a b", b"1")),
    "a value with a line feed": block((b"a", b"1\r\nb: 2")),
    "a value with NUL": block((b"a", b"\0")),
    "a value that begins with a blank": block((b"a", b" 1")),
    "a second value with a line feed": block((b"a", b"1"), (b"a", b"1\r\nb: 2")),
    "connection": block((b"connection", b"close")),
    "transfer-encoding": block((b"transfer-encoding", b"chunked")),
    "te of gzip": block((b"te", b"gzip")),
}
STREAM_FAULTS |= {
    name: (headers(1, payload=payload), Code.PROTOCOL_ERROR) for name, payload in MALFORMED.items()
}


@pytest.mark.parametrize("name", STREAM_FAULTS)
async def test_a_fault_of_a_stream_ends_it_alone(name: str, connect: Connect) -> None:
    sent, code = STREAM_FAULTS[name]
    client = await connect(BEGIN, sent)
    _, _, number, payload = await client.receive_until(FrameType.RST_STREAM)

    assert (number, int.from_bytes(payload)) == (1, code)
    client.send(headers(3))
    assert (await client.receive_until(FrameType.HEADERS))[2] == 3
    assert await client.is_alive()
