"""Instants as whole seconds since 1970, with which slots are computed, and as datetimes."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

# Within these years a slot is looked for; a wall clock that is hours away still has a date.
FIRST_YEAR = 1900
LAST_YEAR = 9998

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_DAY = EPOCH.toordinal()
DAY = 86_400

FIRST = (datetime(FIRST_YEAR, 1, 1).toordinal() - EPOCH_DAY) * DAY
LAST = (datetime(LAST_YEAR + 1, 1, 1).toordinal() - EPOCH_DAY) * DAY - 1

_SECOND = timedelta(seconds=1)


def second_of(instant: datetime) -> int:
    """The second that ``instant`` lies in.

    Args:
        instant: It must be aware.

    Raises:
        ValueError: If it is naive.
    """
    if instant.tzinfo is None:
        raise ValueError(f"{instant!r} has no time zone")
    return (instant - EPOCH) // _SECOND


def instant_at(second: int) -> datetime:
    """The instant, in UTC, at which ``second`` begins."""
    return EPOCH + timedelta(seconds=second)


def present() -> float:
    """The present, in seconds since 1970."""
    return time.time()
