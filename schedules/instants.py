"""Conversion between datetimes and whole seconds since 1970, in which slots are computed."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

# Years in which slots are searched; the wall times of all zones are valid dates in them.
FIRST_YEAR = 1900
LAST_YEAR = 9998

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_DAY = EPOCH.toordinal()
DAY = 86_400

FIRST = (datetime(FIRST_YEAR, 1, 1).toordinal() - EPOCH_DAY) * DAY
LAST = (datetime(LAST_YEAR + 1, 1, 1).toordinal() - EPOCH_DAY) * DAY - 1

_SECOND = timedelta(seconds=1)


def second_of(instant: datetime) -> int:
    """Convert an instant to the second that contains it.

    Args:
        instant: A datetime with a time zone.

    Raises:
        ValueError: If it has no time zone.
    """
    if instant.tzinfo is None:
        raise ValueError(f"{instant!r} has no time zone")
    return (instant - EPOCH) // _SECOND


def instant_at(second: int) -> datetime:
    """Convert a second to the instant, in UTC, at which it begins."""
    return EPOCH + timedelta(seconds=second)


def present() -> float:
    """Current time, in seconds since 1970."""
    return time.time()
