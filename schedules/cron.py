"""Cron expressions, and the slots that they have in a time zone.

Where the clocks are changed, this decides:

1. An expression that allows every hour follows the clocks: it has a slot at every instant at which
   they show a time that it allows, in both of two hours that look the same, and none for an hour
   that they leave out.
2. Any other expression has one slot for each time of each day that it allows: the first of the two
   instants if the clocks show the time twice.
3. If they never show it, the slot is the first instant after the gap, and all such times of one
   gap share that slot.

So the slots depend only on what the fields allow: ``*``, ``*/1`` and ``0-23`` are the same.
"""

from __future__ import annotations

import calendar
import functools
from collections.abc import Sequence
from datetime import date

from schedules import cron_fields, zones
from schedules.instants import DAY, EPOCH_DAY, FIRST, FIRST_YEAR, LAST, LAST_YEAR

_HOURS = 24
_KEPT = 20_000


@functools.lru_cache(maxsize=_KEPT)
def read_cron(expression: str, timezone: str = "UTC") -> Cron:
    """Read an expression, for a time zone.

    Args:
        expression: Six fields, seconds first; or five fields; or a word such as ``@daily``.
        timezone: The zone's name in the IANA database.

    Raises:
        BadInputError: With a code of its own for each fault.
    """
    return Cron(cron_fields.read_fields(expression), zones.find(timezone))


