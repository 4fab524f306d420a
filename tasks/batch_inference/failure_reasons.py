"""Why records failed: how often for which reason.

Reasons that differ only in a value, such as a number or a text in quotes, count together, under
the first one's words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from infra.texts import make_printable

# As many kinds of reasons are told apart; as many are shown, the most frequent ones.
_MOST_KINDS = 100
_MOST_SHOWN = 10
_LONGEST = 300
_VALUE = re.compile(r"""'[^']*'|"[^"]*"|\d[\d.,]*(?:[eE][-+]?\d+)?""")


@dataclass(frozen=True)
class FailureReason:
    """A reason for which records failed.

    Attributes:
        reason: What the first one's reason is, up to 300 characters of it.
        count: How many records failed for it.
        file: The number of the file with the first one.
        row: Number of the first one in its file.
    """

    reason: str
    count: int
    file: int
    row: int


class FailureReasons:
    """Counts reasons, of any number of records."""

    def __init__(self) -> None:
        self._found: dict[str, FailureReason] = {}

    def add(self, file: int, row: int, reason: str) -> None:
        """Count a record."""
        self.merge([FailureReason(make_printable(reason[:_LONGEST]), 1, file, row)])

    def merge(self, others: Iterable[FailureReason]) -> None:
        """Count what is counted already; the reason of the first record is shown."""
        for one in others:
            kind = _VALUE.sub("…", one.reason)
            if kind not in self._found and len(self._found) >= _MOST_KINDS:
                kind = next(reversed(self._found))  # beyond the limit the last kind takes all
            known = self._found.get(kind, replace(one, count=0))
            first = min(known, one, key=lambda found: (found.file, found.row))
            self._found[kind] = replace(first, count=known.count + one.count)

    @property
    def found(self) -> list[FailureReason]:
        """The reasons, the most frequent one first."""
        return sorted(self._found.values(), key=lambda one: -one.count)


def combined(reasons: Iterable[Sequence[FailureReason]]) -> list[FailureReason]:
    """The reasons of several counts, the most frequent one first."""
    together = FailureReasons()
    for some in reasons:
        together.merge(some)
    return together.found


def shown(found: Sequence[FailureReason], name_of: Callable[[int], str]) -> list[dict[str, Any]]:
    """The most frequent reasons as plain data: ``reason``, ``count``, and the first one's place.

    Args:
        found: The reasons, the most frequent one first.
        name_of: From the number of a file to its name.
    """
    return [
        {"reason": one.reason, "count": one.count, "file": name_of(one.file), "row": one.row}
        for one in found[:_MOST_SHOWN]
    ]


def parse(found: Iterable[Mapping[str, Any]]) -> list[FailureReason]:
    """Reasons that were written as plain data, with every attribute."""
    return [FailureReason(**one) for one in found]
