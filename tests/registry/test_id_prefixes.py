"""Beginnings of ids."""

from __future__ import annotations

import pytest

from registry import id_prefixes


@pytest.mark.parametrize(
    ("key", "prefix"),
    [
        ("0123abcd", "0123abcd"),
        ("0123ABCD-", "0123abcd"),
        ("0123abcd-4", "0123abcd-4"),
        ("0123abcd4567", "0123abcd-4567"),
        ("0123abcd-4567-89ab-cdef-0123456789ab", "0123abcd-4567-89ab-cdef-0123456789ab"),
        ("0123abcd-4567-89ab-cdef-0123456789ab0", None),
        ("0123abc", None),
        ("0123-abcd", None),
        ("digits-1", None),
        ("", None),
    ],
)
def test_a_beginning_is_written_as_ids_are(key: str, prefix: str | None) -> None:
    assert id_prefixes.parse(key) == prefix
