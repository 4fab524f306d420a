"""What becomes of a schedule's slots, as the rows that say so. A pure function."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime

from registry.schedules.slots import Fate, Kind, Slot
from schedules.instants import instant_at, second_of
from schedules.policy import SlotRange, missed
from schedules.subject import Subject
from schedules.trigger import Trigger

# Of one decision. What is more is decided by the next one, or shares a row.
MOST_RUNS = 10_000
_MOST_SKIPPED_ROWS = 1_000

QUEUED = "Queued"
BACKFILLED = "Backfilled"


@dataclass(frozen=True)
class Decision:
    """What was decided.

    Attributes:
        slots: The rows, in the order of time.
        decided_until: Until when that is all, in seconds since 1970.
        next_slot: The next slot after that; None if there is none.
    """

    slots: tuple[Slot, ...]
    decided_until: int
    next_slot: int | None


def decide(subject: Subject, now: float, by: str, backfilled: Collection[int] = ()) -> Decision:
    """What becomes of the slots that nothing was decided about until now.

    Args:
        subject: The schedule.
        now: The present, in seconds since 1970.
        by: Who decides.
        backfilled: Slots that somebody has asked for already; they have no second run.
    """
    until = max(int(now), subject.decided_until)
    verdict = missed(
        subject.trigger, subject.policy, instant_at(subject.decided_until), instant_at(until)
    )
    slots = [
        _row(subject, some, Fate.SKIPPED, reason=found.reason, at=now, by=by)
        for found in verdict.skipped
        for some in _rows(found.slots, subject.trigger)
    ]
    runs = list(itertools.islice(verdict.runs(subject.trigger), MOST_RUNS + 1))
    if len(runs) > MOST_RUNS:
        until = second_of(runs[MOST_RUNS - 1])
        del runs[MOST_RUNS:]
    slots += [
        _row(subject, SlotRange(slot, slot, 1), Fate.SKIPPED, reason=BACKFILLED, at=now, by=by)
        if second_of(slot) in backfilled
        else _run(subject, slot, now, by)
        for slot in runs
    ]
    return Decision(tuple(slots), until, next_slot(subject.trigger, until))


def next_slot(trigger: Trigger, after: int) -> int | None:
    """The first slot after an instant; None if there is none."""
    found = trigger.next(instant_at(after))
    return None if found is None else second_of(found)


def drop(subject: Subject, now: float, by: str, reason: str) -> tuple[Slot, ...]:
    """The rows of the slots that nothing was decided about until now, and that are not run."""
    after, until = instant_at(subject.decided_until), instant_at(max(int(now), 0))
    first, last = subject.trigger.next(after), subject.trigger.latest(until)
    if first is None or last is None or last < first:
        return ()
    whole = SlotRange(first, last, subject.trigger.count(after, until))
    return tuple(
        _row(subject, some, Fate.SKIPPED, reason=reason, at=now, by=by)
        for some in _rows(whole, subject.trigger)
    )


def asked(subject: Subject, slot: int, kind: Kind, now: float, by: str) -> Slot:
    """The row of a slot that somebody asks for."""
    return Slot(
        subject.id, slot, kind, slot, 1, Fate.WAITING, QUEUED, decided_at=now, decided_by=by
    )


def _run(subject: Subject, slot: datetime, now: float, by: str) -> Slot:
    delay = subject.policy.delay(subject.id, slot).total_seconds()
    second = second_of(slot)
    return Slot(
        subject.id, second, Kind.SCHEDULED, second, 1, Fate.WAITING, QUEUED,
        not_before=second + delay, decided_at=now, decided_by=by,
    )  # fmt: skip


def _rows(slots: SlotRange, trigger: Trigger) -> Iterator[SlotRange]:
    """A range's slots one by one, but for the oldest of very many, which stay together."""
    older, newer = slots.cut(trigger, _MOST_SKIPPED_ROWS)
    if older is not None:
        yield older
    for slot in newer.slots(trigger) if newer is not None else ():
        yield SlotRange(slot, slot, 1)


def _row(
    subject: Subject, slots: SlotRange, fate: Fate, *, reason: str, at: float, by: str
) -> Slot:
    return Slot(
        subject.id, second_of(slots.first), Kind.SCHEDULED, second_of(slots.last), slots.count,
        fate, reason, decided_at=at, decided_by=by,
    )  # fmt: skip
