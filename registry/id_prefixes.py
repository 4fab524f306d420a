"""Beginnings of ids, by which people name a thing as Git names a commit."""

from __future__ import annotations

import re

LEAST = 8
_ID = "00000000-0000-0000-0000-000000000000"
_HEX = re.compile(r"[0-9a-f]+")


def parse(key: str) -> str | None:
    """Return the beginning of a UUID as UUIDs are written; None if the key is none.

    Args:
        key: What a user gave: at least 8 characters, with or without the dashes.
    """
    digits = key.lower().replace("-", "")
    if len(key) < LEAST or not _HEX.fullmatch(digits) or len(digits) > len(_ID) - 4:
        return None
    left = iter(digits)
    written = "".join("-" if one == "-" else next(left, "") for one in _ID)
    prefix = written.rstrip("-")
    return prefix if key.lower().rstrip("-") in {prefix, digits} else None
