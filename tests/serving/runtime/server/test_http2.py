"""Connections of HTTP/2: requests and answers, their limits, and their end."""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, TrailersReceived
from modelyard_runtime.server import http2_connection, http2_streams
from modelyard_runtime.server.body_memory import BodyMemory
from modelyard_runtime.server.http2_connection import Http2Connection
from modelyard_runtime.server.http2_frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
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
    Handler,
    block,
    data,
    headers,
)

pytestmark = pytest.mark.anyio


async def test_what_may_be_sent_is_heeded_or_passed_over(
    connect: Connect, handler: Handler
) -> None:
    client = await connect(
        BEGIN, frame(FrameType.PRIORITY, 0, 5, bytes(5)), settings_frame({Setting.ENABLE_PUSH: 0}),
        frame(FrameType.SETTINGS, ACK, 0), frame(200, 0, 0, b"extension"),  # type: ignore[arg-type]
        headers(1, END_HEADERS | PADDED | PRIORITIZED, b"\3" + bytes(5) + block() + bytes(3)),
        data(1, b"\2ab\0\0", PADDED), data(1, b""), data(1, b"c", END_STREAM),
        headers(3, END_STREAM, block()[:7]), frame(FrameType.CONTINUATION, 0, 3, block()[7:20]),
        frame(FrameType.CONTINUATION, END_HEADERS, 3, block()[20:]),
        headers(5, END_HEADERS), data(5, b"d"), headers(5, payload=block(fields=[(b"x", b"y")])),
        frame(FrameType.GOAWAY, 0, 0, bytes(8)),
    )  # fmt: skip
    bodies = [(await client.receive_until(FrameType.DATA))[3] for _ in range(2)]

    assert bodies == [b"abc", b"d"]
    assert [bytes(one.body or b"") for one in handler.requests] == [b"abc", b"", b"d"]
    assert await client.is_alive()


async def test_fields_of_one_name_are_joined(connect: Connect, handler: Handler) -> None:
    more = [(b"a", b"1"), (b"cookie", b"x"), (b"a", b"2"), (b"cookie", b"y"), (b"te", b"trailers")]
    client = await connect(
        BEGIN, headers(1, payload=block(*more, fields=[*FIELDS, (b":authority", b"host:1")]))
    )
    await client.receive_until(FrameType.HEADERS)

    assert handler.requests[0].head.fields == {
        b"a": b"1,2", b"cookie": b"x; y", b"te": b"trailers", b"host": b"host:1"
    }  # fmt: skip
    assert handler.requests[0].client == "127.0.0.1"


async def test_a_request_that_is_too_long_is_answered_before_its_end(connect: Connect) -> None:
    client = await connect(BEGIN, OPEN, *[data(1, bytes(2**17))] * 8)
    for _ in range(3):  # as the windows allow
        await client.receive_until(FrameType.WINDOW_UPDATE)
        client.send(*[data(1, bytes(2**17))] * 4)
    for _ in range(4):
        client.send(*[data(1, bytes(2**17))] * 2)
        await asyncio.sleep(0)
    kinds = []
    while FrameType.RST_STREAM not in kinds:
        kind, flags, number, payload = await client.receive()
        if number == 1:
            kinds.append(kind)
            if kind == FrameType.HEADERS:
                assert flags & END_STREAM
                assert b"413" in payload
            if kind == FrameType.RST_STREAM:
                assert int.from_bytes(payload) == Code.NO_ERROR
    client.send(data(1, b"late"), data(1, b"", END_STREAM), headers(3))

    assert (await client.receive_until(FrameType.HEADERS))[2] == 3
    assert await client.is_alive()


