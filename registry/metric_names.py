"""Names of metrics that MLflow takes, of texts that anybody may have written."""

from __future__ import annotations

import re
from collections.abc import Container

_LONGEST_PART = 100
# MLflow takes a name as a path, in which a part of dots alone would lead elsewhere.
_OTHER = re.compile(r"[^\w. -]|^\.+$")


def part(text: str) -> str:
    """A text, such as the name of a class, as one part of a name; "_" if nothing is left."""
    return _OTHER.sub("_", text)[:_LONGEST_PART] or "_"


def unique(name: str, taken: Container[str], joint: str = " ") -> str:
    """The name, with the first free number from 2 behind it if it is taken.

    Args:
        name: The name.
        taken: Names that others have.
        joint: What stands before the number.
    """
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name}{joint}{number}"
    return found
