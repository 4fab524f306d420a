"""Views of schedules and their slots."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from operator import not_
from typing import Any, Self

from pydantic import Field

from infra.errors import BadInputError
from registry import catalogue, history, leases
from registry.schedules import schedules as rows
from registry.schedules import slot_counts, slots
from registry.schedules.schedules import ScheduleModel
from registry.schedules.slots import Fate, Slot
from registry.views import Instant, JsonObject, View
from schedules import editing, instants
from schedules.instants import instant_at
from schedules.interval import write_span
from schedules.policy import plan_catchup
from schedules.schedule import Schedule
from schedules.scheduler import LEASE
from schedules.trigger import Trigger

EXPIRED = "EXPIRED"  # the detail of a schedule without a slot to come

NEXT = 5
LAST = 10


class ScheduleState(StrEnum):
    """State of a schedule.

    Attributes:
        CREATE_REQUESTED: It is not registered with Prefect yet.
        CREATE_FAILED: It could not be registered; `detail` says why.
        ENABLED: Its slots get runs; with the detail `EXPIRED`, it has none left.
        DISABLED: It was stopped; or it paused itself after failures, which `detail` says.
        DELETED: It was deleted; the record of its slots stays.
    """

    CREATE_REQUESTED = "CREATE REQUESTED"
    CREATE_FAILED = "CREATE FAILED"
    ENABLED = "ENABLED"
    DISABLED = "DISABLED"
    DELETED = "DELETED"


class SlotView(View):
    """A slot with its fate, or several that follow each other and share it.

    Attributes:
        slot: Its time, or the first one's, as all times in ISO 8601.
        until: The last one's time; omitted for one slot.
        count: How many slots; omitted for one.
        kind: Why there is a slot.
        fate: Its fate.
        reason: Why it is skipped, or what it waits for.
        run: Its flow run.
        state: The state that its run has ended in; with :func:`with_states` its present one.
        decided: When its fate was decided.
        decided_by: Which scheduler or user decided it.
    """

    slot: str
    until: str = Field("", exclude_if=not_)
    count: int = Field(1, exclude_if=lambda count: count == 1)
    kind: str
    fate: str
    reason: str
    run: str | None
    state: str | None
    decided: str
    decided_by: str

    @classmethod
    def from_slot(cls, slot: Slot) -> Self:
        """Return the view of a slot's row."""
        return cls(
            slot=_iso(instant_at(slot.slot)),
            until=_iso(instant_at(slot.last)) if slot.count > 1 else "",
            count=slot.count,
            kind=str(slot.kind),
            fate=str(slot.fate),
            reason=slot.reason,
            run=slot.flow_run_id,
            state=slot.run_state,
            decided=_iso(instant_at(int(slot.decided_at))),
            decided_by=slot.decided_by,
        )


class ScheduleView(View):
    """A schedule, as lists show it.

    Attributes:
        id: Its id.
        name: Its name.
        state: The reference's word for its state.
        detail: The reference's bracketed word, or why it is not enabled.
        deployment: The deployment that it runs.
        when: Its cron expression or interval.
        timezone: The time zone of the cron expression.
        next_slot: The next slot; None if it is not enabled or has expired.
        deleted: When it was deleted.
    """

    id: str
    name: str
    state: str
    detail: str
    deployment: str
    when: str
    timezone: str
    next_slot: str | None
    deleted: str | None

    @classmethod
    def from_row(cls, row: ScheduleModel, **more: Any) -> Self:
        """Return the view of a schedule's row, with further fields."""
        word, detail = state(row)
        slot = instant_at(row.next_slot) if row.next_slot and _is_active(row) else None
        trigger = Trigger(**row.trigger)
        facts = {
            "id": row.id, "name": row.name, "state": word, "detail": detail,
            "deployment": row.deployment,
            "when": trigger.cron or f"every {write_span(trigger.interval_seconds or 0)}",
            "timezone": trigger.timezone,
            "next_slot": slot and _iso(slot),
            "deleted": row.archived_at and _iso(row.archived_at.astimezone(UTC)),
        }  # fmt: skip
        return cls(**facts, **more)


class ScheduleDetailView(ScheduleView):
    """A schedule with its slots.

    Attributes:
        description: Its description.
        trigger: The fields of its trigger.
        policy: The fields of its policy.
        parameters: The parameters of its runs.
        notice: What a user should know about its trigger; empty otherwise.
        next: Its next slots.
        slots: Its last slots, newest first.
        created: When it was created.
        created_by: Who created it.
        source: The file that it was applied from; empty without one.
        fates: How many slots have which fate, by fate and reason.
        scheduler: Which scheduler leads; None without one.
        history: What users did to it.
    """

    description: str
    trigger: JsonObject
    policy: JsonObject
    parameters: JsonObject
    notice: str
    next: list[str]
    slots: list[SlotView]
    created: Instant
    created_by: str
    source: str
    fates: dict[str, int]
    scheduler: Any
    history: list[JsonObject]


