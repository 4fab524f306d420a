"""Schedules and slots as people are shown them."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

from infra.errors import BadInputError
from registry import catalogue, history, leases
from registry.schedules import schedules as rows
from registry.schedules import slots
from registry.schedules.schedules import ScheduleModel
from registry.schedules.slots import Fate, Slot
from schedules import editing
from schedules.instants import instant_at
from schedules.scheduler import LEASE
from schedules.trigger import Trigger

CREATE_REQUESTED = "CREATE REQUESTED"
CREATE_FAILED = "CREATE FAILED"
ENABLED = "ENABLED"
DISABLED = "DISABLED"
DELETED = "DELETED"
EXPIRED = "EXPIRED"

_NEXT = 5
_LAST = 10


def state(row: ScheduleModel) -> tuple[str, str]:
    """The reference's word for a schedule's state, and its bracketed one or ""."""
    for applies, word, detail in (
        (row.archived_at is not None, DELETED, ""),
        (bool(row.error), CREATE_FAILED, row.error),
        (not row.registered, CREATE_REQUESTED, ""),
        (not row.enabled, DISABLED, row.paused),
        (row.next_slot is None, ENABLED, EXPIRED),
    ):
        if applies:
            return word, detail
    return ENABLED, ""


def worded(word: str, detail: str) -> dict[str, str]:
    """A state as people read it, and what is said of this schedule alone."""
    if detail == EXPIRED:
        return {"state": f"{word} ({EXPIRED})", "detail": ""}
    return {"state": word, "detail": detail}


def list_all(*, deleted: bool = False) -> list[dict[str, Any]]:
    """Every schedule that is there, or every one that was deleted, by name."""
    with catalogue.session() as open_session:
        found = rows.archived(open_session) if deleted else rows.present(open_session)
        return [_brief(row) for row in found]


def show(key: str, *, following: int = _NEXT, last: int = _LAST) -> dict[str, Any]:
    """Everything about a schedule.

    Args:
        key: Its name or id.
        following: How many of its next slots.
        last: How many of its last slots, the newest first.

    Raises:
        NotFoundError: With the code ``ScheduleUnknown``.
    """
    with catalogue.session() as open_session:
        row = rows.find(open_session, key)
        trigger = Trigger(**row.trigger)
        shown = {
            **_brief(row),
            "description": row.description,
            "trigger": editing.fields_of(row.trigger),
            "policy": row.policy,
            "parameters": row.parameters,
            "notice": trigger.notice,
            "next": preview(trigger, instant_at(row.decided_until), following * _comes(row)),
            "slots": [slot(one) for one in slots.of(open_session.connection(), row.id, last)],
            "created": row.created_at.isoformat(),
            "created_by": row.created_by,
            "source": row.source,
        }
        subject = row.id
    fates = slots.fates(subject)
    shown["fates"] = {f"{fate} {reason}".strip(): count for (fate, reason), count in fates.items()}
    shown["scheduler"] = leases.held(LEASE)
    shown["history"] = history.of("schedule", subject)
    return shown


def slots_of(key: str, *, last: int = _LAST, fate: str | None = None) -> list[dict[str, Any]]:
    """What became of a schedule's last slots, the newest first.

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
            f"No slot is {fate!r}.", f"Give one of {', '.join(Fate)}.", code="FateUnknown"
        )
    with catalogue.session() as open_session:
        row = rows.find(open_session, key)
        found = slots.of(open_session.connection(), row.id, last, fate=fate)
    return [slot(one) for one in found]


def runs_of(key: str, most: int) -> list[str]:
    """The ids of the runs that a schedule has made last.

    Raises:
        NotFoundError: With the code ``ScheduleUnknown``.
    """
    with catalogue.session() as open_session:
        schedule = rows.find(open_session, key).id
    return slots.newest_runs(schedule, most)


def preview(trigger: Trigger, after: datetime, count: int) -> list[str]:
    """The next slots of a trigger after an instant, in ISO 8601."""
    found = trigger.between(after, instant_at(2**37))
    return [_iso(at) for at in itertools.islice(found, count)]


def slot(one: Slot) -> dict[str, Any]:
    """A slot with its fate; several that share it have ``until`` and ``count``."""
    several = {"until": _iso(instant_at(one.last)), "count": one.count} if one.count > 1 else {}
    return {
        "slot": _iso(instant_at(one.slot)),
        **several,
        "kind": str(one.kind),
        "fate": str(one.fate),
        "reason": one.reason,
        "run": one.flow_run_id,
        "state": one.run_state,
        "decided": _iso(instant_at(int(one.decided_at))),
        "decided_by": one.decided_by,
    }


def _brief(row: ScheduleModel) -> dict[str, Any]:
    word, detail = state(row)
    trigger = Trigger(**row.trigger)
    return {
        "id": row.id,
        "name": row.name,
        "state": word,
        "detail": detail,
        "deployment": row.deployment,
        "when": row.trigger.get("cron") or f"every {row.trigger.get('interval_seconds')} s",
        "timezone": trigger.timezone,
        "next_slot": _iso(instant_at(row.next_slot)) if row.next_slot and _comes(row) else None,
        "deleted": None if row.archived_at is None else _iso(row.archived_at.astimezone(UTC)),
    }


def _comes(row: ScheduleModel) -> bool:
    """Whether slots of a schedule come; those of one that is stopped wait for what they become."""
    return row.enabled and not row.error and row.archived_at is None


def _iso(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"
