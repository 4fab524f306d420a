"""Policy of a schedule: catch-up of missed slots, and concurrency of its runs.

A slot is *on time* until it is older than the grace and the jitter together, then it is *missed*.
Catch-up applies to missed slots only, so a scheduler that is a second late, or restarts quickly,
loses no slot under any policy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar

from pydantic import Field, ValidationInfo, field_validator

from infra.errors import BadInputError
from schedules.instants import instant_at, second_of
from schedules.schedule_fields import ScheduleFields, whole_number
from schedules.trigger import Trigger

_SECOND = timedelta(seconds=1)
_MOST = 2**31 - 1
_BOUNDS = {
    "catchup_window": (1, _MOST),
    "max_catchup_runs": (1, _MOST),
    "max_concurrency": (1, _MOST),
    "jitter": (0, 86_400),
    "grace": (0, 86_400),
    "pause_after_failures": (1, _MOST),
}


class Catchup(StrEnum):
    """Which missed slots are run."""

    ALL = "all"
    LATEST = "latest"
    NONE = "none"


class Overlap(StrEnum):
    """What to do with a slot when ``max_concurrency`` is reached."""

    QUEUE = "queue"
    SKIP = "skip"
    CANCEL_RUNNING = "cancel_running"


class SkipReason(StrEnum):
    """Reason why a missed slot is skipped.

    Attributes:
        CATCHUP_OFF: The policy has `catchup: none`.
        OUTSIDE_WINDOW: It is older than `catchup_window`.
        NOT_LATEST: The policy has `catchup: latest`, and a later slot was missed as well.
        TOO_MANY: `max_catchup_runs` newer slots were missed.
    """

    CATCHUP_OFF = "CatchupOff"
    OUTSIDE_WINDOW = "OutsideWindow"
    NOT_LATEST = "NotLatest"
    TOO_MANY = "TooMany"


class SchedulePolicy(ScheduleFields):
    """Policy of a schedule."""

    noun: ClassVar[str] = "policy"

    catchup: Catchup = Field(
        Catchup.ALL,
        description="Which missed slots are run: all, the latest of them, or none. true is all, "
        "false is latest.",
    )
    catchup_window: int | None = Field(
        None, description="Skip missed slots that are older than this many seconds."
    )
    max_catchup_runs: int | None = Field(
        None, description="Run at most this many missed slots, the newest ones."
    )
    max_concurrency: int = Field(1, description="The most runs that are active at once.")
    overlap: Overlap = Field(
        Overlap.QUEUE,
        description="What to do when max_concurrency is reached: queue the slot, skip it, or "
        "cancel_running to cancel an active run.",
    )
    jitter: int = Field(
        0, description="Delay each run by up to this many seconds; deterministic per slot."
    )
    grace: int = Field(
        60, description="A slot counts as missed once it is more than this many seconds late."
    )
    pause_after_failures: int | None = Field(
        None, description="Pause the schedule after this many failed runs in a row."
    )

    @field_validator("catchup", mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        if isinstance(value, bool):
            return Catchup.ALL if value else Catchup.LATEST
        return _word(value, "catchup", Catchup)

    @field_validator("overlap", mode="before")
    @classmethod
    def _overlap(cls, value: Any) -> Any:
        return _word(value, "overlap", Overlap)

    @field_validator(*_BOUNDS, mode="before")
    @classmethod
    def _number(cls, value: Any, info: ValidationInfo) -> Any:
        name = str(info.field_name)
        return whole_number(value, name, *_BOUNDS[name], code="PolicyNumberInvalid")

    def delay(self, schedule: str, slot: datetime) -> timedelta:
        """Delay of a slot's run by jitter, a pure function of the schedule and the slot.

        Args:
            schedule: Id of the schedule; schedules with the same slots get different delays.
            slot: The slot.
        """
        digest = hashlib.sha256(f"{schedule} {slot.timestamp():.0f}".encode()).digest()
        return timedelta(milliseconds=int.from_bytes(digest[:8]) % (self.jitter * 1000 + 1))


@dataclass(frozen=True)
class SlotRange:
    """Consecutive slots of a trigger, without a list of them.

    Attributes:
        first: The oldest slot.
        last: The newest slot.
        count: Number of slots, these two included.
    """

    first: datetime
    last: datetime
    count: int

    def slots(self, trigger: Trigger) -> Iterator[datetime]:
        """Yield the slots, the oldest first."""
        return trigger.between(self.first - _SECOND, self.last)

    def cut(self, trigger: Trigger, newest: int) -> tuple[SlotRange | None, SlotRange | None]:
        """Split off the ``newest`` slots: the older range and theirs, None for an empty one."""
        if newest >= self.count:
            return None, self
        if newest < 1:
            return self, None
        # Binary search for the second from which on there are ``newest`` slots.
        low, high = second_of(self.first), second_of(self.last)
        while low < high:
            middle = (low + high + 1) // 2
            if trigger.count(instant_at(middle - 1), self.last) >= newest:
                low = middle
            else:
                high = middle - 1
        older = trigger.latest(instant_at(low - 1))
        assert older is not None
        return (
            SlotRange(self.first, older, self.count - newest),
            SlotRange(instant_at(low), self.last, newest),
        )


@dataclass(frozen=True)
class SkippedSlots:
    """Missed slots that are skipped for one reason.

    Attributes:
        reason: The reason.
        slots: The slots.
    """

    reason: SkipReason
    slots: SlotRange


@dataclass(frozen=True)
class CatchupPlan:
    """Plan for a schedule's undecided slots.

    Each slot is in exactly one of the ranges, which are in the order of time: skipped slots, then
    missed slots that are run, then slots on time.

    Attributes:
        skipped: Missed slots that are skipped; the oldest first.
        late: Missed slots that are run; None if there are none.
        due: Slots that are on time; None if there are none.
    """

    skipped: tuple[SkippedSlots, ...]
    late: SlotRange | None
    due: SlotRange | None

    def runs(self, trigger: Trigger) -> Iterator[datetime]:
        """Yield the slots that are run, the oldest first."""
        for found in (self.late, self.due):
            if found is not None:
                yield from found.slots(trigger)


def plan_catchup(
    trigger: Trigger, policy: SchedulePolicy, decided_until: datetime, now: datetime
) -> CatchupPlan:
    """Plan the slots after ``decided_until`` and not after ``now``.

    A missed slot is skipped for the first of these reasons that applies at ``now``:

    - ``CatchupOff``: the policy runs no missed slots.
    - ``OutsideWindow``: the slot is older than the catch-up window.
    - ``NotLatest``: only the latest is run, and a later slot exists, which may be on time.
    - ``TooMany``: enough newer slots are run.

    The plan consists of ranges, so it takes the same time for ten slots and for ten million. The
    caller writes it in one transaction, together with ``now`` as the next ``decided_until``: a row
    per run, and for skipped slots as many rows as it wants (``SlotRange.cut``) and one for the
    rest. Decided slots are never planned again, so no slot is both run and skipped.

    Args:
        trigger: Trigger of the schedule.
        policy: Its policy.
        decided_until: ``now`` of the previous plan; at first the base of the trigger.
        now: The present.
    """
    boundary = max(_older(now, policy.grace + policy.jitter), decided_until)
    due = _range(trigger, boundary, now)
    if policy.catchup is Catchup.NONE:
        off = _range(trigger, decided_until, boundary)
        return CatchupPlan(_skipped((SkipReason.CATCHUP_OFF, off)), None, due)
    edge = decided_until
    if policy.catchup_window is not None:
        edge = min(max(_older(now, policy.catchup_window), edge), boundary)
    outside = _range(trigger, decided_until, edge)
    late = _range(trigger, edge, boundary)
    most, reason = policy.max_catchup_runs, SkipReason.TOO_MANY
    if policy.catchup is Catchup.LATEST:
        most, reason = int(due is None), SkipReason.NOT_LATEST
    left = None
    if late is not None and most is not None:
        left, late = late.cut(trigger, most)
    skipped = _skipped((SkipReason.OUTSIDE_WINDOW, outside), (reason, left))
    return CatchupPlan(skipped, late, due)


def _older(now: datetime, seconds: int) -> datetime:
    """The last instant that is more than ``seconds`` before ``now``."""
    return now - timedelta(seconds=seconds, microseconds=1)


def _range(trigger: Trigger, after: datetime, until: datetime) -> SlotRange | None:
    first, last = trigger.next(after), trigger.latest(until)
    if first is None or last is None or last < first:
        return None
    return SlotRange(first, last, trigger.count(after, until))


def _skipped(*found: tuple[SkipReason, SlotRange | None]) -> tuple[SkippedSlots, ...]:
    return tuple(SkippedSlots(reason, slots) for reason, slots in found if slots is not None)


def _word(value: Any, name: str, words: type[StrEnum]) -> StrEnum:
    try:
        return words(value)
    except ValueError:
        known = ", ".join(words)
        raise BadInputError(
            f"Invalid {name}: must be one of {known}.", "Give one of these words.",
            code="PolicyWordInvalid",
        ) from None  # fmt: skip
