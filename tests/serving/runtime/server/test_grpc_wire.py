"""What gRPC has on the wire beside its messages: compression, deadlines, and what is not gRPC."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest
from hpack import Decoder
from modelyard_runtime.server import serving
from modelyard_runtime.server.grpc_messages import SERVICE, message
from modelyard_runtime.server.grpc_server import GrpcServer
from modelyard_runtime.server.http2_frames import END_HEADERS, END_STREAM, FrameType
from modelyard_runtime.server.request_bodies import RequestLimits
from modelyard_runtime.server.served_models import ServedModels

from tests.serving.runtime.server import served
from tests.serving.runtime.server.http2_client import BEGIN, Client, block, data, headers

pytestmark = pytest.mark.anyio

MOST_BYTES = 2**16
TENSOR = {"name": "x", "datatype": "FP64", "shape": [1], "contents": {"fp64_contents": [0.0]}}
InferRequest = message("ModelInferRequest")
REQUEST = InferRequest(model_name="slow", inputs=[TENSOR]).SerializeToString()


def prefixed(body: bytes, *, is_compressed: int = 0) -> bytes:
    return bytes([is_compressed]) + len(body).to_bytes(4) + body


Ask = Callable[..., Awaitable[Mapping[bytes, bytes]]]


@pytest.fixture
async def ask() -> AsyncIterator[Ask]:
    """Ask the server's ``slow``; the fields of the answer's head and trailers."""
    model = served.hosted("slow", served.slow)
    await model.load()
    server = GrpcServer(
        ServedModels([model]), serving.listen("127.0.0.1", 0), RequestLimits(MOST_BYTES)
    )
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    client, decoder, numbers = Client(reader, writer), Decoder(), iter(range(1, 100, 2))
    client.send(BEGIN)

    async def make(
        body: bytes = prefixed(REQUEST), path: str = f"/{SERVICE}/ModelInfer",
        method: bytes = b"POST", content_type: bytes = b"application/grpc", **more: bytes,
    ) -> Mapping[bytes, bytes]:  # fmt: skip
        number = next(numbers)
        head = block(
            *((name.replace("_", "-").encode(), value) for name, value in more.items()),
            fields=[
                (b":method", method), (b":scheme", b"http"), (b":path", path.encode()),
                (b"content-type", content_type),
            ],
        )  # fmt: skip
        client.send(headers(number, END_HEADERS, head), data(number, body, END_STREAM))
        found: dict[bytes, bytes] = {}
        flags = 0
        while not flags & END_STREAM:
            _, flags, _, payload = await client.receive_until(FrameType.HEADERS)
            found |= dict(decoder.decode(payload, raw=True))
        return found

    yield make
    writer.close()
    await server.stop(0)
    model.close()


async def test_an_answer_says_what_it_is(ask: Ask) -> None:
    assert await ask() == {
        b":status": b"200", b"content-type": b"application/grpc",
        b"grpc-accept-encoding": b"identity,gzip,deflate", b"grpc-status": b"0",
    }  # fmt: skip
    assert (await ask(content_type=b"application/grpc+proto"))[b"grpc-status"] == b"0"


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [(b"gzip", gzip.compress), (b"deflate", zlib.compress), (b"identity", bytes)],
)
async def test_messages_are_decompressed(
    encoding: bytes, compress: Callable[[bytes], bytes], ask: Ask
) -> None:
    body = prefixed(compress(REQUEST), is_compressed=1)
    assert (await ask(body, grpc_encoding=encoding))[b"grpc-status"] == b"0"


@pytest.mark.parametrize(
    ("body", "more", "status", "told"),
    [
        (b"", {}, b"3", b"not one message"), (b"\0\0\0\0", {}, b"3", b"not one message"),
        (prefixed(REQUEST)[:-1], {}, b"3", b"not one message"),
        (prefixed(REQUEST) + prefixed(REQUEST), {}, b"3", b"not one message"),
        (prefixed(REQUEST, is_compressed=2), {}, b"3", b"not one message"),
        (prefixed(REQUEST, is_compressed=1), {}, b"12", b"not compressed by ''"),
        (prefixed(b"x", is_compressed=1), {"grpc_encoding": b"snappy"}, b"12", b"by 'snappy'"),
        (prefixed(b"xyz", is_compressed=1), {"grpc_encoding": b"gzip"}, b"3", b"is no gzip"),
        (prefixed(gzip.compress(REQUEST)[:-3], is_compressed=1), {"grpc_encoding": b"gzip"},
         b"3", b"not all of one gzip"),
        (prefixed(gzip.compress(bytes(10**7)), is_compressed=1), {"grpc_encoding": b"gzip"},
         b"8", b"more than 65536 bytes"),
        (prefixed(bytes(MOST_BYTES + 1)), {}, b"8", b"more than 65536 bytes"),
        (prefixed(REQUEST), {"grpc_timeout": b"soon"}, b"3", b"grpc-timeout"),
        (prefixed(REQUEST), {"grpc_timeout": b"123456789S"}, b"3", b"grpc-timeout"),
        (prefixed(REQUEST), {"path": f"/{SERVICE}/Guess"}, b"12", b"There is no method /inf"),
        (prefixed(REQUEST), {"path": "/"}, b"12", b"There is no method /."),
    ],
)  # fmt: skip
async def test_what_is_malformed_is_refused(
    body: bytes, more: dict[str, Any], status: bytes, told: bytes, ask: Ask
) -> None:
    found = await ask(body, **more)

    assert (found[b":status"], found[b"grpc-status"]) == (b"200", status)
    assert told in found[b"grpc-message"]
    assert (await ask())[b"grpc-status"] == b"0"


async def test_what_is_not_grpc_is_answered_in_http(ask: Ask) -> None:
    assert await ask(method=b"GET") == {b":status": b"405", b"allow": b"POST"}
    assert await ask(content_type=b"application/json") == {b":status": b"415"}


async def test_a_request_ends_when_its_client_s_time_is_over(ask: Ask) -> None:
    tensor = {**TENSOR, "contents": {"fp64_contents": [0.3]}}
    body = prefixed(InferRequest(model_name="slow", inputs=[tensor]).SerializeToString())
    found = await ask(body, grpc_timeout=b"20m")

    assert found[b"grpc-status"] == b"4"
    assert found[b"grpc-message"] == b"The time that the client gives is over."
    assert (await ask(body, grpc_timeout=b"1M"))[b"grpc-status"] == b"0"


async def test_words_are_percent_encoded(ask: Ask) -> None:
    request = InferRequest(model_name="100 % ü\n", inputs=[TENSOR]).SerializeToString()
    found = await ask(prefixed(request))

    assert found[b"grpc-status"] == b"5"
    assert b"There is no model 100 %25 %C3%BC%0A," in found[b"grpc-message"]
