"""Heads and frames of HTTP/2, decoded."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hpack import Decoder, Encoder
from hypothesis import given, settings
from hypothesis import strategies as st
from modelyard_runtime.server.http2_frames import (
    FrameReader,
    Http2Error,
    goaway,
    header,
)
from modelyard_runtime.server.http2_heads import HEAD_BYTES, HeadDecoder

from tests.serving.runtime.server.http2_client import (
    BEGIN,
    FIELDS,
    OPEN,
    Code,
    data,
)

_WORD = st.text("abc", min_size=1, max_size=3).map(str.encode)
_VALUE = st.one_of(_WORD, st.binary(max_size=3).map(bytes.hex).map(str.encode),
                   st.sampled_from([b"v" * 1000, b"w" * 3000, b"x" * 5000]))  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, 0, 100, 4096]),
            st.lists(st.tuples(_WORD, _VALUE, st.booleans()), max_size=4),
        ),
        max_size=15,
    )
)
def test_heads_are_what_the_client_s_table_says(heads: Any) -> None:
    """Heads are kept by their bytes; what these mean changes with the table."""
    decoder, encoder, oracle = HeadDecoder(), Encoder(), Decoder(HEAD_BYTES)
    for size, head in heads:
        if size not in {None, encoder.header_table_size}:
            encoder.header_table_size = size
        for _ in range(3):
            encoded = encoder.encode([*FIELDS, *head])
            expected: dict[bytes, bytes] = {}
            for name, value in oracle.decode(encoded, raw=True):
                expected[name] = expected[name] + b"," + value if name in expected else value
            found = decoder.decode(encoded)
            assert {b":method": found.method, b":path": found.path, b":scheme": b"http",
                    **found.fields} == expected  # fmt: skip


@given(st.binary(max_size=200), st.integers(0, 100))
def test_random_frames_are_refused_in_no_other_way(tail: bytes, cut: int) -> None:
    whole = BEGIN + OPEN + data(1, b"abc") + tail
    reader = FrameReader()
    with contextlib.suppress(Http2Error):
        for part in (whole[:cut], whole[cut:]):
            for one in reader.read(part):
                assert one.stream < 2**31


@pytest.mark.parametrize("size", [0, 126, 127, 128, 254, 255, 300, 2**14, 20_000])
def test_fields_of_any_length_are_encoded(size: int) -> None:
    field = (b"n" * max(1, size), b"v" * size)
    assert Decoder(10**6).decode(header(*field), raw=True) == [field]


def test_the_reason_of_an_end_fits_into_a_frame() -> None:
    assert len(goaway(1, Code.PROTOCOL_ERROR, "\udc80é" * 5000)) < 1100
