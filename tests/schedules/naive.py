"""Cron by going through time tick by tick, as a person with a clock and a list would.

It shares nothing with the package but the words of the rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

_BOUNDS = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6))


class Clockwork:
    """An expression of numbers, six fields."""

    def __init__(self, expression: str) -> None:
        self.fields = expression.split()
        self.allowed = [
            {value for value in range(low, high + 1) if _holds(field, value, low)}
            for field, (low, high) in zip(self.fields, _BOUNDS, strict=True)
        ]
        self.star = any(each[0] in "*?" for i in (3, 5) for each in self.fields[i].split(","))
        self.follows = self.allowed[2] == set(range(24))

    def matches(self, shown: datetime) -> bool:
        """Whether a clock shows an allowed time."""
        second, minute, hour, day, month, weekday = self.allowed
        if shown.hour not in hour or shown.minute not in minute or shown.second not in second:
            return False
        if shown.month not in month:
            return False
        by_day, by_weekday = shown.day in day, shown.isoweekday() % 7 in weekday
        return (by_day and by_weekday) if self.star else (by_day or by_weekday)


def slots(
    expressions: list[Clockwork], zone: str, begin: datetime, end: datetime, tick: timedelta
) -> list[list[datetime]]:
    """The slots of each from ``begin`` to before ``end``; both are no times of a gap or a fold."""
    found: list[list[datetime]] = [[] for _ in expressions]
    furthest = None
    for at, shown in _ticks(ZoneInfo(zone), begin, end, tick):
        if furthest is None:
            furthest = shown - tick
        passed = []  # what the clock shows now for the first time, or has left out
        while furthest < shown:
            furthest += tick
            passed.append(furthest)
        for each, instants in zip(expressions, found, strict=True):
            if each.matches(shown) if each.follows else any(map(each.matches, passed)):
                instants.append(at)
    return found


def _ticks(
    zone: ZoneInfo, begin: datetime, end: datetime, tick: timedelta
) -> Iterator[tuple[datetime, datetime]]:
    at = begin.astimezone(UTC)
    while at < end:
        yield at, at.astimezone(zone).replace(tzinfo=None, fold=0)
        at += tick


def _holds(field: str, value: int, low: int) -> bool:
    for element in field.split(","):
        body, _, step = element.partition("/")
        first, _, last = body.partition("-")
        if body in ("*", "?"):
            if (value - low) % int(step or 1) == 0:
                return True
        elif step and not last:
            if value >= int(first) and (value - int(first)) % int(step) == 0:
                return True
        elif value in range(int(first), int(last or first) + 1, int(step or 1)):
            return True
    return False
