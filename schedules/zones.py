"""Wall times of time zones, in whole seconds.

A wall time is a clock's time counted as if it were UTC: wall = second + offset. The offset is
constant in a segment; segments begin at changes of the offset, and at the beginning of each year.
"""

from __future__ import annotations

import functools
import zoneinfo
from bisect import bisect_right
from datetime import datetime, timedelta
from typing import NamedTuple

from infra.errors import BadInputError
from schedules.instants import DAY, EPOCH, EPOCH_DAY

_YEARS_KEPT = 64

# No two changes of an offset are closer than this; the shortest known distance is 7 days.
_STEP = 4 * DAY


class Segment(NamedTuple):
    """A range of time with a constant offset.

    Attributes:
        start: Its first second.
        end: The first second after it.
        offset: Offset from UTC in seconds.
        before: Offset just before the segment.
    """

    start: int
    end: int
    offset: int
    before: int


class Zone:
    """A time zone."""

    def __init__(self, key: str, info: zoneinfo.ZoneInfo) -> None:
        self.key = key
        self._info = info
        self._years: dict[int, list[Segment]] = {}
        self._last = Segment(0, 0, 0, 0)

    def segment(self, second: int) -> Segment:
        """Find the segment of ``second``."""
        found = self._last
        if found.start <= second < found.end:
            return found
        year = (EPOCH + timedelta(seconds=second)).year
        segments = self._years.get(year)
        if segments is None:
            if len(self._years) >= _YEARS_KEPT:
                self._years = {}
            segments = self._years[year] = self._segments(year)
        found = segments[bisect_right(segments, second, key=lambda each: each.start) - 1]
        self._last = found
        return found

    def second_at(self, wall: int) -> int:
        """Convert a wall time to a second.

        It is the first one if the wall time occurs twice, and the end of the gap if it does not
        occur.
        """
        segment = self.segment(wall - 2 * DAY)  # no clock is further off
        while segment.end + segment.offset <= wall:
            segment = self.segment(segment.end)
        return max(wall - segment.offset, segment.start)

    def _segments(self, year: int) -> list[Segment]:
        """Compute the segments of a year: sample the offset, then bisect its changes."""
        at = (datetime(year, 1, 1).toordinal() - EPOCH_DAY) * DAY
        end = (datetime(year + 1, 1, 1).toordinal() - EPOCH_DAY) * DAY
        segments = []
        start, offset, before = at, self._offset(at), self._offset(at - 1)
        while at < end:
            at = min(at + _STEP, end)
            while self._offset(at - 1) != offset:
                change = self._change(max(start, at - _STEP - 1), at - 1)
                segments.append(Segment(start, change, offset, before))
                start, before, offset = change, offset, self._offset(change)
        segments.append(Segment(start, end, offset, before))
        return segments

    def _change(self, same: int, other: int) -> int:
        """Find the first second after ``same`` at which the offset differs."""
        offset = self._offset(same)
        while other - same > 1:
            middle = (same + other) // 2
            if self._offset(middle) == offset:
                same = middle
            else:
                other = middle
        return other

    def _offset(self, second: int) -> int:
        at = (EPOCH + timedelta(seconds=second)).astimezone(self._info)
        ahead = at.utcoffset()
        assert ahead is not None
        return ahead.days * DAY + ahead.seconds


@functools.lru_cache(maxsize=1024)
def find(key: str) -> Zone:
    """Find a time zone by its IANA name.

    Raises:
        BadInputError: ``TimezoneUnknown``.
    """
    try:
        return Zone(key, zoneinfo.ZoneInfo(key))
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise BadInputError(
            f"Unknown time zone {key[:80]!r}.",
            "Give an IANA name, such as 'Asia/Seoul' or 'UTC'.",
            code="TimezoneUnknown",
        ) from None
