"""Trigger of a schedule: the slots of a cron expression or of an interval.

Slots are a pure function of the trigger, in whole seconds, so a schedule and a slot together
identify a run on every machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, ClassVar, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from infra.errors import BadInputError
from schedules import zones
from schedules.cron import Cron, read_cron
from schedules.instants import DAY, EPOCH, LAST_YEAR, instant_at, second_of
from schedules.interval import Interval, is_every, read_every, read_span
from schedules.schedule_fields import ScheduleFields, whole_number

LONGEST_INTERVAL = 100 * 366 * DAY

_DATED = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


class Trigger(ScheduleFields):
    """Trigger of a schedule, whose slots are after its base and not after its end.

    The base is the start, even in the past, or else ``since``: as in Kubeflow Pipelines, the base
    itself is never a slot.
    """

    noun: ClassVar[str] = "trigger"
    internal_fields = frozenset({"since"})

    cron: str | None = Field(
        None,
        description="A cron expression: six fields with seconds first, or five, or a word such as "
        "@daily or @every 1h30m.",
    )
    interval_seconds: int | None = Field(
        None,
        description="Instead of a cron expression: the seconds between slots, or a duration such "
        "as 90m, 2d or 1h30m.",
    )
    timezone: str = Field("UTC", description="Time zone of the cron expression (IANA name).")
    start: datetime | None = Field(
        None, description="Slots are after this time: ISO 8601, in the timezone by default."
    )
    end: datetime | None = Field(
        None, description="Slots are not after this time; a slot at this second is the last."
    )
    since: datetime = Field(
        description="Creation of the schedule, or last change of its trigger: without a start, "
        "slots are after this time, and an interval is counted from it."
    )

    @field_validator("cron", mode="before")
    @classmethod
    def _expression(cls, value: Any) -> Any:
        if isinstance(value, str):
            return value
        raise BadInputError(
            "`cron` must be a string.", "Give the expression in quotes.", code="CronInvalid"
        )

    @field_validator("interval_seconds", mode="before")
    @classmethod
    def _interval(cls, value: Any) -> Any:
        value = read_span(value) if isinstance(value, str) else value
        return whole_number(value, "interval", 1, LONGEST_INTERVAL, "IntervalInvalid")

    @field_validator("timezone", mode="before")
    @classmethod
    def _zone(cls, value: Any) -> Any:
        if isinstance(value, str):
            return zones.find(value).key
        raise BadInputError(
            "`timezone` must be a string.", "Give an IANA name, such as 'Asia/Seoul'.",
            code="TimezoneUnknown",
        )  # fmt: skip

    @field_validator("start", "end", "since", mode="before")
    @classmethod
    def _time(cls, value: Any, info: ValidationInfo) -> Any:
        """Convert to UTC, in whole seconds."""
        return read_time(value, info.data.get("timezone", "UTC"), f"{info.field_name}")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.cron is None and self.interval_seconds is None:
            raise BadInputError(
                "The trigger has no cron expression and no interval.", "Give one of them.",
                code="TriggerMissing",
            )  # fmt: skip
        if self.cron is not None and self.interval_seconds is not None:
            raise BadInputError(
                "The trigger has both a cron expression and an interval.", "Give only one.",
                code="TriggerTwice",
            )  # fmt: skip
        if self.start is not None and self.end is not None and self.end <= self.start:
            raise BadInputError(
                f"The end {self.end:%Y-%m-%dT%H:%M:%SZ} is not after the start "
                f"{self.start:%Y-%m-%dT%H:%M:%SZ}.",
                "Give a later end, or none.",
                code="EndBeforeStart",
            )
        _ = self._slots  # refuses an invalid expression
        return self

    def check_fires(self) -> None:
        """Refuse a trigger without slots.

        It is called for new and changed triggers only: a stored one may have expired.

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
        """Whether slots are counted from the base, so that there are none before it."""
        return isinstance(self._slots, Interval)

    def rhythm(self) -> Trigger:
        """Copy the trigger without its start and end.

        A cron expression then has slots before its start. An interval keeps its base.
        """
        return Trigger(
            cron=self.cron,
            interval_seconds=self.interval_seconds,
            timezone=self.timezone,
            since=self.base if self.is_interval else EPOCH,
        )

    @property
    def base(self) -> datetime:
        """The instant that all slots are after."""
        return self.since if self.start is None else self.start

    @property
    def notice(self) -> str:
        """Note on how an ambiguous expression was read; "" for none."""
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
        """Number of slots after one instant and not after another.

        It is computed without iterating over the slots.
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
    """Read an instant in UTC, in whole seconds, from ISO 8601 or from a datetime.

    A time without a zone is a wall time of ``timezone``: the first of two instants if it occurs
    twice, and the end of the gap if it does not occur.

    Args:
        value: A string or a datetime.
        timezone: Name of a known zone.
        what: Name of the field, for the message.

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
            f"The {what} {shown} is not a time in ISO 8601 from {EPOCH.year} on.",
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
