"""Tensors in JSON and as bytes; the server's side is written by the protocol's text alone."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from modelyard_runtime.frames import objects
from modelyard_runtime.server.tensors import NUMBERS

from serving.server_http import ServerAnswer
from tasks.batch_inference import tensors
from tasks.batch_inference.tensors import InputTensor
from tests.tasks.batch_inference import binary_tensors

_NUMBERS = {
    name: np.array([[0, 1], [1, 0]] if name == "BOOL" else [[0, 100], [7, 1]], dtype=dtype)
    for name, dtype in NUMBERS.items()
}


def _answer(outputs: list[dict[str, Any]], tail: bytes = b"", length: Any = None) -> ServerAnswer:
    document = json.dumps({"outputs": outputs}).encode()
    headers = {"inference-header-content-length": str(length or len(document))}
    return ServerAnswer(200, document + tail, headers if tail or length else {})


@pytest.mark.parametrize("is_binary", [True, False])
@pytest.mark.parametrize("datatype", NUMBERS)
def test_numbers_of_every_type_arrive_and_come_back(datatype: str, is_binary: bool) -> None:
    values = _NUMBERS[datatype]
    content, headers = tensors.encode([InputTensor("x", datatype, values)], is_binary=is_binary)

    seen = binary_tensors.request_of(content, headers.get(binary_tensors.LENGTH))
    (given,) = seen["inputs"]
    assert (given["shape"], given["data"]) == ([2, 2], values.ravel().tolist())
    assert (binary_tensors.LENGTH in headers) == is_binary

    data, said = binary_tensors.answer_of({"outputs": [given]}, seen)
    lower = {name.lower(): value for name, value in said.items()}
    found = tensors.decode(ServerAnswer(200, data, lower))
    assert found["x"].dtype == NUMBERS[datatype]
    assert found["x"].tolist() == values.tolist()


def test_numbers_that_json_has_not_go_as_bytes() -> None:
    values = np.array([np.nan, np.inf, -0.0], dtype=np.float32)
    content, headers = tensors.encode([InputTensor("x", "FP32", values)], is_binary=True)

    (given,) = binary_tensors.request_of(content, headers[binary_tensors.LENGTH])["inputs"]
    assert struct.pack("<3f", *given["data"]) == values.tobytes()


def test_a_column_whose_rows_lie_apart_is_sent_in_its_order() -> None:
    values = np.arange(6, dtype=np.float64).reshape(2, 3).T
    content, headers = tensors.encode([InputTensor("x", "FP64", values)], is_binary=True)

    (given,) = binary_tensors.request_of(content, headers[binary_tensors.LENGTH])["inputs"]
    assert given["data"] == [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]


def test_texts_stay_in_json_and_come_back_as_bytes() -> None:
    texts = InputTensor("t", "BYTES", objects(["a", "", "ü"]))
    content, headers = tensors.encode([texts], is_binary=True)

    seen = binary_tensors.request_of(content, headers[binary_tensors.LENGTH])
    assert seen["inputs"][0]["data"] == ["a", "", "ü"]
    tail = b"\x01\0\0\0a\0\0\0\0\x02\0\0\0\xc3\xbc\x01\0\0\0\xff"
    output = {"name": "t", "datatype": "BYTES", "shape": [2, 2],
              "parameters": {"binary_data_size": len(tail)}}  # fmt: skip
    found = tensors.decode(_answer([output], tail))
    assert found["t"].tolist() == [["a", ""], ["ü", b"\xff"]]


def test_outputs_of_both_kinds_are_told_apart() -> None:
    outputs: list[dict[str, Any]] = [
        {"name": "a", "datatype": "INT16", "shape": [2], "parameters": {"binary_data_size": 4}},
        {"name": "b", "datatype": "INT64", "shape": [2], "data": [2**53 + 1, -1]},
        {"name": "c", "datatype": "BOOL", "shape": [2], "parameters": {"binary_data_size": 2}},
    ]
    found = tensors.decode(_answer(outputs, b"\x01\0\xff\xff\x01\0"))

    assert {name: one.tolist() for name, one in found.items()} == {
        "a": [1, -1], "b": [2**53 + 1, -1], "c": [True, False],
    }  # fmt: skip


def _bytes_of(datatype: str, size: Any, shape: list[int]) -> dict[str, Any]:
    parameters = {"binary_data_size": size}
    return {"name": "x", "datatype": datatype, "shape": shape, "parameters": parameters}


@pytest.mark.parametrize(
    ("output", "tail", "length"),
    [
        (_bytes_of("FP32", 4, [1]), b"abc", None),
        (_bytes_of("FP32", 4, [1]), b"abcde", None),
        (_bytes_of("FP32", -4, [1]), b"abcd", None),
        (_bytes_of("FP32", "4", [1]), b"abcd", None),
        (_bytes_of("FP32", 3, [1]), b"abc", None),
        (_bytes_of("FP32", 4, [2]), b"abcd", None),
        (_bytes_of("QUBIT", 4, [1]), b"abcd", None),
        (_bytes_of("BYTES", 3, [1]), b"\x01\0\0", None),
        (_bytes_of("BYTES", 4, [1]), b"\x01\0\0\0", None),
        (_bytes_of("BYTES", 5, [2]), b"\x01\0\0\0a", None),
        (_bytes_of("FP32", 4, [1]), b"abcd", 9999),
        (_bytes_of("FP32", 4, [1]), b"abcd", -1),
        (_bytes_of("FP32", 4, [1]), b"abcd", "many"),
        ({"name": "x"}, b"", None),
    ],
)
def test_an_answer_that_is_none_is_refused(
    output: dict[str, Any], tail: bytes, length: Any
) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        tensors.decode(_answer([output], tail, length))
