"""Texts of others that are to be stored and sent."""

from __future__ import annotations

import re
from typing import Any

# PostgreSQL's texts hold no NUL, and UTF-8 has no halves of surrogate pairs.
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def storable(text: str) -> str:
    """A text with what no database takes replaced."""
    return _UNSTORABLE.sub(_REPLACEMENT, text)


def is_storable(value: Any) -> bool:
    """Whether a database takes all texts of a value of JSON."""
    if isinstance(value, str):
        return not _UNSTORABLE.search(value)
    if isinstance(value, dict):
        return all(map(is_storable, (*value, *value.values())))
    return not isinstance(value, list) or all(map(is_storable, value))
