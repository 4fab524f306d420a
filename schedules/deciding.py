"""Decisions about a schedule's slots, as rows of the catalogue. Pure functions."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime

from registry.schedules.slots import Fate, Kind, Slot
from schedules.instants import instant_at, second_of
from schedules.policy import SlotRange, plan_catchup
from schedules.schedule import Schedule
from schedules.trigger import Trigger

# Limits of one decision. Further runs are left to the next one; further skipped slots share a row.
MOST_RUNS = 10_000
_MOST_SKIPPED_ROWS = 1_000

QUEUED = "Queued"
BACKFILLED = "Backfilled"


@dataclass(frozen=True)
class SlotDecision:
    """Fates of a schedule's slots.

    Attributes:
        slots: The rows, in the order of time.
        decided_until: Time until which all slots are decided, in seconds since 1970.
        next_slot: The first slot after that; None if there is none.
    """

    slots: tuple[Slot, ...]
    decided_until: int
    next_slot: int | None


def decide_slots(
    schedule: Schedule, now: float, by: str, backfilled: Collection[int] = ()
) -> SlotDecision:
    """Decide the fates of a schedule's undecided slots until now.

    Args:
        schedule: The schedule.
        now: The present, in seconds since 1970.
        by: Name of the scheduler or user that decides.
        backfilled: Slots that a backfill has requested already; they get no second run.
    """
    until = max(int(now), schedule.decided_until)
    plan = plan_catchup(
        schedule.trigger, schedule.policy, instant_at(schedule.decided_until), instant_at(until)
    )
    slots = [
        _row(schedule, some, Fate.SKIPPED, reason=found.reason, at=now, by=by)
        for found in plan.skipped
        for some in _rows(found.slots, schedule.trigger)
    ]
    runs = list(itertools.islice(plan.runs(schedule.trigger), MOST_RUNS + 1))
    if len(runs) > MOST_RUNS:
        until = second_of(runs[MOST_RUNS - 1])
        del runs[MOST_RUNS:]
    slots += [
        _row(schedule, SlotRange(slot, slot, 1), Fate.SKIPPED, reason=BACKFILLED, at=now, by=by)
        if second_of(slot) in backfilled
        else _run(schedule, slot, now, by)
        for slot in runs
    ]
    return SlotDecision(tuple(slots), until, next_slot(schedule.trigger, until))


def next_slot(trigger: Trigger, after: int) -> int | None:
    """The first slot after an instant; None if there is none."""
    found = trigger.next(instant_at(after))
    return None if found is None else second_of(found)


def skip_undecided(schedule: Schedule, now: float, by: str, reason: str) -> tuple[Slot, ...]:
    """Skip a schedule's undecided slots until now; their rows."""
    after, until = instant_at(schedule.decided_until), instant_at(max(int(now), 0))
    first, last = schedule.trigger.next(after), schedule.trigger.latest(until)
    if first is None or last is None or last < first:
        return ()
    whole = SlotRange(first, last, schedule.trigger.count(after, until))
    return tuple(
        _row(schedule, some, Fate.SKIPPED, reason=reason, at=now, by=by)
        for some in _rows(whole, schedule.trigger)
    )


def requested_slot(schedule: Schedule, slot: int, kind: Kind, now: float, by: str) -> Slot:
    """Row of a slot that a user requests, by a trigger or a backfill."""
    return Slot(
        schedule.id, slot, kind, slot, 1, Fate.WAITING, QUEUED, decided_at=now, decided_by=by
    )


def _run(schedule: Schedule, slot: datetime, now: float, by: str) -> Slot:
    delay = schedule.policy.delay(schedule.id, slot).total_seconds()
    second = second_of(slot)
    return Slot(
        schedule.id, second, Kind.SCHEDULED, second, 1, Fate.WAITING, QUEUED,
        not_before=second + delay, decided_at=now, decided_by=by,
    )  # fmt: skip


def _rows(slots: SlotRange, trigger: Trigger) -> Iterator[SlotRange]:
    """Split a range into single slots; the oldest of very many stay one range."""
    older, newer = slots.cut(trigger, _MOST_SKIPPED_ROWS)
    if older is not None:
        yield older
    for slot in newer.slots(trigger) if newer is not None else ():
        yield SlotRange(slot, slot, 1)


def _row(
    schedule: Schedule, slots: SlotRange, fate: Fate, *, reason: str, at: float, by: str
) -> Slot:
    return Slot(
        schedule.id, second_of(slots.first), Kind.SCHEDULED, second_of(slots.last), slots.count,
        fate, reason, decided_at=at, decided_by=by,
    )  # fmt: skip
