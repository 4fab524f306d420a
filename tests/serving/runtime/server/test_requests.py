"""Requests that the vectors do not have: each malformed one is told what is wrong with it."""

from __future__ import annotations

import gzip
import json
import random
import struct
import threading
import zlib
from typing import Any

import numpy as np
import pytest
from modelyard_runtime.frames import objects
from modelyard_runtime.models.base import Model, ModelOutputError
from modelyard_runtime.server import instances, open_inference, tensors
from modelyard_runtime.server.refusals import RequestRefused
from modelyard_runtime.server.request_bodies import RequestLimits

from tests.serving.runtime.server import served
from tests.serving.runtime.server.conftest import Open

pytestmark = pytest.mark.anyio


def tensor(**other: Any) -> dict[str, Any]:
    return {"name": "x", "shape": [1], "datatype": "INT32", "data": [1], **other}


def infer(*inputs: Any, **other: Any) -> bytes:
    return json.dumps({"inputs": list(inputs or [tensor()]), **other}).encode()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "no body"),
        (b"[1]", "send an object"),
        (b"{}", "inputs is None"),
        (infer(tensor(name="")), "An input has the name ''"),
        (infer(tensor(name=3)), "An input has the name 3"),
        (infer(tensor(shape=[-1])), "The shape of x"),
        (infer(tensor(shape="1")), "The shape of x"),
        (infer(tensor(shape=[1] * 40)), "at most 32 dimensions"),
        (infer(tensor(shape=[])), ""),
        (infer(tensor(datatype=["INT32"])), "The datatype of x is ['INT32']"),
        (infer(tensor(datatype=None)), "The datatype of x is None"),
        (infer(tensor(datatype="BF16")), "The input x is BF16: give its bytes, with binary_data"),
        (infer(tensor(data={"a": 1})), "The data of x is {'a': 1}: give a list"),
        (infer(tensor(data=None)), "The data of x is None: give a list"),
        (infer(tensor(shape=[3], data=[[1, 2], [3]])), "is ragged"),
        (infer(tensor(shape=[2], data=[1, [2]])), "has [2], which is no INT32"),
        (infer(tensor(data=[1.5])), "has 1.5, which is no INT32"),
        (infer(tensor(data=[True])), "has True, which is no INT32"),
        (infer(tensor(datatype="BOOL")), "has 1, which is no BOOL"),
        (infer(tensor(datatype="FP32", data=[1e40])), "values beyond FP32"),
        (infer(tensor(datatype="FP16", data=[70000])), "values beyond FP16"),
        (infer(tensor(datatype="FP32", data=[None])), "has None, which is no FP32"),
        (infer(tensor(datatype="UINT64", data=[-1])), "values beyond UINT64"),
        (infer(tensor(datatype="INT64", data=[2**63])), "values beyond INT64"),
        (infer(tensor(datatype="BYTES")), "has 1, which is no BYTES"),
        (infer(parameters={"a": [1]}), "has the parameter a [1]"),
        (infer(parameters={"binary_data_output": 1}), "binary_data_output 1: give true or false"),
        (infer(tensor(parameters=3)), "The input x has the parameters 3"),
        (infer(outputs={}), "outputs is {}: give a list"),
        (infer(outputs=[{"name": "x"}, {"name": "x"}]), "asked for twice"),
        (infer(outputs=[{"name": "zzz"}]), "The model has no output zzz; it has x"),
        (infer(outputs=[{"name": "x", "parameters": {"binary_data": 1}}]), "binary_data 1"),
        (b'{"inputs": ' + b"[" * 5000 + b"]" * 5000 + b"}", "no JSON"),
    ],
)  # fmt: skip
async def test_what_is_malformed_is_told(body: bytes, told: str, opened: Open) -> None:
    client = await opened(served.hosted("echo", dict))
    response = await client.post("/v2/models/echo/infer", content=body)

    if told:
        assert response.status_code == 400
        assert told in response.json()["error"]
    else:
        assert response.status_code == 200


