"""The protocol's gRPC: its vectors, and requests that they do not have."""

from __future__ import annotations

import asyncio
import io
import json
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from modelyard_runtime.frames import objects
from modelyard_runtime.server import serving, tensors
from modelyard_runtime.server.access_log import AccessLog, AccessLogFormat
from modelyard_runtime.server.grpc_messages import SERVICE, message
from modelyard_runtime.server.grpc_server import GrpcServer
from modelyard_runtime.server.observation import RequestObserver, RequestRecord
from modelyard_runtime.server.request_bodies import RequestLimits
from modelyard_runtime.server.served_models import ServedModels

from tests.serving.runtime.server import served
from tests.serving.runtime.server.test_vectors import PROTOCOL

pytestmark = pytest.mark.anyio

OK, INVALID = grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT
MESSAGE_BYTES = 2**16
InferRequest = message("ModelInferRequest")


class Client:
    """A client of a server."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    async def send(self, rpc: str, body: bytes, **options: Any) -> tuple[grpc.StatusCode, Any]:
        """The code, and the answer or the words of the refusal."""
        call = self._channel.unary_unary(f"/{SERVICE}/{rpc}")
        try:
            answer = await call(body, **options)
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details()
        return OK, message(f"{rpc}Response").FromString(answer)

    async def ask(self, rpc: str, **fields: Any) -> tuple[grpc.StatusCode, Any]:
        return await self.send(rpc, message(f"{rpc}Request")(**fields).SerializeToString())

    async def infer(self, *inputs: Any, **fields: Any) -> tuple[grpc.StatusCode, Any]:
        return await self.ask(
            "ModelInfer", **{"model_name": "echo", "inputs": inputs or [tensor()], **fields}
        )


Open = Callable[..., Awaitable[Client]]


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    """Make a client of a server with these models, loaded unless they are ``late``."""
    servers: list[GrpcServer] = []
    channels: list[grpc.aio.Channel] = []
    models: list[Any] = []

    async def make(
        *given: Any, late: tuple[Any, ...] = (), token: str = "",
        observer: RequestObserver | None = None,
    ) -> Client:  # fmt: skip
        for model in given:
            await model.load()
        models.extend(given)
        served_models = ServedModels([*given, *late])
        opened = serving.listen("127.0.0.1", 0)
        limits = RequestLimits(MESSAGE_BYTES)
        servers.append(GrpcServer(served_models, opened, limits, token, observer))
        await servers[-1].start()
        channels.append(grpc.aio.insecure_channel(f"127.0.0.1:{servers[-1].port}"))
        return Client(channels[-1])

    yield make
    for channel in channels:
        await channel.close()
    for server in servers:
        await server.stop(0)
    for model in models:
        model.close()


def tensor(datatype: str = "INT32", shape: Any = (1,), name: str = "x", **values: Any) -> Any:
    if not values and datatype == "INT32":
        values = {"int_contents": [1]}
    return {"name": name, "datatype": datatype, "shape": shape, "contents": values}


def raw(datatype: str, shape: Any, *data: bytes) -> dict[str, Any]:
    inputs = [{"name": "x", "datatype": datatype, "shape": shape}]
    return {"inputs": inputs, "raw_input_contents": data}


SETOSA = tensor("FP64", [1, 4], "input", fp64_contents=served.SETOSA)
REQUESTS: dict[str, dict[str, Any]] = {
    "iris, fp64_contents": {"model_name": "iris", "inputs": [SETOSA]},
    "both set": {"inputs": [tensor()], "raw_input_contents": [bytes(4)]},
    "raw bytes != shape*itemsize": raw("FP32", [2], bytes(7)),
    "INT8 with int_contents [300]": {"inputs": [tensor("INT8", int_contents=[300])]},
    "id=r-1": {"inputs": [tensor()], "id": "r-1"},
    "outputs=[zzz]": {"inputs": [tensor()], "outputs": [{"name": "zzz"}]},
    "boom": {"model_name": "boom", "inputs": [tensor()]},
    "over max message": raw("UINT8", [MESSAGE_BYTES], bytes(MESSAGE_BYTES)),
    "BYTES bytes_contents with non-UTF-8": {
        "inputs": [tensor("BYTES", [2], bytes_contents=[b"\xff\0", "é".encode()])]
    },
}
FACTS: dict[str, Callable[[Any], bool]] = {
    "": lambda _: True,
    "live=true": lambda found: bool(found.live),
    "name, version, extensions": lambda found: all((found.name, found.version, found.extensions)),
    "int64_contents [0]; raw_output_contents empty": lambda found: (
        list(found.outputs[0].contents.int64_contents) == [0] and not found.raw_output_contents
    ),
    "id=r-1": lambda found: found.id == "r-1",
    "bit-exact": lambda found: (
        list(found.outputs[0].contents.bytes_contents) == [b"\xff\0", "é".encode()]
    ),
}


@pytest.mark.parametrize("case", PROTOCOL["grpc"], ids=lambda case: case["id"])
async def test_the_answer_is_the_protocol_s(case: dict[str, Any], opened: Open, iris: Any) -> None:
    client = await opened(
        served.hosted("iris", iris), served.hosted("echo", dict),
        served.hosted("boom", served.boom),
    )  # fmt: skip
    request = case["request"]
    fields = request if isinstance(request, dict) else {"model_name": "echo", **REQUESTS[request]}
    code, found = await client.ask(case["rpc"], **fields)

    assert code.name == case["expect_code"], found
    assert FACTS[case["facts"]](found)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"inputs": []}, "has no inputs"),
        ({"inputs": [tensor(name="")]}, "The input 0 has no name"),
        ({"inputs": [tensor(), tensor()]}, "two inputs x"),
        ({"inputs": [tensor(shape=[-1])]}, "The shape of x"),
        ({"inputs": [tensor(shape=[1] * 40)]}, "at most 32 dimensions"),
        ({"inputs": [tensor(shape=[2])]}, "[2] of x has 2 elements, and its data has 1"),
        ({"inputs": [tensor("INT32", int64_contents=[1])]}, "give int_contents"),
        ({"inputs": [tensor("INT64", int64_contents=[1], int_contents=[1])]}, "has int_contents"),
        ({"inputs": [tensor("FP64", fp32_contents=[1])]}, "has fp32_contents"),
        ({"inputs": [tensor("FP16", fp32_contents=[1])]}, "give its bytes in raw_input_contents"),
        ({"inputs": [tensor("BF16", fp32_contents=[1])]}, "give its bytes in raw_input_contents"),
        ({"inputs": [tensor("", fp32_contents=[1])]}, "The datatype of x is ''"),
        ({"inputs": [tensor("UINT8", uint_contents=[256])]}, "values beyond UINT8"),
        ({"inputs": [tensor("UINT16", uint_contents=[2**16])]}, "values beyond UINT16"),
        ({"inputs": [tensor("INT16", int_contents=[-(2**15) - 1])]}, "values beyond INT16"),
        (raw("BOOL", [1], b"\2"), "not BOOL"),
        (raw("BYTES", [1], b"\4\0\0\0abc"), "has 4 bytes, and 3 are left"),
        (raw("INT8", [1], b"a", b"b"), "1 inputs, and raw_input_contents has 2"),
        ({"outputs": [{"name": "x"}, {"name": "x"}]}, "asked for twice"),
    ],
)  # fmt: skip
async def test_what_is_malformed_is_told(fields: dict[str, Any], told: str, opened: Open) -> None:
    client = await opened(served.hosted("echo", dict))
    code, words = await client.infer(**fields)

    assert code is INVALID
    assert told in words


@pytest.mark.parametrize(
    ("rpc", "fields"),
    [
        ("ModelReady", {"name": "echo", "version": "2"}), ("ModelReady", {}),
        ("ModelMetadata", {"name": "nope"}), ("ModelMetadata", {"name": "echo", "version": "2"}),
        ("ModelInfer", {"model_name": "nope"}),
        ("ModelInfer", {"model_name": "echo", "model_version": "2"}),
    ],
)  # fmt: skip
async def test_unknown_models_and_versions_are_not_found(
    rpc: str, fields: dict[str, Any], opened: Open
) -> None:
    client = await opened(served.hosted("echo", dict))

    assert (await client.ask(rpc, **fields))[0] is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("datatype", "field", "values"),
    [
        ("BOOL", "bool_contents", [True, False]), ("INT8", "int_contents", [-128, 127]),
        ("INT16", "int_contents", [-(2**15), 2**15 - 1]), ("INT32", "int_contents", [-1, 2]),
        ("INT64", "int64_contents", [-(2**63), 2**63 - 1]), ("UINT8", "uint_contents", [0, 255]),
        ("UINT16", "uint_contents", [0, 2**16 - 1]), ("UINT32", "uint_contents", [0, 2**32 - 1]),
        ("UINT64", "uint64_contents", [0, 2**64 - 1]), ("FP32", "fp32_contents", [0.5, np.inf]),
        ("FP64", "fp64_contents", [0.1, 1e300]), ("BYTES", "bytes_contents", [b"", b"\xfe\0"]),
    ],
)  # fmt: skip
async def test_values_come_back_as_they_were_sent(
    datatype: str, field: str, values: list[Any], opened: Open
) -> None:
    client = await opened(served.hosted("echo", dict))
    code, found = await client.infer(tensor(datatype, [2, 1], **{field: values}))

    assert code is OK, found
    (output,) = found.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("x", datatype, [2, 1])
    assert [(one.name, list(value)) for one, value in output.contents.ListFields()] == [
        (field, values)
    ]
    assert not found.raw_output_contents


@pytest.mark.parametrize(
    "array",
    [
        np.array([True, False]), np.array([[1, -2]], np.int8), np.array([1.5, -0.0], np.float16),
        np.array([2**63], np.uint64), np.zeros((0, 3), np.float32), np.array(3.5),
        np.array([np.nan]), objects(["a", "", b"\xff\0"]),
    ],
    ids=repr,
)  # fmt: skip
async def test_bytes_come_back_as_they_were_sent(array: Any, opened: Open) -> None:
    client = await opened(served.hosted("echo", dict))
    data = tensors.to_bytes(array)
    code, found = await client.infer(**raw(tensors.datatype(array), array.shape, data))

    assert code is OK, found
    (output,) = found.outputs
    assert (output.datatype, tuple(output.shape)) == (tensors.datatype(array), array.shape)
    assert list(found.raw_output_contents) == [data]
    assert not output.HasField("contents")


async def test_an_answer_that_has_halves_is_bytes(opened: Open) -> None:
    half = np.array([1.5], np.float16)
    client = await opened(served.hosted("half", lambda inputs: {"half": half, **inputs}))
    _, found = await client.infer(model_name="half")

    assert [one.name for one in found.outputs] == ["half", "x"]
    assert list(found.raw_output_contents) == [half.tobytes(), np.array([1], "<i4").tobytes()]
    _, found = await client.infer(model_name="half", outputs=[{"name": "x"}])
    assert list(found.outputs[0].contents.int_contents) == [1]


async def test_a_model_that_loads_is_not_ready(opened: Open) -> None:
    client = await opened(
        served.hosted("echo", dict), late=(served.hosted("late", dict),)
    )  # fmt: skip

    assert (await client.ask("ServerLive"))[1].live
    assert not (await client.ask("ServerReady"))[1].ready
    assert (await client.ask("ModelReady", name="echo"))[1].ready
    assert not (await client.ask("ModelReady", name="late"))[1].ready
    for code, words in (
        await client.infer(model_name="late"), await client.ask("ModelMetadata", name="late"),
    ):  # fmt: skip
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "is loading" in words


async def test_a_token_is_asked_for_but_by_probes(opened: Open) -> None:
    client = await opened(served.hosted("echo", dict), token="secret")
    body = InferRequest(model_name="echo", inputs=[tensor()]).SerializeToString()
    codes = [
        (
            await client.send(
                "ModelInfer", body, metadata=[("authorization", one) for one in given]
            )
        )[0]
        for given in (["Bearer secret"], [], ["Bearer other"], ["secret"], ["Bearer secret"] * 2)
    ]

    assert codes == [OK, *[grpc.StatusCode.UNAUTHENTICATED] * 4]
    assert (await client.ask("ServerReady"))[1].ready
    assert (await client.ask("ServerMetadata"))[0] is grpc.StatusCode.UNAUTHENTICATED


async def test_metadata(opened: Open, iris: Any) -> None:
    client = await opened(served.hosted("iris", iris))
    _, found = await client.ask("ModelMetadata", name="iris")

    assert (await client.ask("ServerReady"))[1].ready
    assert (found.name, list(found.versions), found.platform) == ("iris", ["1"], "sklearn")
    (taken,) = found.inputs
    assert (taken.name, taken.datatype, list(taken.shape)) == ("input", "FP64", [-1, 4])


async def test_requests_that_wait_are_limited_in_number_and_time(opened: Open) -> None:
    client = await opened(served.hosted("slow", served.slow, waiting=1, seconds=0.2))
    given = tensor("FP64", fp64_contents=[1.0])
    answers = await asyncio.gather(
        *(client.infer(given, model_name="slow") for _ in range(4))
    )  # fmt: skip

    assert {code for code, _ in answers} == {
        grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED
    }  # fmt: skip


async def test_what_a_client_gives_up_is_not_predicted(opened: Open) -> None:
    predicted: list[float] = []
    released = threading.Event()

    def record(inputs: Any) -> Any:
        predicted.append(float(inputs["x"][0]))
        assert released.wait(30)
        return inputs

    client = await opened(served.hosted("slow", record, rows=1))
    busy, given_up, last = (
        InferRequest(
            model_name="slow", inputs=[tensor("FP64", fp64_contents=[one])]
        ).SerializeToString()
        for one in (1.0, 2.0, 3.0)
    )
    first = asyncio.ensure_future(client.send("ModelInfer", busy))
    while not predicted:
        await asyncio.sleep(0.01)
    code, _ = await client.send("ModelInfer", given_up, timeout=0.1)
    await client.ask("ServerLive")  # which arrives after the news that it is given up
    released.set()

    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert (await client.send("ModelInfer", last))[0] is OK
    assert (await first)[0] is OK
    assert predicted == [1.0, 3.0]


async def test_what_arrives_while_the_model_is_busy_is_predicted_together(opened: Open) -> None:
    began, release = threading.Event(), threading.Event()
    batches: list[int] = []

    def predict(inputs: dict[str, Any]) -> dict[str, Any]:
        batches.append(len(inputs["x"]))
        began.set()
        release.wait(20)
        return inputs

    model = served.hosted("slow", predict)
    client = await opened(model)
    first = asyncio.ensure_future(client.infer(model_name="slow"))
    await asyncio.to_thread(began.wait, 20)
    others = [asyncio.ensure_future(client.infer(model_name="slow")) for _ in range(20)]
    # Threads would be too few if each of these took one of a handful.
    assert (await client.ask("ServerLive"))[1].live
    assert model._batcher is not None
    while len(model._batcher._waiting) < 20:
        await asyncio.sleep(0.01)
    release.set()

    assert [code for code, _ in await asyncio.gather(first, *others)] == [OK] * 21
    assert batches == [1, 20]


async def test_long_words_are_cut_to_what_a_header_may_have(opened: Open) -> None:
    def fail(inputs: Any) -> Any:
        raise RuntimeError("\udc80" + "é" * 9000)

    client = await opened(served.hosted("fail", fail))
    for code, words in (
        await client.infer(model_name="é" * 9000), await client.infer(model_name="fail"),
    ):  # fmt: skip
        assert code in {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INTERNAL}
        assert words.endswith("é")
        assert 900 < len(words) < 2000


async def test_random_bytes_are_refused_and_nothing_worse(opened: Open) -> None:
    client = await opened(served.hosted("echo", dict))
    chance = random.Random(11)
    whole = InferRequest(
        model_name="echo", **raw("BYTES", [2], b"\2\0\0\0ab\0\0\0\0")
    ).SerializeToString()
    codes = []
    for _ in range(500):
        mutated = bytearray(whole)
        for _ in range(chance.randint(1, 3)):
            mutated[chance.randrange(len(mutated))] = chance.randrange(256)
        codes.append((await client.send("ModelInfer", bytes(mutated)))[0])

    assert codes.count(INVALID) > 100
    assert set(codes) <= {OK, INVALID, grpc.StatusCode.NOT_FOUND}


def test_the_messages_are_not_in_the_pool_of_the_process() -> None:
    from google.protobuf import descriptor_pool

    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("inference.ModelInferRequest")
    parameter = message("InferParameter")
    found = InferRequest(parameters={"a": parameter(bool_param=False)})
    again = InferRequest.FromString(found.SerializeToString()).parameters["a"]
    assert again.WhichOneof("parameter_choice") == "bool_param"


class _Ended:
    """What requests were, by protocol, method, model and code."""

    reads_scopes = False

    def __init__(self) -> None:
        self.found: list[tuple[str, str, str, str]] = []

    def on_begin(self, record: RequestRecord) -> None:
        pass

    def on_end(self, record: RequestRecord) -> None:
        self.found.append((record.protocol, record.method, record.model, record.code))


async def test_requests_are_observed(opened: Open) -> None:
    ended = _Ended()
    client = await opened(
        served.hosted("echo", served.slow), observer=RequestObserver([ended]), token=""
    )
    await client.infer(tensor("FP64", fp64_contents=[0.0]))
    await client.infer(tensor("FP64", fp64_contents=[]))
    await client.infer(model_name="nothing")
    await client.ask("ModelReady", name="echo")
    await client.send("ServerLive", b"")
    await client.send("ModelMetadata", b"\xff")

    assert ended.found == [
        ("grpc", "model_infer", "echo", "OK"),
        ("grpc", "model_infer", "echo", "INVALID_ARGUMENT"),
        ("grpc", "model_infer", "", "NOT_FOUND"),
        ("grpc", "model_ready", "echo", "OK"),
        ("grpc", "server_live", "", "OK"),
        ("grpc", "model_metadata", "", "INVALID_ARGUMENT"),
    ]


async def test_a_line_of_the_access_log_has_the_id_that_the_answer_carries(opened: Open) -> None:
    stream = io.StringIO()
    log = AccessLog(stream, AccessLogFormat.JSON)
    client = await opened(served.hosted("echo", served.slow), observer=RequestObserver([log]))
    call = client._channel.unary_unary(f"/{SERVICE}/ServerLive")(
        b"", metadata=[("x-request-id", "r-1"), ("x-bin", b"\x00")]
    )
    answer = await call
    trailing = dict(await call.trailing_metadata())
    await client.infer(model_name="nothing")
    log.flush()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]

    assert trailing["x-request-id"] == "r-1"
    assert lines[0]["request_id"] == "r-1"
    assert [
        (one["path"], one["status"], one["level"], one["response_bytes"]) for one in lines
    ] == [
        (f"/{SERVICE}/ServerLive", "OK", "INFO", len(answer)),
        (f"/{SERVICE}/ModelInfer", "NOT_FOUND", "WARNING", 0),
    ]
    assert lines[0]["client"] in {"127.0.0.1", "[::1]"}
