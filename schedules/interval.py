"""Slots at a fixed interval, independent of the time zone.

The slots are ``base + k * seconds`` for k from 1. As in Kubeflow Pipelines the base itself, which
there is the last slot, the start or the creation, is not a slot. Three details differ, because a
slot must be a pure function of its trigger to have an identity:

- Without catch-up, KFP runs a late slot "now" and counts on from there. Modelyard keeps the phase:
  a late slot and those after it keep their times.
- KFP has a slot at the start if it ran a slot before the start. In Modelyard a start is never one.
- KFP reads an interval of 0 as 1 second. Modelyard refuses it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from infra.errors import BadInputError
from schedules.instants import DAY, FIRST, LAST

_EVERY = "@every"
_LONGEST = 100
_DURATION = re.compile(r"\+?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:h|ms|m|s|us|µs|μs|ns))+")
_PART = re.compile(r"([0-9]*\.?[0-9]*)(h|ms|m|s|us|µs|μs|ns)")
_SPAN = re.compile(r"(?:[0-9]+[wdhms])+", re.ASCII)
_SPAN_PART = re.compile(r"([0-9]+)([wdhms])", re.ASCII)
_SPAN_UNITS = {"w": 7 * DAY, "d": DAY, "h": 3600, "m": 60, "s": 1}
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
    """Slots at a fixed interval.

    Attributes:
        seconds: The interval, at least 1.
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


def read_span(text: str) -> int:
    """Parse an interval with units, such as ``90m``, ``2d`` or ``1h30m``; the seconds.

    Raises:
        BadInputError: ``IntervalInvalid``.
    """
    if len(text) > _LONGEST or not _SPAN.fullmatch(text):
        raise BadInputError(
            f"The interval {text[:40]!r} is not a number of seconds, and not a duration.",
            "Give seconds as a number without quotes, or numbers with units: 90m, 2d or 1h30m.",
            code="IntervalInvalid",
        )
    return sum(int(number) * _SPAN_UNITS[unit] for number, unit in _SPAN_PART.findall(text))


def write_span(seconds: int) -> str:
    """Write an interval with units, such as ``1h30m``."""
    written = ""
    for unit in ("d", "h", "m", "s"):
        number, seconds = divmod(seconds, _SPAN_UNITS[unit])
        written += f"{number}{unit}" if number else ""
    return written


def is_every(expression: str) -> bool:
    """Whether a cron expression is an interval, such as ``@every 1h30m``."""
    return expression.split(maxsplit=1)[:1] == [_EVERY]


def read_every(expression: str) -> int:
    """Parse ``@every`` and a duration in Go's format; the seconds.

    Raises:
        BadInputError: ``EveryInvalid`` if the duration is invalid, or not of whole seconds, which
            robfig/cron would round silently.
    """
    text = expression.strip()[len(_EVERY) :].strip()
    if len(text) > _LONGEST or not _DURATION.fullmatch(text):
        raise BadInputError(
            f"{text[:40]!r} is not a duration for '@every'.",
            "Give numbers with units, such as 90s, 15m or 1h30m.", code="EveryInvalid",
        )  # fmt: skip
    length = sum(Fraction(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    if length < 1 or length.denominator != 1:
        raise BadInputError(
            f"'@every {text}' is not a whole number of seconds above 0.",
            "Give whole seconds, such as 90s or 1h30m.", code="EveryInvalid",
        )  # fmt: skip
    return int(length)