@pytest.mark.parametrize(
    ("head", "tail", "told"),
    [
        (tensor(data=None), b"", "The data of x is None"),
        ({"parameters": {"binary_data_size": "4"}}, b"abcd", "binary_data_size '4'"),
        ({"parameters": {"binary_data_size": 4}}, b"abcde", "1 bytes follow the last tensor"),
        ({"parameters": {"binary_data_size": 3}}, b"abc", "has 3 bytes, and [1] of INT32 are 4"),
        ({"parameters": {"binary_data_size": 1}, "datatype": "BOOL"}, b"\2", "not BOOL"),
        ({"parameters": {"binary_data_size": 3}, "datatype": "BYTES"}, b"abc", "within the"),
        ({"parameters": {"binary_data_size": 4}, "datatype": "BF16"}, b"abcd",
         "has 4 bytes, and [1] of BF16 are 2"),
        ({"parameters": {"binary_data_size": 8}, "datatype": "BYTES"},
         struct.pack("<I", 2**32 - 1) + b"abcd", "has 4294967295 bytes, and 4 are left"),
    ],
)  # fmt: skip
async def test_binary_tensors_that_lie_are_told(
    head: dict[str, Any], tail: bytes, told: str, opened: Open
) -> None:
    client = await opened(served.hosted("echo", dict))
    given = {"name": "x", "shape": [1], "datatype": "INT32", **head}
    body = json.dumps({"inputs": [given]}).encode()
    length = {open_inference.HEADER_LENGTH: str(len(body))}
    response = await client.post("/v2/models/echo/infer", content=body + tail, headers=length)

    assert response.status_code == 400
    assert told in response.json()["error"]


async def test_random_bytes_are_refused_and_nothing_worse() -> None:
    chance = random.Random(11)
    body = json.dumps(
        {"inputs": [{"name": "x", "shape": [2], "datatype": "BYTES",
                     "parameters": {"binary_data_size": 10}}]}
    ).encode()  # fmt: skip
    whole = body + struct.pack("<I", 2) + b"ab" + struct.pack("<I", 0)
    read = refused = 0
    for _ in range(5000):
        mutated = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            mutated[chance.randrange(len(mutated))] = chance.randrange(256)
        if chance.random() < 0.3:
            del mutated[chance.randrange(len(mutated)) :]
        try:
            found = open_inference.read(bytes(mutated), str(len(body)))
            assert found.inputs.keys()
            read += 1
        except RequestRefused as refusal:
            refused += refusal.status == 400
    assert read > 10
    assert refused > 1000


@pytest.mark.parametrize(
    "array",
    [
        np.array([True, False]), np.array([[1, -2]], np.int8), np.array([1.5], np.float16),
        np.array([2**63], np.uint64), np.zeros((0, 3), np.float32), np.array(3.5),
        objects(["a", "", "é\0"]), np.arange(6).reshape(2, 3).T,
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_written_is_read_again(array: Any) -> None:
    datatype, shape = tensors.datatype(array), array.shape
    data = memoryview(tensors.to_bytes(array))
    again = tensors.from_bytes(data, datatype, shape, "x")
    assert again.tolist() == array.tolist()
    values = tensors.to_json(array, "x")
    flat = values if isinstance(values, list) else values.tolist()
    assert tensors.from_json(flat, datatype, shape, "x").tolist() == array.tolist()


@pytest.mark.parametrize("shape", [[], [1], [2, 3], [0, 2], [2**16]])
async def test_bf16_is_read_as_the_same_numbers_in_fp32(shape: list[int], opened: Open) -> None:
    count = int(np.prod(shape))
    halves = np.arange(2**16, dtype="<u2")[-count:] if count else np.empty(0, "<u2")
    given = {"name": "x", "shape": shape, "datatype": "BF16",
             "parameters": {"binary_data_size": 2 * count}}  # fmt: skip
    head = infer(given, parameters={"binary_data_output": True})
    client = await opened(served.hosted("echo", dict))
    response = await client.post(
        "/v2/models/echo/infer", content=head + halves.tobytes(),
        headers={open_inference.HEADER_LENGTH: str(len(head))},
    )  # fmt: skip
    length = int(response.headers[open_inference.HEADER_LENGTH])
    (output,) = json.loads(response.content[:length])["outputs"]
    words = np.frombuffer(response.content[length:], "<u2")

    assert (output["datatype"], output["shape"]) == ("FP32", shape)
    assert words[1::2].tolist() == halves.tolist()
    assert not words[::2].any()


async def test_no_number_is_null_in_json(opened: Open) -> None:
    client = await opened(served.hosted("nan", served.odd))
    response = await client.post("/v2/models/nan/infer", content=infer())

    assert response.json()["outputs"][0]["data"] == [None, None, 1.0]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({1: np.float32(2)}, '{"1":2.0}'), (np.int64(3), "3"), ([b"a"], '["a"]'),
        (object(), "a object has no JSON"), ("\ud800", "surrogates"),
        ({"a": b"\xff"}, "bytes that are not UTF-8"),
    ],
)  # fmt: skip
async def test_outputs_are_json_or_it_is_told_why_not(
    value: object, told: str, opened: Open
) -> None:
    client = await opened(served.hosted("m", lambda inputs: {"prediction": objects([value])}))
    answers = [
        await client.post("/v2/models/m/infer", content=infer()),
        await client.post("/v1/models/m:predict", content=b'{"instances": [1]}'),
    ]

    for one in answers:
        assert told in (one.text if one.is_error else one.text.replace("\\", ""))
        assert one.status_code == (200 if told[0] in "{3[" else 500)
        assert ("error" in one.json()) == one.is_error


