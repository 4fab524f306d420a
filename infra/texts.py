"""Untrusted text for databases and protocols."""

from __future__ import annotations

import re
from typing import Any

# PostgreSQL's strings hold no NUL, and UTF-8 no lone surrogates.
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
# Nor may foreign text move a terminal's cursor; lines and tabs stay.
_UNPRINTABLE = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def make_storable(text: str) -> str:
    """Replace characters that no database stores."""
    return _UNSTORABLE.sub(_REPLACEMENT, text)


def make_printable(text: str) -> str:
    """Replace characters that no database stores, or that control a terminal."""
    return _UNPRINTABLE.sub(_REPLACEMENT, text.replace("\r\n", "\n"))


def is_storable(value: Any) -> bool:
    """Whether a database stores all strings of a JSON value."""
    if isinstance(value, str):
        return not _UNSTORABLE.search(value)
    if isinstance(value, dict):
        return all(map(is_storable, (*value, *value.values())))
    return not isinstance(value, list) or all(map(is_storable, value))
