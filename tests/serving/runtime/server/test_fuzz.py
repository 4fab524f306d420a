"""Whatever a client sends is its mistake or is answered: never a 500, and never another value.

Bounded and always the same; more of it, and other, with MODELYARD_SEEDS.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from modelyard_runtime.frames import Array, objects
from modelyard_runtime.server import grpc_tensors, open_inference, tensors
from modelyard_runtime.server.application import Application
from modelyard_runtime.server.grpc_messages import message
from modelyard_runtime.server.hosted_model import HostedModel
from modelyard_runtime.server.refusals import RequestRefused
from modelyard_runtime.server.request_bodies import RequestLimits
from modelyard_runtime.server.scoring_application import ScoringApplication
from modelyard_runtime.server.scoring_script import ScoringScript
from modelyard_runtime.server.served_models import ServedModels

from tests.serving.runtime.server import served

SEEDS = int(os.environ.get("MODELYARD_SEEDS", "1"))
fuzz = settings(max_examples=150 * SEEDS, deadline=None, derandomize=SEEDS == 1, database=None)

LENGTH = open_inference.HEADER_LENGTH
BODY_BYTES = 2**20
InferRequest = message("ModelInferRequest")
Ask = Callable[..., tuple[int, dict[str, str], bytes]]


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def asker(loop: asyncio.AbstractEventLoop, application: Any) -> Ask:
    """A client of an application, which is called without HTTP."""

    async def call(
        path: str, body: bytes, headers: Mapping[str, str], method: str, query: str
    ) -> tuple[int, dict[str, str], bytes]:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": body}

        async def send(part: Any) -> None:
            sent.append(part)

        scope = {
            "type": "http", "method": method, "path": path, "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode("latin-1"))
                        for name, value in headers.items()],
        }  # fmt: skip
        await application(scope, receive, send)
        found = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
        return sent[0]["status"], found, sent[1]["body"]

    def ask(
        path: str, body: bytes, headers: Mapping[str, str] | None = None, *,
        method: str = "POST", query: str = "",
    ) -> tuple[int, dict[str, str], bytes]:  # fmt: skip
        return loop.run_until_complete(call(path, body, headers or {}, method, query))

    return ask


@pytest.fixture(scope="module")
def ask(loop: asyncio.AbstractEventLoop, iris: Any) -> Iterator[Ask]:
    models: list[HostedModel] = [served.hosted("iris", iris), served.hosted("echo", dict)]
    for one in models:
        loop.run_until_complete(one.load())
    yield asker(loop, Application(ServedModels(models), limits=RequestLimits(BODY_BYTES)))
    for one in models:
        one.close()


def check(found: tuple[int, dict[str, str], bytes], key: str = "error") -> int:
    """The status of an answer, which is no failure, and says why if it is a refusal."""
    status, headers, body = found
    assert status in {200, 400, 404, 405, 408, 413, 415, 431, 501}, body
    assert int(headers["content-length"]) == len(body)
    if status != 200:
        assert len(json.loads(body)[key]) > 10
    return status


plain = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=()), max_size=8)
)  # fmt: skip
values = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
)
sizes = st.integers(0, 4) | st.sampled_from([-1, 2**31, 2**62, 2**63, 2**64 - 1, 2**64])
shapes = st.lists(sizes, max_size=4)
datatypes = st.sampled_from([*tensors.NUMBERS, tensors.TEXT, "BF16", "FLOAT", "int32", ""])


def or_odd(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(strategy, strategy, strategy, values)


parameters = st.fixed_dictionaries(
    {}, optional={name: or_odd(st.integers(-1, 40) | st.booleans())
                  for name in ("binary_data_size", "binary_data", "binary_data_output", "other")}
)  # fmt: skip
tensor = st.fixed_dictionaries(
    {},
    optional={
        "name": or_odd(st.sampled_from(["x", "y", "input", ""])), "shape": or_odd(shapes),
        "datatype": or_odd(datatypes), "parameters": or_odd(parameters),
        "data": or_odd(st.lists(plain, max_size=5)),
    },
)  # fmt: skip
requests = st.fixed_dictionaries(
    {"inputs": or_odd(st.lists(tensor, max_size=3))},
    optional={
        "id": or_odd(st.text(max_size=5)), "parameters": or_odd(parameters),
        "outputs": or_odd(st.lists(tensor, max_size=2)),
    },
)  # fmt: skip


def as_json(value: object) -> bytes:
    """As Python writes it: NaN, Infinity and lone surrogates, which are no JSON, among it."""
    return json.dumps(value).encode()


@fuzz
@given(request=requests, model=st.sampled_from(["iris", "echo"]))
def test_requests_of_version_2(ask: Ask, request: Any, model: str) -> None:
    check(ask(f"/v2/models/{model}/infer", as_json(request)))


@fuzz
@given(request=requests, tail=st.binary(max_size=40), length=st.integers(-3, 3) | st.text())
def test_binary_requests(ask: Ask, request: Any, tail: bytes, length: Any) -> None:
    head = as_json(request)
    given_ = str(len(head) + length) if isinstance(length, int) else length
    if given_.encode("latin-1", "ignore").decode("latin-1") == given_:
        check(ask("/v2/models/echo/infer", head + tail, {LENGTH: given_}))


@fuzz
@given(
    instances=or_odd(st.lists(values, max_size=4)), model=st.sampled_from(["iris", "echo"]),
    rest=st.dictionaries(st.text(max_size=3), plain, max_size=2),
)  # fmt: skip
def test_requests_of_version_1(ask: Ask, instances: Any, model: str, rest: Any) -> None:
    check(ask(f"/v1/models/{model}:predict", as_json({**rest, "instances": instances})))


@fuzz
@given(body=st.binary(max_size=60), encoding=st.sampled_from(["", "gzip", "deflate", "x"]))
def test_bodies_that_are_anything(ask: Ask, body: bytes, encoding: str) -> None:
    headers = {"content-encoding": encoding} if encoding else {}
    for path in ("/v2/models/echo/infer", "/v1/models/iris:predict"):
        check(ask(path, body, headers))


WHOLE = as_json({"id": "é", "inputs": [{"name": "x", "shape": [2], "datatype": "FP32",
                                        "data": [1.5, 2]}]})  # fmt: skip


@fuzz
@given(
    path=st.sampled_from(["/v2/models/echo/infer", "/v1/models/echo:predict"]),
    edits=st.lists(st.tuples(st.integers(0, len(WHOLE)), st.binary(max_size=3)), max_size=3),
    prefix=st.sampled_from([b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\0"]),
    coding=st.sampled_from(["utf-8", "utf-16", "utf-32"]),
)
def test_bodies_that_are_almost_right(
    ask: Ask, path: str, edits: Any, prefix: bytes, coding: str
) -> None:
    body = WHOLE.decode().encode(coding)
    for at, text in edits:
        body = body[:at] + text + body[at + 1 :]
    check(ask(path, prefix + body))


@fuzz
@given(
    path=st.lists(
        st.sampled_from(["v1", "v2", "models", "iris", "IRIS", "infer", "ready", "versions", "1",
                         "health", "live", "iris:predict", "iris%3apredict", ":", "", ".", "..",
                         "%2e%2e", "%2F", "%00", "%c0%af", "%", "é", "metrics"])
        | st.text(max_size=4),
        max_size=7,
    ),
    method=st.sampled_from(["GET", "HEAD", "POST", "OPTIONS", "TRACE", "DELETE", "BREW"]),
)  # fmt: skip
def test_paths(ask: Ask, path: list[str], method: str) -> None:
    raw = "/".join(["", *path]).encode("utf-8", "surrogatepass").decode("latin-1")
    found = ask(raw, b"", method=method)
    if method == "HEAD":
        assert found[2] == b""
    else:
        check(found)


SCRIPT = """
import json
def init(): pass
def run(data): return len(data)
"""


@pytest.fixture(scope="module")
def score(
    loop: asyncio.AbstractEventLoop, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ask]:
    file = tmp_path_factory.mktemp("score") / "score.py"
    file.write_text(SCRIPT)

    async def load() -> ScoringScript:
        made = ScoringScript(file)
        await made.load()
        return made

    with served.forgotten_scripts():
        script = loop.run_until_complete(load())
        yield asker(loop, ScoringApplication(script, limits=RequestLimits(BODY_BYTES)))
        script.close()


@fuzz
@given(
    path=st.sampled_from(["", "/", "/score", "/swagger.json", "/score/", "/%73core", "/é"]),
    method=st.sampled_from(["GET", "HEAD", "POST", "OPTIONS", "PUT"]), body=st.binary(max_size=9),
    query=st.text(max_size=9)
    | st.sampled_from(["a=" + "[" * 5000, "a=" + "9" * 5000, "version=3", "version=9"]),
    ids=st.dictionaries(
        st.sampled_from(["x-request-id", "x-ms-client-request-id", "content-type", "traceid"]),
        st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"]), max_size=120),
    ),
)  # fmt: skip
def test_scoring_requests(
    score: Ask, path: str, method: str, body: bytes, query: str, ids: dict[str, str]
) -> None:
    raw = query.encode("utf-8", "surrogatepass").decode("latin-1")
    status, _, answer = score(path, body, ids, method=method, query=raw)
    assert status in {200, 400, 404, 405, 431}, answer
    if status != 200 and method != "HEAD":
        assert json.loads(answer)["message"]


def numbers(dtype: Any) -> st.SearchStrategy[Any]:
    if dtype.kind == "b":
        return st.booleans()
    if dtype.kind == "f":
        return st.floats(width=8 * dtype.itemsize, allow_nan=False, allow_infinity=False)
    limits = np.iinfo(dtype)
    return st.integers(int(limits.min), int(limits.max))


@st.composite
def arrays(draw: st.DrawFn) -> Array:
    """A tensor of any datatype and shape, also without elements."""
    datatype = draw(st.sampled_from([*tensors.NUMBERS, tensors.TEXT]))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    count = int(np.prod(shape))
    if datatype == tensors.TEXT:
        texts = st.text(st.characters(codec="utf-8"), max_size=6)
        return objects(draw(st.lists(texts, min_size=count, max_size=count))).reshape(shape)
    dtype = tensors.NUMBERS[datatype]
    found = draw(st.lists(numbers(dtype), min_size=count, max_size=count))
    return np.array(found, dtype).reshape(shape)


def same(array: Array, other: Array) -> None:
    assert array.dtype == other.dtype
    assert array.shape == other.shape
    assert array.tolist() == other.tolist()


@fuzz
@given(array=arrays(), nested=st.booleans(), binary=st.booleans())
def test_json_carries_every_value(array: Array, nested: bool, binary: bool) -> None:
    name, shape = tensors.datatype(array), list(array.shape)
    data = array.tolist() if nested and shape else array.ravel().tolist()
    head = as_json({"inputs": [{"name": "x", "shape": shape, "datatype": name, "data": data}],
                    "parameters": {"binary_data_output": binary}})  # fmt: skip
    request = open_inference.read(head, None)
    same(request.inputs["x"], array)
    answer = open_inference.write(request, request.inputs, "m", "1")
    length = int(answer.headers[LENGTH]) if binary else len(answer.body)
    (output,) = json.loads(answer.body[:length])["outputs"]
    assert (output["datatype"], output["shape"]) == (name, shape)
    if binary:
        found = tensors.from_bytes(memoryview(answer.body[length:]), name, array.shape, "x")
    else:
        found = tensors.from_json(output["data"], name, array.shape, "x")
    same(found, array)


@fuzz
@given(array=arrays(), raw=st.booleans())
def test_grpc_carries_every_value(array: Array, raw: bool) -> None:
    name = tensors.datatype(array)
    raw = raw or name == "FP16"
    contents = {} if raw else {grpc_tensors._FIELDS[name]: grpc_tensors._values(array)}
    given_ = InferRequest(
        inputs=[{"name": "x", "datatype": name, "shape": array.shape, "contents": contents}],
        raw_input_contents=[tensors.to_bytes(array)] if raw else [],
    )
    if raw:
        given_.inputs[0].ClearField("contents")
    request = grpc_tensors.read(InferRequest.FromString(given_.SerializeToString()))
    same(request.inputs["x"], array)
    answer = grpc_tensors.write(request, request.inputs, "m", "1")
    assert bool(answer.raw_output_contents) == raw
    assert answer.outputs[0].datatype == name


@fuzz
@given(
    inputs=st.lists(st.tuples(st.sampled_from(["x", "y", ""]), datatypes,
                              st.lists(st.integers(-2, 4) | st.sampled_from([2**31, 2**62]),
                                       max_size=3),
                              st.sampled_from(["", *sorted(set(grpc_tensors._FIELDS.values()))]),
                              st.integers(0, 4)), max_size=3),
    raw=st.lists(st.binary(max_size=16), max_size=3),
    cut=st.none() | st.integers(0, 60),
    flips=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=3),
)  # fmt: skip
def test_grpc_requests(inputs: Any, raw: list[bytes], cut: int | None, flips: Any) -> None:
    request = InferRequest(raw_input_contents=raw)
    for name, datatype, shape, field, count in inputs:
        one = request.inputs.add(name=name, datatype=datatype, shape=shape)
        if field:
            value: Any = b"a" if field == "bytes_contents" else 1
            getattr(one.contents, field).extend([value] * count)
    body = bytearray(request.SerializeToString())
    for at, byte in flips:
        if at < len(body):
            body[at] = byte
    status, words = 200, ""
    try:
        found = grpc_tensors.read(InferRequest.FromString(bytes(body[:cut])))
        grpc_tensors.write(found, found.inputs, "m", "1")
    except DecodeError:
        return  # which the server refuses before it reads
    except RequestRefused as refusal:
        status, words = refusal.status, refusal.message
    assert status == 200 or (status == 400 and len(words) > 10)


@pytest.mark.parametrize(
    "shape", [[2**62, 2**62], [0, 2**62], [2**31 - 1], [2**20, 2**11], [0, 2**63], [1] * 33]
)
@pytest.mark.parametrize("datatype", ["FP64", "BYTES", "BOOL"])
def test_a_small_body_takes_little_memory(ask: Ask, shape: list[int], datatype: str) -> None:
    one = {"name": "x", "shape": shape, "datatype": datatype}
    bodies = [(as_json({"inputs": [{**one, "data": []}]}), b""),
              (as_json({"inputs": [{**one, "parameters": {"binary_data_size": 4}}]}),
               struct.pack("<I", 2**32 - 1))]  # fmt: skip
    tracemalloc.start()
    for head, tail in bodies:
        assert check(ask("/v2/models/echo/infer", head + tail, {LENGTH: str(len(head))})) == 400
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2**20


@pytest.mark.parametrize("depth", [60, 200, 500, 990, 1000, 1030, 100_000])
@pytest.mark.parametrize(
    "body",
    ['{"inputs": %s}', '{"id": %s, "inputs": []}', '{"instances": {"a": %s}}',
     '{"inputs": [{"name": %s}]}', '{"instances": %s, "parameters": {"a": %s}}',
     '{"inputs": [{"name": "x", "shape": %s, "datatype": "FP32"}]}',
     '{"inputs": [{"name": "x", "shape": [1], "datatype": %s}]}',
     '{"inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": [{"a": %s}]}]}'],
)  # fmt: skip
def test_deep_nesting_is_refused(ask: Ask, body: str, depth: int) -> None:
    deep = body.replace("%s", "[" * depth + "]" * depth).encode()
    assert check(ask("/v2/models/iris/infer", deep)) == 400
    assert check(ask("/v1/models/iris:predict", deep)) == 400