@pytest.mark.parametrize(
    ("size", "window"),
    [(0, 1), (1, 1), (1, 2**20), (40_000, 1), (40_000, 999), (1_000_000, 999), (10**6, 2**20)],
)
async def test_answers_keep_within_the_windows(size: int, window: int, connect: Connect) -> None:
    client = await connect(
        PREFACE, settings_frame({Setting.INITIAL_WINDOW_SIZE: 0}),
        headers(1, payload=block((b"size", str(size).encode()))),
    )  # fmt: skip
    assert (await client.receive_until(FrameType.HEADERS))[2] == 1
    left, connection_left, received, ended = 0, 2**16 - 1, b"", False
    step = max(window, size // 50)
    while not ended:
        if not left and len(received) < size:
            client.send(window_update(1, step))
            left += step
        if connection_left < step:
            client.send(window_update(0, 2**16))
            connection_left += 2**16
        kind, flags, number, payload = await client.receive()
        if kind == FrameType.DATA:
            received += payload
            left -= len(payload)
            connection_left -= len(payload)
            assert min(left, connection_left) >= 0
            assert len(payload) <= 2**14
        ended = number == 1 and bool(flags & END_STREAM)

    assert received == random.Random(size).randbytes(size)
    assert kind == FrameType.HEADERS
    assert await client.is_alive()


async def test_a_window_that_settings_narrow_is_below_nothing(connect: Connect) -> None:
    client = await connect(
        PREFACE, settings_frame({Setting.INITIAL_WINDOW_SIZE: 10}),
        headers(1, payload=block((b"size", b"20"))),
    )  # fmt: skip
    assert len((await client.receive_until(FrameType.DATA))[3]) == 10
    client.send(settings_frame({Setting.INITIAL_WINDOW_SIZE: 4}), window_update(1, 6))
    assert await client.is_alive()  # and nothing has come: 4 - 10 + 6
    client.send(window_update(1, 1))
    assert len((await client.receive_until(FrameType.DATA))[3]) == 1
    client.send(settings_frame({Setting.INITIAL_WINDOW_SIZE: 2**16}))
    assert len((await client.receive_until(FrameType.DATA))[3]) == 9


@pytest.mark.parametrize("seed", range(4))
async def test_another_s_client_gets_its_answers_in_any_packets(
    seed: int, connect: Connect
) -> None:
    """The client is h2's, which raises an error at whatever the protocol does not allow."""
    chance = random.Random(seed)
    client = await connect()
    peer = H2Connection(H2Configuration(client_side=True, header_encoding=None))
    peer.initiate_connection()
    bodies = [chance.randbytes(chance.choice([0, 1, 100, 70_000])) for _ in range(40)]
    waiting = dict(enumerate(bodies))
    found: dict[int, bytes] = {}
    ended: set[int] = set()
    numbers: dict[int, int] = {}
    sending: dict[int, bytes] = {}
    while len(ended) < len(bodies):
        while waiting and len(sending) < 8:
            index, body = waiting.popitem()
            number = peer.get_next_available_stream_id()
            more = [(b"x-id", str(chance.randrange(5)).encode()), (b"size", b"70000")]
            peer.send_headers(number, [*FIELDS, (b":authority", b"localhost"), *more])
            numbers[number], sending[number], found[number] = index, body, b""
        for number, body in list(sending.items()):
            most = min(peer.local_flow_control_window(number), peer.max_outbound_frame_size)
            part = body[: min(most, chance.randint(1, 2**14))]
            sending[number] = body[len(part) :]
            is_last = not sending[number]
            if part or is_last:
                peer.send_data(number, part, end_stream=is_last)
            if is_last:
                del sending[number]
        out = peer.data_to_send()
        while out:
            size = chance.choice([1, 7, 9, 100, 10_000])
            client.send(out[:size])
            if size < 10:
                await client.writer.drain()
                await asyncio.sleep(0)
            out = out[size:]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.01 if sending or waiting else 20):
                for event in peer.receive_data(await client.reader.read(2**16)):
                    if isinstance(event, DataReceived):
                        found[event.stream_id] += event.data
                        peer.acknowledge_received_data(
                            event.flow_controlled_length, event.stream_id
                        )
                    elif isinstance(event, ResponseReceived):
                        assert event.headers == [(b":status", b"200")]
                    elif isinstance(event, TrailersReceived):
                        assert event.headers == [(b"status", b"0")]
                    elif isinstance(event, StreamEnded):
                        ended.add(event.stream_id)

    tail = random.Random(70_000).randbytes(70_000)
    assert {numbers[one]: body for one, body in found.items()} == {
        index: body + tail for index, body in enumerate(bodies)
    }


