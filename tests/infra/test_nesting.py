from __future__ import annotations

import json

import pytest

from infra import nesting


@pytest.mark.parametrize(
    ("value", "too_deep"),
    [(1, False), ([], False), ([[]], False), ([[[]]], True), ({"a": [1, {"b": 2}]}, True),
     (({"a": 1},), False)],
)  # fmt: skip
def test_levels_of_lists_and_mappings_are_counted(value: object, too_deep: bool) -> None:
    assert nesting.is_too_deep(value, 2) is too_deep


@pytest.mark.parametrize("body", [b"", b"no JSON" + b"[" * 100, json.dumps([[1]] * 100).encode()])
def test_many_lists_are_no_deep_ones(body: bytes) -> None:
    assert not nesting.is_body_too_deep(body)