class Cron:
    """An expression in a time zone.

    Attributes:
        notice: How it was read, where that is not plain; "" otherwise.
    """

    def __init__(self, fields: cron_fields.Fields, zone: zones.Zone) -> None:
        self.notice = fields.notice
        self._fields = fields
        self._zone = zone
        self._follows = len(fields.hours) == _HOURS
        self._hours = _ring(fields.hours, _HOURS)
        self._minutes = _ring(fields.minutes, 60)
        self._seconds = _ring(fields.seconds, 60)
        self._earliest = self._at(fields.hours[0], fields.minutes[0], fields.seconds[0])
        self._latest = self._at(fields.hours[-1], fields.minutes[-1], fields.seconds[-1])
        self._per_day = len(fields.hours) * len(fields.minutes) * len(fields.seconds)
        self._masks: dict[tuple[int, int], int] = {}
        self._month = (0, 0, 0, 0)

    def next(self, after: int) -> int | None:
        """The first slot after a second; None if there is none until the last year."""
        second = max(after + 1, FIRST)
        while second <= LAST:
            segment = self._zone.segment(second)
            floor = self._floor(segment)
            begin = floor if second == segment.start else max(second + segment.offset, floor)
            wall = self._wall_from(begin)
            if wall is None:
                return None
            if wall < segment.end + segment.offset:
                return max(wall - segment.offset, segment.start)
            second = segment.end
        return None

    def latest(self, until: int) -> int | None:
        """The last slot that is not after a second; None if there is none."""
        second = min(until, LAST)
        while second >= FIRST:
            segment = self._zone.segment(second)
            wall = self._wall_until(second + segment.offset)
            if wall is None:
                return None
            if wall >= self._floor(segment):
                return max(wall - segment.offset, segment.start)
            second = segment.start - 1
        return None

    def count(self, after: int, until: int) -> int:
        """How many slots there are after one second and not after another."""
        second, until = max(after + 1, FIRST), min(until, LAST)
        total = 0
        while second <= until:
            segment = self._zone.segment(second)
            shown = segment.start + segment.offset  # what the clocks show first
            floor = self._floor(segment)
            begin = max(second + segment.offset, floor)
            end = min(until + 1, segment.end) + segment.offset
            if begin < end:
                total += self._walls_between(begin, end)
            if second == segment.start and floor < shown and self._wall_from(shown) != shown:
                total += self._walls_between(floor, shown) > 0
            second = segment.end
        return total

    def _floor(self, segment: zones.Segment) -> int:
        """The first wall time whose slot is in the segment, if it is allowed.

        Wall times from here to ``end + offset`` have their slots in it: those that the clocks have
        left out when it began are among them, and those that they show again are not.
        """
        return segment.start + (segment.offset if self._follows else segment.before)

    def _wall_from(self, wall: int) -> int | None:
        """The first allowed wall time that is not before ``wall``."""
        day, time = divmod(wall, DAY)
        first = self._day_from(day)
        if first is None:
            return None
        if first > day:
            return first * DAY + self._earliest
        hour, rest = divmod(time, 3600)
        minute, second = divmod(rest, 60)
        if self._hours.has[hour]:
            if self._minutes.has[minute]:
                found = self._seconds.up[second]
                if found is not None:
                    return day * DAY + self._at(hour, minute, found)
            found = self._minutes.up[minute + 1]
            if found is not None:
                return day * DAY + self._at(hour, found, self._seconds.first)
        found = self._hours.up[hour + 1]
        if found is not None:
            return day * DAY + self._at(found, self._minutes.first, self._seconds.first)
        first = self._day_from(day + 1)
        return None if first is None else first * DAY + self._earliest

    def _wall_until(self, wall: int) -> int | None:
        """The last allowed wall time that is not after ``wall``."""
        day, time = divmod(wall, DAY)
        last = self._day_until(day)
        if last is None:
            return None
        if last < day:
            return last * DAY + self._latest
        hour, rest = divmod(time, 3600)
        minute, second = divmod(rest, 60)
        if self._hours.has[hour]:
            if self._minutes.has[minute]:
                found = self._seconds.down[second]
                if found is not None:
                    return day * DAY + self._at(hour, minute, found)
            found = self._minutes.down[minute - 1]
            if found is not None:
                return day * DAY + self._at(hour, found, self._seconds.last)
        found = self._hours.down[hour - 1]
        if found is not None:
            return day * DAY + self._at(found, self._minutes.last, self._seconds.last)
        last = self._day_until(day - 1)
        return None if last is None else last * DAY + self._latest

    def _walls_between(self, begin: int, end: int) -> int:
        """How many allowed wall times there are from ``begin`` to before ``end``."""
        first, last = begin // DAY, end // DAY
        total = self._days_between(first, last) * self._per_day
        if self._day_from(last) == last:
            total += self._times_before(end % DAY)
        if self._day_from(first) == first:
            total -= self._times_before(begin % DAY)
        return total

    def _times_before(self, time: int) -> int:
        """How many times of an allowed day are before that one."""
        hour, rest = divmod(time, 3600)
        minute, second = divmod(rest, 60)
        per_minute = len(self._fields.seconds)
        total = self._hours.below[hour] * len(self._fields.minutes) * per_minute
        if self._hours.has[hour]:
            total += self._minutes.below[minute] * per_minute
            if self._minutes.has[minute]:
                total += self._seconds.below[second]
        return total

    def _day_from(self, day: int) -> int | None:
        """The first allowed day that is not before ``day``; days are counted from 1970."""
        start, length, mask, _ = self._month_of(day)
        left = mask >> (day - start)
        if left & 1:
            return day
        while not left:
            start, length, mask, year = self._month_of(start + length)
            if year > LAST_YEAR:
                return None
            day, left = start, mask
        return day + (left & -left).bit_length() - 1

    def _day_until(self, day: int) -> int | None:
        """The last allowed day that is not after ``day``."""
        start, _, mask, year = self._month_of(day)
        left = mask & ((2 << (day - start)) - 1)
        while not left:
            start, _, left, year = self._month_of(start - 1)
            if year < FIRST_YEAR:
                return None
        return start + left.bit_length() - 1

    def _days_between(self, first: int, last: int) -> int:
        """How many allowed days there are from ``first`` to before ``last``."""
        total = 0
        while first < last:
            start, length, mask, _ = self._month_of(first)
            left = mask >> (first - start)
            total += (left & ((1 << (last - first)) - 1)).bit_count()
            first = start + length
        return total

    def _month_of(self, day: int) -> tuple[int, int, int, int]:
        """Of the month of a day: its first day, its length, the mask of its days, and its year."""
        found = self._month
        if found[0] <= day < found[0] + found[1]:
            return found
        at = date.fromordinal(day + EPOCH_DAY)
        start = day - at.day + 1
        length = calendar.monthrange(at.year, at.month)[1]
        mask = 0
        if at.month in self._fields.months:
            mask = self._mask((start + 4) % 7, length)  # the first day of 1970 was a Thursday
        self._month = found = (start, length, mask, at.year)
        return found

    def _mask(self, weekday: int, length: int) -> int:
        """The allowed days of a month that begins on a weekday and is allowed, as bits."""
        mask = self._masks.get((weekday, length))
        if mask is None:
            fields = self._fields
            mask = 0
            for day in range(1, length + 1):
                named = day in fields.days
                falls = (weekday + day - 1) % 7 in fields.weekdays
                if (named and falls) if fields.both_days else (named or falls):
                    mask |= 1 << (day - 1)
            self._masks[weekday, length] = mask
        return mask

    @staticmethod
    def _at(hour: int, minute: int, second: int) -> int:
        return hour * 3600 + minute * 60 + second


class _Ring:
    """The allowed values of one part of a time, and from each value the next one either way.

    Attributes:
        has: Whether a value is allowed.
        up: The first that is allowed from a value on; None if there is none.
        down: The last that is allowed up to a value; None if there is none, as for -1.
        below: How many smaller ones are allowed.
        first: The smallest that is allowed.
        last: The largest.
    """

    def __init__(self, values: Sequence[int], size: int) -> None:
        self.has = [value in values for value in range(size)]
        self.up = [min((v for v in values if v >= at), default=None) for at in range(size + 1)]
        self.down = [max((v for v in values if v <= at), default=None) for at in range(size)]
        self.down.append(None)  # which index -1 finds
        self.below = [sum(v < at for v in values) for at in range(size)]
        self.first = values[0]
        self.last = values[-1]


@functools.lru_cache(maxsize=1024)
def _ring(values: tuple[int, ...], size: int) -> _Ring:
    return _Ring(values, size)