async def test_a_request_that_is_given_up_is_cancelled(connect: Connect, handler: Handler) -> None:
    path = block(fields=[*FIELDS[:2], (b":path", b"/wait")])
    client = await connect(BEGIN, headers(1, payload=path), headers(3, payload=path))
    assert await client.is_alive()
    client.send(rst_stream(1, Code.NO_ERROR))
    assert await client.is_alive()
    assert handler.cancelled == 1
    handler.go.set()
    assert (await client.receive_until(FrameType.HEADERS))[2] == 3

    handler.go.clear()
    client.send(headers(5, payload=path))
    assert await client.is_alive()
    client.writer.close()
    async with asyncio.timeout(20):
        while handler.cancelled < 2:
            await asyncio.sleep(0.01)


async def test_who_gives_up_all_requests_is_cut_off(connect: Connect, handler: Handler) -> None:
    client = await connect(BEGIN)
    flood = [
        part for number in range(1, 2 * http2_connection._MOST_RESETS + 20, 2)
        for part in (headers(number), rst_stream(number, Code.NO_ERROR))
    ]  # fmt: skip
    client.send(*flood)
    _, _, _, payload = await client.receive_until(FrameType.GOAWAY)

    assert int.from_bytes(payload[4:8]) == Code.ENHANCE_YOUR_CALM


async def test_streams_are_limited(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2_connection, "_MOST_STREAMS", 2)
    path = block(fields=[*FIELDS[:2], (b":path", b"/wait")])
    client = await connect(BEGIN, *(headers(one, payload=path) for one in (1, 3, 5)))
    _, _, number, payload = await client.receive_until(FrameType.RST_STREAM)

    assert (number, int.from_bytes(payload)) == (5, Code.REFUSED_STREAM)


@pytest.mark.parametrize(
    "sent", [b"", PREFACE[:10], BEGIN + headers(1, 0)], ids=["nothing", "half", "a head"]
)
async def test_heads_have_their_time(sent: bytes, connect: Connect) -> None:
    client = await connect(sent, head_seconds=0.1, body_seconds=0.1)
    _, _, _, payload = await client.receive_until(FrameType.GOAWAY)
    late = Code.ENHANCE_YOUR_CALM if sent else Code.NO_ERROR
    assert int.from_bytes(payload[4:8]) == late
    assert not await client.is_alive()


async def test_a_connection_without_requests_ends(connect: Connect) -> None:
    client = await connect(BEGIN, headers(1), head_seconds=0.1, idle_seconds=0.6)
    await asyncio.sleep(0.3)
    client.send(headers(3))
    numbers = [(await client.receive_until(FrameType.HEADERS))[2] for _ in range(4)]
    assert numbers == [1, 1, 3, 3]
    _, _, _, payload = await client.receive_until(FrameType.GOAWAY)
    assert struct.unpack(">II", payload) == (3, Code.NO_ERROR)


async def test_connections_are_limited(connect: Connect) -> None:
    client = await connect(BEGIN, connections=0)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await client.receive()


async def test_a_head_in_parts_has_its_own_time(connect: Connect) -> None:
    client = await connect(BEGIN, OPEN, data(1, b"abc"), body_seconds=0.4)
    await asyncio.sleep(0.3)
    client.send(headers(3, 0, block()[:5]))
    assert (await client.receive_until(FrameType.RST_STREAM))[2] == 1
    client.send(frame(FrameType.CONTINUATION, END_HEADERS, 3, block()[5:]), data(3, b"", 1))
    assert (await client.receive_until(FrameType.HEADERS))[2] == 3


