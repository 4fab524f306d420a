"""Long arrays in JSON: read in pieces, they are what they are read at once."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelyard_runtime.server import instances, long_arrays, open_inference, tensors
from modelyard_runtime.server.refusals import RequestRefused

from tests.serving.runtime.server import served
from tests.serving.runtime.server.conftest import Open
from tests.serving.runtime.server.test_fuzz import fuzz

Read = Callable[[bytes], Any]


@pytest.fixture(scope="module", autouse=True)
def short() -> Iterator[None]:
    """Pieces of a few bytes, so that short arrays are long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_arrays, "_PIECE", 12)
        patch.setattr(long_arrays, "LONG", 24)
        yield


def at_once(read: Read, body: bytes) -> Any:
    """What is read, or how it is refused, where no array is long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_arrays, "LONG", 2**40)
        return outcome(read, body)


def outcome(read: Read, body: bytes) -> Any:
    try:
        return read(body)
    except RequestRefused as refusal:
        return f"{refusal.status}: {refusal.message}"


def read_instances(body: bytes) -> list[str]:
    return [repr(one) for piece in instances.read(body) for one in piece]


def read_tensors(body: bytes) -> dict[str, Any]:
    found = open_inference.read(body, None)
    return {name: (one.dtype, one.shape, one.tolist()) for name, one in found.inputs.items()}


numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.sampled_from('],[}{":\\ ainstcedé'), max_size=9)
rows = st.lists(numbers, min_size=2, max_size=2)
records = st.fixed_dictionaries({"a": numbers, "data": st.lists(rows, max_size=3), "b": texts})
odd = st.one_of(st.none(), numbers, texts, rows, records, st.just([]))
elements = st.sampled_from([numbers, texts, rows, st.lists(rows, max_size=2), records, odd])
longs = elements.flatmap(lambda one: st.lists(one, max_size=30))
styles = st.sampled_from([{}, {"separators": (",", ":")}, {"indent": 2}])
edits = st.lists(
    st.tuples(st.integers(0, 400), st.sampled_from(["", "]", "[", ",", '"', "}", "x", " "])),
    max_size=1,
)


def edited(body: str, edits: list[tuple[int, str]]) -> bytes:
    for at, text in edits:
        body = body[:at] + text + body[at + 1 :]
    return body.encode()


@fuzz
@given(found=longs, style=styles, edits=edits, before=texts, after=texts)
def test_instances_are_the_same(
    found: Any, style: Any, edits: Any, before: str, after: str
) -> None:
    value = {"before": before, "instances": found, after: [found]}
    body = edited(json.dumps(value, **style), edits)

    assert outcome(read_instances, body) == at_once(read_instances, body)


names = st.sampled_from(['"instances"', '"inst\\u0061nces"', '"data"', '"d\\u0061ta"'])
fields_of_one_kind = elements.flatmap(
    lambda one: st.lists(
        st.tuples(names, st.lists(one, min_size=9, max_size=30), odd, styles), max_size=4
    )
)


@fuzz
@given(fields=fields_of_one_kind, edits=edits)
def test_of_a_name_that_occurs_twice_the_last_is_read(fields: Any, edits: Any) -> None:
    texts = [
        f"{name}: {json.dumps([*found, last], **style)}" for name, found, last, style in fields
    ]
    body = edited(f"{{{', '.join(texts)}}}", edits)

    assert outcome(read_instances, body) == at_once(read_instances, body)

    tensor = ", ".join(['"name": "x", "shape": [2], "datatype": "INT64"', *texts])
    body = edited(f'{{"inputs": [{{{tensor}}}]}}', edits)
    found, wanted = outcome(read_tensors, body), at_once(read_tensors, body)
    assert found == wanted or str(found).startswith("400")


@pytest.mark.parametrize("last", ["instances", "inst\\u0061nces"])
def test_nothing_is_handed_out_of_an_array_that_seems_to_end_in_another(last: str) -> None:
    first, second = ["[1,1]"] * 50, ["[2,2]"] * 70
    body = f'{{"instances":[{",".join([*first, "0"])}],"{last}":[{",".join(second)}]}}'

    assert read_instances(body.encode()) == ["[2, 2]"] * 70
    ((_, array),) = long_arrays.take_out(body.encode(), "instances")[1].items()
    assert not array.is_json()


@pytest.mark.parametrize("blank", [b"", b" "])
def test_deep_nesting_is_left_to_orjson(blank: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = [
        b'{"instances":' + b"[" * 5000 + b" " * 5000 + b"}",
        b"{" + b",".join(b'"data":' + (b"[" + blank) * n + b"1" + b"]" * n
                         for n in range(1, 100)) + b"}",
    ]  # fmt: skip
    compiled: list[bytes] = []
    monkeypatch.setattr(long_arrays, "_spaced", compiled.append)
    for body, key in zip(bodies, ("instances", "data"), strict=True):
        with contextlib.suppress(orjson.JSONDecodeError):
            assert long_arrays.take_out(body, key) == (orjson.loads(body), {})

    assert not compiled
    value = {"instances": [[[[1, 2], [3, 4]]]] * 99}
    _, arrays = long_arrays.take_out(json.dumps(value).encode(), "instances")
    (array,) = arrays.values()
    assert len(list(array)) > 50


def test_among_many_short_arrays_none_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []
    real = long_arrays._array

    def counted(body: bytes, start: int) -> Any:
        found.append(start)
        return real(body, start)

    monkeypatch.setattr(long_arrays, "_array", counted)
    body = b'{"x":{' + b'"data":[1],' * 5000 + b'"y":0}}'

    assert long_arrays.take_out(body, "data") == (orjson.loads(body), {})
    assert len(found) == 256


@fuzz
@given(
    values=st.lists(st.integers(0, 300), min_size=24, max_size=48), style=styles, edits=edits,
    datatype=st.sampled_from(["UINT8", "INT64", "FP32", "BYTES", "BOOL"]), data_last=st.booleans(),
    width=st.sampled_from([0, 2, 4]), other=st.sampled_from([1, 1.5, None, "a],[", True, [1]]),
)  # fmt: skip
def test_tensors_are_the_same(
    values: Any, style: Any, edits: Any, datatype: str, data_last: bool, width: int, other: Any
) -> None:
    data = {"BYTES": map(str, values), "BOOL": [one > 3 for one in values]}.get(datatype, values)
    data = list(data)
    if other != 1:
        data[-1] = other
    shape = [len(data)]
    if width:
        data = [data[at : at + width] for at in range(0, len(data), width)]
        shape = [len(data), width]
    one = {"name": "x", "shape": shape, "datatype": datatype}
    first = {**one, "data": data} if data_last else {"data": data, **one}
    parameters = {"data": [0]}
    body = edited(
        json.dumps({"inputs": [first, {**first, "name": "y"}], "else": parameters}, **style), edits
    )
    found, wanted = outcome(read_tensors, body), at_once(read_tensors, body)
    if isinstance(found, str) and isinstance(wanted, str):  # of several mistakes another is told
        found, wanted = found[:4], wanted[:4]

    assert found == wanted


@pytest.mark.parametrize(
    "text",
    [
        '{"instances": [%s,]}', '{"instances": [%s, ,1]}', '{"instances": [,%s]}',
        '{"instances": [%s], "instances": [2]}', '{"instances": {"instances": [%s]}}',
        '{"x": {"instances": [%s]}, "instances": [2]}', '[{"instances": [%s]}]',
        '{"instances": [%s]} x', '{"instances": "a", "b": {"instances": [%s]}}',
    ],
)  # fmt: skip
def test_only_what_is_there_is_read(text: str) -> None:
    body = (text % ", ".join(["1"] * 50)).encode()

    assert outcome(read_instances, body) == at_once(read_instances, body)


def test_pieces_are_short_and_many() -> None:
    value = {"instances": [[1.5, 2.5]] * 1000}
    body = json.dumps(value).encode()
    _, arrays = long_arrays.take_out(body, "instances")
    (array,) = arrays.values()

    assert max(map(len, array)) <= 4
    assert [one for piece in array for one in piece] == value["instances"]


def test_a_long_output_is_written_as_a_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = {
        "a": np.array([1.5, np.nan, 2, 3, 4]), "b": np.arange(6, dtype=np.float16).reshape(3, 2),
        "c": np.array(["a", "]", ",", ""], dtype=object),
    }  # fmt: skip
    request = open_inference.InferRequest({})
    short = open_inference.write(request, outputs, "m", "1").body
    monkeypatch.setattr(tensors, "_MOST_AT_ONCE", 2)

    assert open_inference.write(request, outputs, "m", "1").body == short


@pytest.mark.anyio
async def test_many_instances_are_predicted_some_at_a_time(opened: Open) -> None:
    rows: list[int] = []

    def double(inputs: Any) -> Any:
        rows.append(len(inputs["input"]))
        return {"prediction": 2 * inputs["input"]}

    model = served.UsersCode(double)
    model.is_users_code = False
    client = await opened(served.hosted("m", model))
    response = await client.post("/v1/models/m:predict", json={"instances": list(range(200))})

    assert response.json() == {"predictions": list(range(0, 400, 2))}
    assert sum(rows) == 200
    assert max(rows) < 20


@pytest.mark.anyio
async def test_a_user_s_code_gets_all_instances_of_a_request(opened: Open) -> None:
    shares = served.hosted(
        "shares", lambda inputs: {"prediction": inputs["x"] / inputs["x"].sum()}
    )
    client = await opened(shares)
    given_ = [{"x": float(one)} for one in range(1, 41)]
    answer = await client.post("/v1/models/shares:predict", json={"instances": given_})

    assert sum(answer.json()["predictions"]) == pytest.approx(1)