async def test_a_text_without_utf_8_has_no_binary_output(opened: Open) -> None:
    client = await opened(served.hosted("m", lambda inputs: {"y": objects(["\ud800"])}))
    response = await client.post(
        "/v2/models/m/infer", content=infer(parameters={"binary_data_output": True})
    )

    assert response.status_code == 500
    assert "no UTF-8" in response.json()["error"]


class Named(Model):
    """A model of three features that have names, and texts as outputs."""

    @property
    def inputs(self) -> Any:
        return [("a", "FP64", (-1,)), ("b", "FP64", (-1,))]

    def infer(self, inputs: Any) -> Any:
        if (inputs["a"] < 0).any():
            raise ValueError("a is below 0")
        if (inputs["a"] == 0).any():
            raise ModelOutputError("The model returned nothing.")
        return {
            "prediction": objects([{"sum": one} for one in (inputs["a"] + inputs["b"]).tolist()])
        }


@pytest.mark.parametrize(
    ("a", "status", "told"),
    [
        ([1.0], 200, '{"sum":3.0}'), ([-1.0], 400, "refused the values: a is below 0"),
        ([0.0], 500, "returned nothing"), ([], 400, "has no rows"),
        ([[[1.0]]], 400, "takes a of the shape [-1], not [1, 1, 1]"),
    ],
)  # fmt: skip
async def test_features_are_tensors_of_a_value_for_each_row(
    a: Any, status: int, told: str, opened: Open
) -> None:
    client = await opened(served.hosted("table", Named()))
    given = np.array(a)
    inputs = [
        tensor(name=name, datatype="FP64", shape=list(one.shape), data=one.ravel().tolist())
        for name, one in (("a", given), ("b", np.full((len(given), 1), 2.0)))
    ]
    response = await client.post("/v2/models/table/infer", content=infer(*inputs))

    assert response.status_code == status
    assert told in (response.json()["outputs"][0]["data"] if status == 200 else response.text)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200), ("GET", "/v2/", 200), ("HEAD", "/v2/health/live", 200),
        ("POST", "/v2", 405), ("DELETE", "/v2/models/echo", 405), ("GET", "/v2/models", 404),
        ("GET", "/v2/models/echo/versions/1", 200), ("GET", "/v2/models/echo/versions/2", 404),
        ("GET", "/v2/models/echo/versions", 404), ("GET", "/v1/models/echo", 200),
        ("GET", "/v2/models/ec%2Fho", 404), ("GET", "/v2/models/echo/../boom", 404),
        ("GET", "/v1/models/a%3Apredict", 200), ("POST", "/v1/models/a:predict:predict", 200),
        ("GET", "/v2/%ff%fe", 404), ("POST", "/v1/models/echo/explain", 501),
    ],
)  # fmt: skip
async def test_routes(method: str, path: str, status: int, opened: Open) -> None:
    client = await opened(served.hosted("echo", dict), served.hosted("a:predict", dict))
    content = b'{"instances": []}' if method == "POST" else b""
    response = await client.request(method, path, content=content)

    assert response.status_code == status
    if status >= 400:
        assert response.json()["error"]
    if status == 405:
        assert response.headers["allow"]


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ("iris", "iris"), ("my model/ä%20", "my%20model%2F%C3%A4%2520"), ("v1", "v1"),
        ("v2", "v2"), ("metrics", "metrics"), ("models", "models"),
        ("openapi.json", "openapi.json"),
    ],
)  # fmt: skip
async def test_all_is_below_the_model_s_name_too(name: str, quoted: str, opened: Open) -> None:
    client = await opened(served.hosted(name, lambda inputs: inputs))
    body = json.dumps({"instances": [{"x": 1}]})
    for prefix in ("", f"/{quoted}"):
        for path in ("/v2", "/v2/health/live", "/v2/health/ready", "/v1/models", "/metrics",
                     f"/v2/models/{quoted}", f"/v2/models/{quoted}/ready",
                     "/openapi.json"):  # fmt: skip
            assert (await client.get(prefix + path)).status_code == 200, prefix + path
        path = f"{prefix}/v1/models/{quoted}:predict"
        assert (await client.post(path, content=body)).status_code == 200
        path = f"{prefix}/v2/models/{quoted}/infer"
        assert (await client.post(path, content=infer())).json()["model_name"] == name
        assert (await client.get(f"{prefix}/other")).status_code == 404
    assert (await client.get(f"/other/{quoted}/v2")).status_code == 404
    metrics = await client.get("/metrics")
    assert (await client.get("/v2")).json()["name"] == "modelyard-runtime"
    assert metrics.headers["content-type"].startswith(("text/plain", "application/openmetrics"))


