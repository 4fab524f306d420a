"""When a schedule's runs are due: the slots of a cron expression or of an interval.

The slots are a pure function of the trigger. Each is a whole second, so a schedule and a slot
together name one thing, whoever computes it and however often.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from infra.errors import BadInputError
from schedules import zones
from schedules.cron import Cron, read_cron
from schedules.forms import Form, whole_number
from schedules.instants import DAY, EPOCH, LAST_YEAR, instant_at, second_of
from schedules.interval import Interval, is_every, read_every

LONGEST_INTERVAL = 100 * 366 * DAY

_DATED = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


class Trigger(Form):
    """When runs are due. Its slots are after its base and not after its end.

    The base is the start, also one in the past, or else ``since``: as in Kubeflow Pipelines, the
    base itself is never a slot.
    """

    unwritten = frozenset({"since"})

    cron: str | None = Field(
        None,
        description="Six fields, seconds first; or five; or @daily and the like; or @every 1h30m.",
    )
    interval_seconds: int | None = Field(
        None, description="Instead of a cron expression: the seconds from one slot to the next."
    )
    timezone: str = Field(
        "UTC", description="The zone whose clocks the cron expression is read by: an IANA name."
    )
    start: datetime | None = Field(
        None,
        description="Slots are after this: ISO 8601, in the timezone if it names no other.",
    )
    end: datetime | None = Field(
        None, description="No slot is after this; one at this very second is the last."
    )
    since: datetime = Field(
        description="When the schedule was made, or its trigger last changed: without a start, "
        "slots are after this, and an interval is counted from it."
    )

    @field_validator("cron", mode="before")
    @classmethod
    def _expression(cls, value: Any) -> Any:
        if isinstance(value, str):
            return value
        raise BadInputError(
            "The cron expression is no text.", "Give it in quotes.", code="CronInvalid"
        )

    @field_validator("interval_seconds", mode="before")
    @classmethod
    def _interval(cls, value: Any) -> Any:
        return whole_number(value, "interval", 1, LONGEST_INTERVAL, "IntervalInvalid")

    @field_validator("timezone", mode="before")
    @classmethod
    def _zone(cls, value: Any) -> Any:
        if isinstance(value, str):
            return zones.find(value).key
        raise BadInputError(
            "The time zone is no text.", "Give a name of the IANA database, such as 'Asia/Seoul'.",
            code="TimezoneUnknown",
        )  # fmt: skip

    @field_validator("start", "end", "since", mode="before")
    @classmethod
    def _time(cls, value: Any, info: ValidationInfo) -> Any:
        """The instant in UTC, without parts of a second."""
        return read_time(value, info.data.get("timezone", "UTC"), f"{info.field_name}")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.cron is None and self.interval_seconds is None:
            raise BadInputError(
                "The trigger has neither a cron expression nor an interval.", "Give one of them.",
                code="TriggerMissing",
            )  # fmt: skip
        if self.cron is not None and self.interval_seconds is not None:
            raise BadInputError(
                "The trigger has a cron expression and an interval.", "Give one of them.",
                code="TriggerTwice",
            )  # fmt: skip
        if self.start is not None and self.end is not None and self.end <= self.start:
            raise BadInputError(
                f"The end {self.end:%Y-%m-%dT%H:%M:%SZ} is not after the start "
                f"{self.start:%Y-%m-%dT%H:%M:%SZ}.",
                "Give a later end, or none.",
                code="EndBeforeStart",
            )
        _ = self._slots  # an expression that cannot be read is refused here
        return self

    def check_fires(self) -> None:
        """Refuse a trigger none of whose slots is ever due.

        It is asked of what somebody writes, and not of what is stored: a schedule that has expired
        stays what it is.

        Raises:
            BadInputError: ``TriggerNeverFires``.
        """
        if self.next(self.base) is None:
            until = f" until its end {self.end:%Y-%m-%dT%H:%M:%SZ}" if self.end else ""
            raise BadInputError(
                f"The schedule has no slot{until}.", "Give a later end, or another trigger.",
                code="TriggerNeverFires",
            )  # fmt: skip

    @property
    def is_interval(self) -> bool:
        """Whether its slots are counted from its base, so that there are none before it."""
        return isinstance(self._slots, Interval)

    def rhythm(self) -> Trigger:
        """The same without a start and an end.

        A cron expression has slots long before its start then. An interval is still counted from
        the same base.
        """
        return Trigger(
            cron=self.cron,
            interval_seconds=self.interval_seconds,
            timezone=self.timezone,
            since=self.base if self.is_interval else EPOCH,
        )

    @property
    def base(self) -> datetime:
        """What its slots are after."""
        return self.since if self.start is None else self.start

    @property
    def notice(self) -> str:
        """How the expression was read, where that is not plain; "" otherwise."""
        slots = self._slots
        return slots.notice if isinstance(slots, Cron) else ""

    def next(self, after: datetime) -> datetime | None:
        """The first slot after an instant; None if there is none."""
        return _instant(self._next(second_of(after)))

    def latest(self, until: datetime) -> datetime | None:
        """The last slot that is not after an instant; None if there is none."""
        return _instant(self._latest(second_of(until)))

    def between(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """The slots after one instant and not after another, the oldest first."""
        last = second_of(until)
        slot = self._next(second_of(after))
        while slot is not None and slot <= last:
            yield instant_at(slot)
            slot = self._next(slot)

    def count(self, after: datetime, until: datetime) -> int:
        """How many slots there are after one instant and not after another.

        It is computed, not counted out: ten years of seconds cost as much as ten years of days.
        """
        first, last = self._bounds
        return self._slots.count(max(second_of(after), first), min(second_of(until), last))

    def _next(self, after: int) -> int | None:
        first, last = self._bounds
        slot = self._slots.next(max(after, first))
        return slot if slot is not None and slot <= last else None

    def _latest(self, until: int) -> int | None:
        first, last = self._bounds
        slot = self._slots.latest(min(until, last))
        return slot if slot is not None and slot > first else None

    @cached_property
    def _bounds(self) -> tuple[int, int]:
        last = instant_at(0).replace(year=LAST_YEAR) if self.end is None else self.end
        return second_of(self.base), second_of(last)

    @cached_property
    def _slots(self) -> Cron | Interval:
        if self.cron is None:
            assert self.interval_seconds is not None
            return Interval(self.interval_seconds, second_of(self.base))
        if is_every(self.cron):
            return Interval(read_every(self.cron), second_of(self.base))
        return read_cron(self.cron, self.timezone)


def read_time(value: Any, timezone: str, what: str) -> datetime:
    """An instant in UTC, without parts of a second, from ISO 8601 or from a datetime.

    One that names no zone is what the clocks of ``timezone`` show: the first of the two instants
    if they show it twice, and the first after the gap if they never do.

    Args:
        value: A text or a datetime.
        timezone: A zone that is known.
        what: What it is the time of, for the error's sentence.

    Raises:
        BadInputError: ``TimeInvalid``.
    """
    try:
        at = value if isinstance(value, datetime) else datetime.fromisoformat(_dated(value))
        if at.tzinfo is not None:
            at = at.astimezone(UTC).replace(microsecond=0)
        if not EPOCH.year <= at.year < LAST_YEAR:
            raise ValueError(at)
    except (ValueError, OverflowError):
        shown = repr(value[:40]) if isinstance(value, str) else f"of type {type(value).__name__}"
        raise BadInputError(
            f"The {what} {shown} is no time in ISO 8601 from {EPOCH.year} on.",
            "Write it as 2026-03-01T09:00:00, or with a zone as 2026-03-01T09:00:00+09:00.",
            code="TimeInvalid",
        ) from None
    if at.tzinfo is not None:
        return at
    wall = second_of(at.replace(tzinfo=UTC))
    return instant_at(zones.find(timezone).second_at(wall))


def _dated(value: Any) -> str:
    if not isinstance(value, str) or not _DATED.match(value):
        raise ValueError(value)
    return value


def _instant(second: int | None) -> datetime | None:
    return None if second is None else instant_at(second)
