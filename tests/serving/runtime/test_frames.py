"""Frames between two processes."""

from __future__ import annotations

import io
import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from modelyard_runtime import frames
from modelyard_runtime.frames import Frame, FrameError, objects

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
_DTYPES = hnp.boolean_dtypes() | hnp.integer_dtypes() | hnp.floating_dtypes()


def _sent(frame: Frame) -> Frame:
    file = io.BytesIO()
    frames.write(file, frame)
    file.seek(0)
    found = frames.read(file)
    assert found is not None
    assert frames.read(file) is None
    return found


@given(hnp.arrays(_DTYPES, hnp.array_shapes(max_dims=3, min_side=0)))
def test_numbers_arrive_as_they_were(array: np.ndarray[Any, Any]) -> None:
    found = _sent(Frame({"id": 1}, {"x": array})).columns["x"]

    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert found.tobytes() == array.tobytes()


@given(st.lists(st.text() | _JSON))
def test_other_values_arrive_as_they_were(values: list[Any]) -> None:
    assert _sent(Frame({}, {"x": objects(values)})).columns["x"].tolist() == values


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=()))))
def test_texts_arrive_as_they_were(texts: list[str]) -> None:
    assert _sent(Frame({}, {"x": objects(texts)})).columns["x"].tolist() == texts


def test_fields_and_an_array_that_is_not_contiguous_arrive() -> None:
    array = np.arange(12.0).reshape(3, 4).T

    found = _sent(Frame({"id": 7, "error": {"message": "é"}}, {"x": array, "y": array[:, 0]}))

    assert found.fields == {"id": 7, "error": {"message": "é"}}
    assert np.array_equal(found.columns["x"], array)
    assert np.array_equal(found.columns["y"], array[:, 0])


def test_numbers_of_numpy_within_other_values_have_json() -> None:
    values = objects([{"score": np.float32(0.5)}, [np.arange(2)]])

    assert _sent(Frame({}, {"x": values})).columns["x"].tolist() == [{"score": 0.5}, [[0, 1]]]


def _raw(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<I", len(text)) + text + data


def _column(**fields: object) -> bytes:
    described = {
        "name": "x",
        "kind": "array",
        "dtype": "<f8",
        "shape": [1],
        "bytes": [8],
        **fields,
    }
    return _raw({"columns": [described]}, b"12345678")


@pytest.mark.parametrize(
    "data",
    [
        b"\x01",
        b"Loading the model...\n",
        struct.pack("<I", 2**31) + b"{}",
        _raw([]),
        _raw({}),
        _raw({"columns": [{}]}),
        _raw({"columns": []})[:-1],
        _column()[:-1],
        _column(shape=[2]),
        _column(shape=["a"]),
        _column(dtype="O"),
        _column(dtype="no"),
        _column(bytes=[-1]),
        _column(bytes=[2**60]),
        _column(bytes=[]),
        _column(kind="pickle"),
        _column(kind="json"),
        _column(kind="text", bytes=[0, 8], shape=[1]),
        _column(kind="text", bytes=[8, 0], shape=[3]),
    ],
)
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError):
        frames.read(io.BytesIO(data))