async def test_an_answer_that_is_not_taken_is_given_up(connect: Connect) -> None:
    client = await connect(
        PREFACE, settings_frame({Setting.INITIAL_WINDOW_SIZE: 10}),
        headers(1, payload=block((b"size", b"1000"))), body_seconds=0.3,
    )  # fmt: skip
    for _ in range(4):
        assert len((await client.receive_until(FrameType.DATA))[3]) == 10
        await asyncio.sleep(0.15)
        client.send(window_update(1, 10))
    _, _, number, payload = await client.receive_until(FrameType.RST_STREAM)
    assert (number, int.from_bytes(payload)) == (1, Code.ENHANCE_YOUR_CALM)
    assert await client.is_alive()


async def test_what_is_refused_by_its_head_is_not_kept(connect: Connect, handler: Handler) -> None:
    memory = BodyMemory(10)
    path = block(fields=[*FIELDS[:2], (b":path", b"/secret")])
    client = await connect(
        BEGIN, headers(1, END_HEADERS, path), data(1, bytes(100)), memory=memory
    )
    _, flags, number, payload = await client.receive_until(FrameType.HEADERS)
    assert (number, flags & END_STREAM, b"403" in payload) == (1, END_STREAM, True)
    assert (await client.receive_until(FrameType.RST_STREAM))[3] == Code.NO_ERROR.to_bytes(4)
    client.send(headers(3, payload=path))
    assert (await client.receive_until(FrameType.HEADERS))[2] == 3
    assert (handler.requests, memory.held) == ([], 0)


async def test_bodies_have_bounded_memory_together(connect: Connect, handler: Handler) -> None:
    memory = BodyMemory(10)
    wait = block(fields=[*FIELDS[:2], (b":path", b"/wait")])
    client = await connect(
        BEGIN, headers(1, END_HEADERS, wait), data(1, bytes(6), END_STREAM),
        headers(3, END_HEADERS), data(3, bytes(4)), headers(5, END_HEADERS), data(5, b"a"),
        memory=memory,
    )  # fmt: skip
    _, _, number, payload = await client.receive_until(FrameType.RST_STREAM)
    assert (number, int.from_bytes(payload), memory.held) == (5, Code.ENHANCE_YOUR_CALM, 10)
    client.send(rst_stream(3, Code.NO_ERROR))
    assert await client.is_alive()
    assert memory.held == 6
    client.send(rst_stream(1, Code.NO_ERROR))
    assert await client.is_alive()
    client.send(headers(7, END_HEADERS), data(7, bytes(10), END_STREAM))
    assert (await client.receive_until(FrameType.HEADERS))[2] == 7
    assert await client.is_alive()
    assert memory.held == 0


@pytest.mark.parametrize(
    "control",
    [
        window_update(0, 1), settings_frame({Setting.INITIAL_WINDOW_SIZE: 9}), data(1),
        frame(FrameType.PING, 0, 0, bytes(8)), frame(FrameType.PRIORITY, 0, 1, bytes(5)),
    ],
    ids=["window_update", "settings", "empty data", "ping", "priority"],
)  # fmt: skip
async def test_a_flood_of_what_is_no_request_ends_the_connection(
    control: bytes, connect: Connect, handler: Handler
) -> None:
    client = await connect(BEGIN, OPEN)
    codes = []
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        client.send(control * 30_000)
        codes.append((await client.receive_until(FrameType.GOAWAY))[3][4:8])
    assert codes in ([], [Code.ENHANCE_YOUR_CALM.to_bytes(4)])
    assert handler.faults == 1


