"""Slots of cron expressions in a time zone.

Rules for changes of the zone's offset, such as daylight saving time:

1. An expression that allows every hour follows the wall clock: it has slots in both of two
   repeated hours, and none in a skipped hour.
2. Any other expression has one slot for each allowed time of each allowed day: the first of two
   instants if the wall time occurs twice.
3. If the wall time does not occur, the slot is the end of the gap, which all such times share.

The slots depend only on the values that the fields allow: ``*``, ``*/1`` and ``0-23`` are equal.

croniter finds the next and the previous allowed wall time. It gets the allowed values instead of
the expression, because its grammar differs (``cron_fields``), and no time zone, because its rules
for changes of the offset differ. It cannot count slots; :meth:`Cron.count` does.
"""

from __future__ import annotations

import calendar
import functools
import threading
from bisect import bisect_left
from datetime import date

from croniter import croniter

from schedules import cron_fields, zones
from schedules.instants import DAY, EPOCH_DAY, FIRST, LAST

_HOURS = 24
_KEPT = 20_000
_EVERY_DAY = frozenset(range(1, 32))
_EVERY_WEEKDAY = frozenset(range(7))
_LONGEST_GAP_YEARS = 400  # the calendar repeats after that


@functools.lru_cache(maxsize=_KEPT)
def read_cron(expression: str, timezone: str = "UTC") -> Cron:
    """Parse a cron expression for a time zone.

    Args:
        expression: Six fields with seconds first, or five, or a word such as ``@daily``.
        timezone: IANA name of the time zone.

    Raises:
        BadInputError: With a code of its own for each fault.
    """
    return Cron(cron_fields.read_fields(expression), zones.find(timezone))


class Cron:
    """A cron expression in a time zone.

    Attributes:
        notice: Note on how an ambiguous expression was read; "" for none.
    """

    def __init__(self, fields: cron_fields.CronFields, zone: zones.Zone) -> None:
        self.notice = fields.notice
        self._fields = fields
        self._zone = zone
        self._follows = len(fields.hours) == _HOURS
        self._walk = croniter(
            _expression(fields),
            day_or=not fields.both_days,
            second_at_beginning=True,
            max_years_between_matches=_LONGEST_GAP_YEARS,
        )
        self._lock = threading.Lock()  # croniter is stateful
        self._per_day = len(fields.hours) * len(fields.minutes) * len(fields.seconds)
        self._masks: dict[tuple[int, int], int] = {}
        self._month = (0, 0, 0)

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
                slot = max(wall - segment.offset, segment.start)
                return slot if slot <= LAST else None
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
                slot = max(wall - segment.offset, segment.start)
                return slot if slot >= FIRST else None
            second = segment.start - 1
        return None

    def count(self, after: int, until: int) -> int:
        """Number of slots after one second and not after another."""
        second, until = max(after + 1, FIRST), min(until, LAST)
        total = 0
        while second <= until:
            segment = self._zone.segment(second)
            shown = segment.start + segment.offset  # the first wall time of the segment
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
        """First wall time whose slot, if it is allowed, is in the segment.

        Wall times from there to ``end + offset`` have their slots in the segment: those that its
        beginning skipped are included, those that it repeats are not.
        """
        return segment.start + (segment.offset if self._follows else segment.before)

    def _wall_from(self, wall: int) -> int | None:
        """The first allowed wall time that is not before ``wall``."""
        try:
            with self._lock:
                return int(self._walk.get_next(float, wall - 1, update_current=False))
        except ValueError:  # croniter found none before the calendar ends
            return None

    def _wall_until(self, wall: int) -> int | None:
        """The last allowed wall time that is not after ``wall``."""
        try:
            with self._lock:
                return int(self._walk.get_prev(float, wall + 1, update_current=False))
        except ValueError:  # croniter found none before the calendar ends
            return None

    def _walls_between(self, begin: int, end: int) -> int:
        """Number of allowed wall times from ``begin`` to before ``end``."""
        first, last = begin // DAY, end // DAY
        total = self._days_between(first, last) * self._per_day
        if self._is_allowed(last):
            total += self._times_before(end % DAY)
        if self._is_allowed(first):
            total -= self._times_before(begin % DAY)
        return total

    def _times_before(self, time: int) -> int:
        """Number of times of an allowed day before ``time``."""
        fields = self._fields
        hour, rest = divmod(time, 3600)
        minute, second = divmod(rest, 60)
        hours, minutes = bisect_left(fields.hours, hour), bisect_left(fields.minutes, minute)
        total = hours * len(fields.minutes)
        if hour in fields.hours:
            total += minutes
        total *= len(fields.seconds)
        if hour in fields.hours and minute in fields.minutes:
            total += bisect_left(fields.seconds, second)
        return total

    def _is_allowed(self, day: int) -> bool:
        start, _, mask = self._month_of(day)
        return bool(mask >> (day - start) & 1)

    def _days_between(self, first: int, last: int) -> int:
        """Number of allowed days from ``first`` to before ``last``."""
        total = 0
        while first < last:
            start, length, mask = self._month_of(first)
            left = mask >> (first - start)
            total += (left & ((1 << (last - first)) - 1)).bit_count()
            first = start + length
        return total

    def _month_of(self, day: int) -> tuple[int, int, int]:
        """First day, length and mask of the allowed days of the month of ``day``."""
        found = self._month
        if found[0] <= day < found[0] + found[1]:
            return found
        at = date.fromordinal(day + EPOCH_DAY)
        start = day - at.day + 1
        length = calendar.monthrange(at.year, at.month)[1]
        mask = 0
        if at.month in self._fields.months:
            mask = self._mask((start + 4) % 7, length)  # the first day of 1970 was a Thursday
        self._month = found = (start, length, mask)
        return found

    def _mask(self, weekday: int, length: int) -> int:
        """Mask of the allowed days of an allowed month that begins on ``weekday``."""
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


def _expression(fields: cron_fields.CronFields) -> str:
    """Write the allowed values as an expression for croniter, seconds first."""
    days, weekdays = fields.days, fields.weekdays
    if not fields.both_days and (len(days) == 31 or len(weekdays) == 7):
        days, weekdays = _EVERY_DAY, _EVERY_WEEKDAY  # one of the two allows every day
    parts = (fields.seconds, fields.minutes, fields.hours, days, fields.months, weekdays)
    return " ".join(",".join(map(str, sorted(part))) for part in parts)
