"""How a schedule behaves: what becomes of slots that were missed, and how many runs go on at once.

A slot is *on time* while it is at most the grace and the jitter old, and *missed* from then on.
Catch-up is about missed slots only, so a scheduler that is a second late, or is restarted quickly,
loses nothing, whatever the policy says about catching up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from infra.errors import BadInputError
from schedules.forms import Form, whole_number
from schedules.instants import instant_at, second_of
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
    """What becomes of a slot when as many runs go on as may."""

    QUEUE = "queue"
    SKIP = "skip"
    CANCEL_RUNNING = "cancel_running"


class SkipReason(StrEnum):
    """Why a missed slot is not run."""

    CATCHUP_OFF = "CatchupOff"
    OUTSIDE_WINDOW = "OutsideWindow"
    NOT_LATEST = "NotLatest"
    TOO_MANY = "TooMany"


class Policy(Form):
    """How a schedule behaves."""

    catchup: Catchup = Field(
        Catchup.ALL,
        description="Which missed slots are run: all, the latest of them, or none. true is all, "
        "false is latest.",
    )
    catchup_window: int | None = Field(
        None, description="Missed slots that are more seconds old than this are not run."
    )
    max_catchup_runs: int | None = Field(
        None, description="How many missed slots are run at most: the newest ones."
    )
    max_concurrency: int = Field(1, description="How many of its runs go on at once at most.")
    overlap: Overlap = Field(
        Overlap.QUEUE,
        description="What becomes of a slot when that many go on: it waits, it is skipped, or "
        "what runs is cancelled.",
    )
    jitter: int = Field(
        0, description="A slot's run starts up to this many seconds late, each at its own delay."
    )
    grace: int = Field(
        60, description="A slot that is at most so many seconds late is not missed yet."
    )
    pause_after_failures: int | None = Field(
        None, description="The schedule is paused after so many failed runs in a row."
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
        """How late the run of a slot starts: the same whenever it is asked.

        Args:
            schedule: The schedule's id, by which schedules of the same slots differ.
            slot: The slot.
        """
        digest = hashlib.sha256(f"{schedule} {slot.timestamp():.0f}".encode()).digest()
        return timedelta(milliseconds=int.from_bytes(digest[:8]) % (self.jitter * 1000 + 1))


@dataclass(frozen=True)
class SlotRange:
    """Slots of a trigger that follow each other, without a list of them.

    Attributes:
        first: The oldest.
        last: The newest.
        count: How many there are, these two among them.
    """

    first: datetime
    last: datetime
    count: int

    def slots(self, trigger: Trigger) -> Iterator[datetime]:
        """Each of them, the oldest first."""
        return trigger.between(self.first - _SECOND, self.last)

    def cut(self, trigger: Trigger, newest: int) -> tuple[SlotRange | None, SlotRange | None]:
        """All but the ``newest`` ones, and those; None for either if there are none in it."""
        if newest >= self.count:
            return None, self
        if newest < 1:
            return self, None
        # The last second from which on there are so many of them.
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
class Skipped:
    """Missed slots that are not run, all for one reason.

    Attributes:
        reason: The reason.
        slots: The slots.
    """

    reason: SkipReason
    slots: SlotRange


@dataclass(frozen=True)
class Verdict:
    """What becomes of the slots that nothing was decided about yet.

    Every such slot is in exactly one of the ranges, and the ranges are in the order of time:
    all that is skipped, then all that is run late, then all that is on time.

    Attributes:
        skipped: Missed slots that are not run; the oldest first.
        late: Missed slots that are run; None if there are none.
        due: Slots that are on time; None if there are none.
    """

    skipped: tuple[Skipped, ...]
    late: SlotRange | None
    due: SlotRange | None

    def runs(self, trigger: Trigger) -> Iterator[datetime]:
        """The slots that are run, the oldest first."""
        for found in (self.late, self.due):
            if found is not None:
                yield from found.slots(trigger)


def missed(trigger: Trigger, policy: Policy, decided_until: datetime, now: datetime) -> Verdict:
    """What becomes of the slots after ``decided_until`` and not after ``now``.

    Missed ones are judged by their age at ``now``, in this order:

    - ``CatchupOff``: the policy runs none.
    - ``OutsideWindow``: it is older than the window.
    - ``NotLatest``: only the latest is run, and there is a later slot, which may be on time.
    - ``TooMany``: so many newer ones are run already.

    The verdict says it in ranges, and takes the same time for ten slots and for ten million. Who
    asks writes it down in one transaction, together with ``now`` as what is decided next time: a
    row for each run, and for what is skipped as many rows as are wanted (``SlotRange.cut``) and
    one that sums up the rest. Slots that were decided are never asked about again, so no slot can
    be both run and skipped.

    Args:
        trigger: The schedule's trigger.
        policy: Its policy.
        decided_until: What was ``now`` the last time; at first the trigger's base.
        now: The present.
    """
    boundary = max(_older(now, policy.grace + policy.jitter), decided_until)
    due = _range(trigger, boundary, now)
    if policy.catchup is Catchup.NONE:
        off = _range(trigger, decided_until, boundary)
        return Verdict(_skipped((SkipReason.CATCHUP_OFF, off)), None, due)
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
    return Verdict(skipped, late, due)


def _older(now: datetime, seconds: int) -> datetime:
    """The last instant that is more than so many seconds ago."""
    return now - timedelta(seconds=seconds, microseconds=1)


def _range(trigger: Trigger, after: datetime, until: datetime) -> SlotRange | None:
    first, last = trigger.next(after), trigger.latest(until)
    if first is None or last is None or last < first:
        return None
    return SlotRange(first, last, trigger.count(after, until))


def _skipped(*found: tuple[SkipReason, SlotRange | None]) -> tuple[Skipped, ...]:
    return tuple(Skipped(reason, slots) for reason, slots in found if slots is not None)


def _word(value: Any, name: str, words: type[StrEnum]) -> StrEnum:
    try:
        return words(value)
    except ValueError:
        known = ", ".join(words)
        raise BadInputError(
            f"The {name} is none of {known}.", "Give one of these words.",
            code="PolicyWordInvalid",
        ) from None  # fmt: skip
