"""Which of the names that exist is meant by one that does not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

_MOST_NEAR = 5
_MOST_SHOWN = 20


def did_you_mean(wanted: str, names: Iterable[str]) -> str:
    """Ask whether the existing name most similar to ``wanted`` is meant; "" if none is similar."""
    near = difflib.get_close_matches(wanted, sorted(names), 1)
    return f"Did you mean {near[0]}?" if near else ""


def show_names(names: Sequence[str]) -> str:
    """Build a text of the first 20 names in quotes, with the number of the others."""
    shown = ", ".join(map(repr, names[:_MOST_SHOWN])) or "none"
    left = len(names) - _MOST_SHOWN
    return f"{shown} and {left} more" if left > 0 else shown


def suggest_names(names: Iterable[str], wanted: str, none: str = "There are none.") -> str:
    """Build a hint that lists existing names: those similar to ``wanted``, or the first ones.

    Args:
        names: The names that exist.
        wanted: An unknown name.
        none: The hint where no name exists.
    """
    names = sorted(names)
    if not names:
        return none
    near = difflib.get_close_matches(wanted, names, _MOST_NEAR) or names[:_MOST_NEAR]
    more = "" if len(near) == len(names) or near != names[:_MOST_NEAR] else ", …"
    return f"There is: {', '.join(near)}{more}."
