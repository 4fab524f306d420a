"""Slots at a fixed distance from each other, whatever the clocks show.

The slots are ``base + k * seconds`` for k from 1: the base itself is none, as in Kubeflow
Pipelines, where the base is the last slot, or else the start, or else the creation. Three things
are decided differently, because a slot must be a pure function of its trigger to have an identity:

- Without catch-up, KFP runs a late slot "now" and counts on from there. Here the phase is kept:
  the last slot that was missed keeps its own time, and so do those that follow.
- KFP has a slot at the start itself if a slot before the start was run. Here a start is never one.
- KFP reads an interval of 0 as 1 second. Here it is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from infra.errors import BadInputError
from schedules.instants import FIRST, LAST

_EVERY = "@every"
_LONGEST = 100
_DURATION = re.compile(r"\+?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:h|ms|m|s|us|µs|μs|ns))+")
_PART = re.compile(r"([0-9]*\.?[0-9]*)(h|ms|m|s|us|µs|μs|ns)")
_UNITS = {
    "h": Fraction(3600),
    "m": Fraction(60),
    "s": Fraction(1),
    "ms": Fraction(1, 10**3),
    "us": Fraction(1, 10**6),
    "µs": Fraction(1, 10**6),
    "μs": Fraction(1, 10**6),
    "ns": Fraction(1, 10**9),
}


@dataclass(frozen=True)
class Interval:
    """A distance, and what it is counted from.

    Attributes:
        seconds: The distance, at least 1.
        base: The second that it is counted from.
    """

    seconds: int
    base: int

    def next(self, after: int) -> int | None:
        """The first slot after a second; None if there is none until the last year."""
        slot = self.base + max((max(after, FIRST - 1) - self.base) // self.seconds + 1, 1) * (
            self.seconds
        )
        return slot if slot <= LAST else None

    def latest(self, until: int) -> int | None:
        """The last slot that is not after a second; None if there is none."""
        number = (min(until, LAST) - self.base) // self.seconds
        slot = self.base + number * self.seconds
        return slot if number >= 1 and slot >= FIRST else None

    def count(self, after: int, until: int) -> int:
        """How many slots there are after one second and not after another."""
        first, last = self.next(after), self.latest(until)
        if first is None or last is None or last < first:
            return 0
        return (last - first) // self.seconds + 1


def is_every(expression: str) -> bool:
    """Whether an interval is written where a cron expression is, as ``@every 1h30m``."""
    return expression.split(maxsplit=1)[:1] == [_EVERY]


def read_every(expression: str) -> int:
    """The seconds of ``@every`` and a duration as Go writes them.

    Raises:
        BadInputError: ``EveryInvalid`` if it is no such duration, or not of whole seconds, which
            robfig would round to seconds without a word.
    """
    text = expression.strip()[len(_EVERY) :].strip()
    if len(text) > _LONGEST or not _DURATION.fullmatch(text):
        raise BadInputError(
            f"{text[:40]!r} is no duration that '@every' can have.",
            "Give numbers with units, such as 90s, 15m or 1h30m.", code="EveryInvalid",
        )  # fmt: skip
    length = sum(Fraction(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    if length < 1 or length.denominator != 1:
        raise BadInputError(
            f"'@every {text}' is not a whole number of seconds, from 1.",
            "Give whole seconds, such as 90s or 1h30m.", code="EveryInvalid",
        )  # fmt: skip
    return int(length)