def state(row: ScheduleModel) -> tuple[ScheduleState, str]:
    """Return the reference's word for a schedule's state, and its detail or ""."""
    for applies, word, detail in (
        (row.archived_at is not None, ScheduleState.DELETED, ""),
        (bool(row.error), ScheduleState.CREATE_FAILED, row.error),
        (not row.registered, ScheduleState.CREATE_REQUESTED, ""),
        (not row.enabled, ScheduleState.DISABLED, row.paused),
        (row.next_slot is None, ScheduleState.ENABLED, EXPIRED),
    ):
        if applies:
            return word, detail
    return ScheduleState.ENABLED, ""


def worded(word: str, detail: str) -> dict[str, str]:
    """Return a state and its detail for people, who read EXPIRED beside the state."""
    if detail == EXPIRED:
        return {"state": f"{word} ({EXPIRED})", "detail": ""}
    return {"state": word, "detail": detail}


def list_all(*, deleted: bool = False) -> list[ScheduleView]:
    """List every schedule by name, or instead every deleted one."""
    with catalogue.session() as open_session:
        found = rows.archived(open_session) if deleted else rows.present(open_session)
        return [ScheduleView.from_row(row) for row in found]


def list_newest(limit: int) -> list[ScheduleView]:
    """List the schedules that were changed last, newest first, at most ``limit`` of them."""
    with catalogue.session() as open_session:
        return [ScheduleView.from_row(row) for row in rows.newest(open_session, limit)]


def show(key: str, *, following: int = NEXT, last: int = LAST) -> ScheduleDetailView:
    """Return a schedule with its slots.

    Args:
        key: Its name or id.
        following: How many of its next slots.
        last: How many of its last slots, newest first.

    Raises:
        NotFoundError: With the code ``ScheduleUnknown``.
    """
    with catalogue.session() as open_session:
        row = rows.find(open_session, key)
        newest = slots.of(open_session.connection(), row.id, last)
    trigger = Trigger(**row.trigger)
    following = following if _is_active(row) else 0
    fates = slot_counts.fates_of(row.id)
    return ScheduleDetailView.from_row(
        row,
        description=row.description,
        trigger=editing.trigger_fields(row.trigger),
        policy=row.policy,
        parameters=row.parameters,
        notice=trigger.notice,
        next=preview(trigger, instant_at(row.decided_until), following),
        slots=[SlotView.from_slot(one) for one in newest],
        created=row.created_at,
        created_by=row.created_by,
        source=row.source,
        fates={f"{fate} {reason}".strip(): count for (fate, reason), count in fates.items()},
        scheduler=leases.held(LEASE),
        history=history.of("schedule", row.id),
    )


def slots_of(key: str, *, last: int = LAST, fate: str | None = None) -> list[SlotView]:
    """List a schedule's last slots, newest first.

    Args:
        key: Its name or id.
        last: How many.
        fate: Only those of this fate.

    Raises:
        NotFoundError: With the code ``ScheduleUnknown``.
        BadInputError: With the code ``FateUnknown``.
    """
    if fate is not None and fate not in list(Fate):
        raise BadInputError(
            f"{fate!r} is not a fate.", f"Give one of {', '.join(Fate)}.", code="FateUnknown"
        )
    with catalogue.session() as open_session:
        row = rows.find(open_session, key)
        found = slots.of(open_session.connection(), row.id, last, fate=fate)
    return [SlotView.from_slot(one) for one in found]


def with_states(
    found: Sequence[SlotView], states: Callable[[Sequence[str]], Mapping[str, str]]
) -> list[SlotView]:
    """Return slots with the present states of the runs that are not known to have ended.

    Args:
        found: The slots.
        states: Returns the states of runs by their ids; it may leave some out.
    """
    active = [one.run for one in found if one.run and one.state is None]
    words = states(active) if active else {}
    return [
        one.model_copy(update={"state": one.state or words.get(one.run or "")}) for one in found
    ]


def backlog(key: str) -> tuple[int, str | None]:
    """Return how many undecided slots until now get a run, and the next slot after now.

    Args:
        key: The schedule's name or id.

    Raises:
        NotFoundError: With the code ``ScheduleUnknown``.
    """
    with catalogue.session() as open_session:
        schedule = Schedule.from_row(rows.find(open_session, key))
    now = instant_at(max(int(instants.present()), schedule.decided_until))
    decided = instant_at(schedule.decided_until)
    plan = plan_catchup(schedule.trigger, schedule.policy, decided, now)
    count = sum(found.count for found in (plan.late, plan.due) if found is not None)
    return count, next(iter(preview(schedule.trigger, now, 1)), None)


def preview(trigger: Trigger, after: datetime, count: int) -> list[str]:
    """Return the next slots of a trigger after an instant, in ISO 8601."""
    found = trigger.between(after, instant_at(2**37))
    return [_iso(at) for at in itertools.islice(found, count)]


def _is_active(row: ScheduleModel) -> bool:
    """Whether the scheduler creates runs for the schedule's slots."""
    return row.enabled and not row.error and row.archived_at is None


def _iso(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"