async def test_faults_of_streams_count_as_requests_that_are_given_up(
    connect: Connect, handler: Handler
) -> None:
    flood = [
        part for number in range(1, 2 * http2_connection._MOST_RESETS + 20, 2)
        for part in (headers(number, END_HEADERS), window_update(number, 0))
    ]  # fmt: skip
    client = await connect(BEGIN, *flood)
    _, _, _, payload = await client.receive_until(FrameType.GOAWAY)
    assert int.from_bytes(payload[4:8]) == Code.ENHANCE_YOUR_CALM


async def test_bodies_have_their_time_and_connections_as_long_as_they_want(
    connect: Connect,
) -> None:
    client = await connect(BEGIN, body_seconds=0.2)
    await asyncio.sleep(0.3)
    client.send(OPEN, data(1, b"abc"))
    await asyncio.sleep(0.1)
    client.send(headers(3, END_HEADERS), data(3, b"abc"))
    _, _, number, _ = await client.receive_until(FrameType.RST_STREAM)
    assert number == 1
    client.send(data(3, b"", END_STREAM), headers(5))
    numbers = [(await client.receive_until(FrameType.HEADERS))[2] for _ in range(3)]
    assert numbers == [3, 3, 5]
    assert await client.is_alive()


async def test_who_does_not_read_is_not_read(
    connect: Connect, connections: set[Http2Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http2_streams, "_MOST_CONTROLS", 10**9)
    client = await connect(BEGIN)
    assert await client.is_alive()
    (connection,) = connections
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    ping = frame(FrameType.PING, 0, 0, bytes(8)) * 10_000
    async with asyncio.timeout(60):
        while connection._transport.is_reading():
            client.send(ping)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.writer.drain()
    kept = connection._transport.get_write_buffer_size()
    assert kept < 8 * 2**20
    client.writer.transport.resume_reading()  # type: ignore[attr-defined]
    async with asyncio.timeout(60):
        while not connection._transport.is_reading():
            await client.reader.read(2**20)


async def test_it_drains(
    connect: Connect, handler: Handler, connections: set[Http2Connection]
) -> None:
    path = block(fields=[*FIELDS[:2], (b":path", b"/wait")])
    client = await connect(BEGIN, headers(1, payload=path))
    assert await client.is_alive()
    idle = await connect(BEGIN)
    assert await idle.is_alive()
    for connection in list(connections):
        connection.drain()
    client.send(headers(3), data(3), rst_stream(3, Code.NO_ERROR))
    _, _, _, payload = await client.receive_until(FrameType.GOAWAY)
    assert struct.unpack(">II", payload) == (1, Code.NO_ERROR)
    assert await client.is_alive()
    handler.go.set()
    assert (await client.receive_until(FrameType.HEADERS))[2] == 1
    assert not await client.is_alive()
    assert not await idle.is_alive()
    assert len(handler.requests) == 1


async def test_random_frames_end_connections_and_nothing_worse(
    connect: Connect, handler: Handler, connections: set[Http2Connection]
) -> None:
    chance = random.Random(5)
    failures: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, found: failures.append(found))
    paths = [block(fields=[*FIELDS[:2], (b":path", path)]) for path in (b"/echo", b"/wait")]
    for _ in range(150):
        frames = []
        for _ in range(chance.randint(1, 20)):
            kind = chance.choice([0, 1, 1, 1, 3, 4, 8, chance.randrange(12)])
            payload = chance.choice([bytes(4), b"\0\0\0\1", bytes(8), chance.randbytes(5), *paths])
            flags, number = chance.choice([0, 1, 4, 5, 5, 8, 32]), chance.choice([0, 1, 1, 3, 5])
            frames.append(frame(FrameType(min(kind, 9)), flags, number, payload))
        client = await connect(BEGIN, headers(7, payload=chance.choice(paths)))
        assert await client.is_alive()
        client.send(*frames)
        client.writer.write_eof()
        async with asyncio.timeout(20):
            while await client.reader.read(2**16):
                pass
    handler.go.set()
    async with asyncio.timeout(20):
        while connections:
            await asyncio.sleep(0.01)

    assert failures == []
    assert any(request.head.path == b"/wait" for request in handler.requests)