async def test_the_words_of_an_error_are_told_whatever_they_are(opened: Open) -> None:
    def fail(inputs: Any) -> Any:
        raise OSError("no file a\udc80")

    client = await opened(served.hosted("fail", fail))
    response = await client.post("/v2/models/fail/infer", content=infer())

    assert response.status_code == 500
    assert response.json() == {"error": "The model failed: OSError: no file a?"}


async def test_a_request_does_not_fill_the_queue_with_its_own_instances(opened: Open) -> None:
    def lengths(inputs: Any) -> Any:
        return {"prediction": np.array([len(one) for one in inputs["input"]])}

    client = await opened(served.hosted("lengths", lengths, waiting=40))
    given = [[0] * (1 + at % 7) for at in range(500)]
    response = await client.post("/v1/models/lengths:predict", json={"instances": given})

    assert response.json() == {"predictions": [len(one) for one in given]}


async def test_what_is_large_is_read_and_written_in_a_thread(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    for module, name in ((open_inference, "read"), (open_inference, "write"),
                         (instances, "_checked"), (instances, "write")):  # fmt: skip
        original = getattr(module, name)

        def noted(*given: Any, original: Any = original) -> Any:
            threads.append(threading.current_thread().name)
            return original(*given)

        monkeypatch.setattr(module, name, noted)
    client = await opened(served.hosted("echo", dict))
    main = threading.main_thread().name
    for count in (1, 300_000):
        del threads[:]
        given = tensor(shape=[count], data=[12345678] * count, datatype="INT64")
        infer_ = await client.post("/v2/models/echo/infer", json={"inputs": [given]})
        predict = await client.post(
            "/v1/models/echo:predict", json={"instances": [1.2345678] * count}
        )
        assert infer_.json()["outputs"][0]["data"] == [12345678] * count
        assert len(predict.json()["predictions"]) == count
        assert len(threads) >= 4
        assert {name == main for name in threads} == {count == 1}


async def test_an_instance_without_fields_is_refused(opened: Open) -> None:
    client = await opened(served.hosted("echo", dict))
    response = await client.post("/v1/models/echo:predict", json={"instances": [{"a": 1}, {}]})

    assert response.status_code == 400
    assert "An instance is {}" in response.json()["error"]


async def test_instances_of_several_forms_are_answered_in_their_order(opened: Open) -> None:
    client = await opened(served.hosted("echo", lambda inputs: {"prediction": inputs["a"]}))
    given = {"instances": [{"a": 1}, {"a": 2, "b": 1}, {"a": 3}]}
    response = await client.post("/v1/models/echo:predict", json=given)

    assert response.json() == {"predictions": [1, 2, 3]}


def packed(body: bytes) -> bytes:
    """The body in gzip without the time, so that it is the same each time."""
    return gzip.compress(body, mtime=0)


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("gzip", packed(infer()), 200), ("GZIP", packed(infer()), 200),
        ("deflate", zlib.compress(infer()), 200), ("identity", infer(), 200),
        ("gzip", packed(infer(id="x" * 200_000)), 200),
        ("gzip", infer(), 400), ("gzip", packed(infer())[:-4], 400),
        ("gzip", packed(infer()) + b"more", 400), ("br", infer(), 415),
        ("gzip", packed(b" " * 2**21), 413),
    ],
    ids=["gzip", "GZIP", "deflate", "identity", "long", "plain", "cut", "more", "br", "bomb"],
)  # fmt: skip
async def test_bodies_may_be_compressed(
    encoding: str, body: bytes, status: int, opened: Open
) -> None:
    client = await opened(served.hosted("echo", dict), limits=RequestLimits(body_bytes=2**20))
    headers = {"content-encoding": encoding}
    response = await client.post("/v2/models/echo/infer", content=body, headers=headers)

    assert response.status_code == status
    answer = response.json()
    assert "outputs" in answer if status == 200 else answer["error"]
