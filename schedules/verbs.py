"""Verbs of schedules: create, update, start, stop, copy, trigger, backfill and delete."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from infra import identity
from infra.errors import BadInputError, ConflictError
from registry import catalogue, deletion, history, names
from registry.schedules import schedules as rows
from registry.schedules import slots
from registry.schedules.schedules import NOUN, ScheduleModel
from registry.schedules.slots import Fate, Kind
from schedules import deciding, editing, instants, views
from schedules.editing import Check, ScheduleChanges, ScheduleSpec
from schedules.instants import instant_at, second_of
from schedules.policy import SchedulePolicy
from schedules.schedule import Schedule
from schedules.trigger import Trigger, read_time
from schedules.views import ScheduleDetailView, SlotView

MOST_BACKFILLED = 10_000

# Derives new parameters from the current ones.
Revise = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def create(spec: ScheduleSpec, check: Check) -> ScheduleDetailView:
    """Create a schedule; its view.

    Args:
        spec: Its specification.
        check: Refuses an unknown deployment, and parameters that it does not accept.

    Raises:
        BadInputError: If the specification is invalid, or has no slot.
        NotFoundError: If the deployment does not exist.
        ConflictError: If the name is taken, with the code ``NameTaken``.
    """
    return _insert(spec, check)


def _insert(spec: ScheduleSpec, check: Check, *, from_now: bool = False) -> ScheduleDetailView:
    trigger = editing.read_trigger(spec.trigger)
    trigger.check_fires()
    parameters = editing.check_parameters(spec.deployment, spec.parameters, check, trigger)
    row = editing.new_row(spec, parameters, from_now=from_now)
    key = row.id
    rows.add(row)
    history.record(NOUN, key, "create", name=spec.name)
    return views.show(key)


@contextmanager
def _changing(
    key: str, verb: str, detail: Mapping[str, Any] | None = None
) -> Iterator[tuple[Session, ScheduleModel]]:
    """Lock a schedule for a change; ``detail`` goes to its history when the context ends."""
    with rows.changing(key) as (open_session, row):
        yield open_session, row
        editing.mark_changed(row)
        schedule_id = row.id
    history.record(NOUN, schedule_id, verb, **(detail or {}))


def update(
    key: str,
    check: Check,
    *,
    name: str | None = None,
    description: str | None = None,
    deployment: str | None = None,
    trigger: Mapping[str, Any] | None = None,
    policy: Mapping[str, Any] | None = None,
    revise: Revise | None = None,
) -> ScheduleDetailView:
    """Change a schedule in place; its view. Its id, slots and history stay the same.

    Slots of the old trigger until now are decided, or skipped as ``TriggerChanged`` if the
    schedule is stopped. Slots of the new trigger before now are not caught up.

    Args:
        key: Its name or id.
        check: As for :func:`create`.
        name: New name; None, as for the other fields, to keep it.
        description: New description.
        deployment: New deployment.
        trigger: Changed fields of the trigger. A null or empty value removes a field; a cron
            expression and an interval replace each other.
        policy: Changed fields of the policy; null restores the default.
        revise: Derives the new parameters from the current ones.

    Raises:
        BadInputError: If the result is invalid.
        NotFoundError: If the schedule or the deployment does not exist.
        ConflictError: If the name is taken; with the code ``ChangedMeanwhile`` if another user
            has changed the deployment or the parameters that were checked.
    """
    given = {
        "name": name, "description": description, "deployment": deployment, "trigger": trigger,
        "policy": policy,
    }  # fmt: skip
    changed = {field: value for field, value in given.items() if value is not None}
    changes = ScheduleChanges.model_validate(
        {"new_name" if field == "name" else field: value for field, value in changed.items()}
    )
    before = _current(key)
    parameters = None
    if revise is not None or deployment is not None:
        wanted = before["parameters"] if revise is None else revise(before["parameters"])
        runs = before["deployment"] if deployment is None else deployment
        parameters = editing.check_parameters(runs, wanted, check)
    detail = json.loads(json.dumps(changed, default=str))
    with _changing(key, "update", detail) as (open_session, row):
        was = editing.user_fields(row)
        if parameters is not None:
            _check_same(row, before)
            row.parameters = parameters
        _edit(open_session, row, changes)
        if parameters is not None or trigger is not None:
            editing.check_run_names(Trigger(**row.trigger), row.parameters)
        editing.clear_error(row)
        detail["changed"] = editing.changed_fields(was, editing.user_fields(row))
        schedule_id = row.id
    return views.show(schedule_id)


def _current(key: str) -> dict[str, Any]:
    """Current deployment and parameters of a schedule."""
    with catalogue.session() as open_session:
        row = rows.find(open_session, key)
        return {"deployment": row.deployment, "parameters": row.parameters}


def _check_same(row: ScheduleModel, before: Mapping[str, Any]) -> None:
    if before != {"deployment": row.deployment, "parameters": row.parameters}:
        raise ConflictError(
            f"The schedule {row.name!r} was changed at the same time.",
            "Check it, and try again.", code="ChangedMeanwhile",
        )  # fmt: skip


def _edit(open_session: Session, row: ScheduleModel, changes: ScheduleChanges) -> None:
    if changes.new_name is not None:
        names.check(changes.new_name)
        row.name = changes.new_name
    if changes.description is not None:
        names.check_description(changes.description)
        row.description = changes.description
    if changes.policy is not None:
        row.policy = SchedulePolicy(**{**row.policy, **changes.policy}).model_dump(mode="json")
    if changes.deployment is not None:
        editing.set_deployment(row, changes.deployment)
    if changes.trigger is not None:
        new = editing.read_trigger(
            editing.merge_trigger(row.trigger, changes.trigger), row.trigger
        )
        if new.model_dump(mode="json", exclude_none=True) != row.trigger:
            new.check_fires()
            editing.replace_trigger(open_session.connection(), row, new)


def start(key: str) -> ScheduleDetailView:
    """Enable a schedule; slots that it missed are caught up as its policy says. Its view.

    A schedule whose creation failed is registered again.
    """
    with _changing(key, "start") as (_, row):
        editing.enable(row)
        editing.clear_error(row)
        schedule_id = row.id
    return views.show(schedule_id)


def stop(key: str) -> ScheduleDetailView:
    """Disable a schedule; its active runs continue. Its view."""
    with _changing(key, "stop") as (_, row):
        row.enabled = False
        schedule_id = row.id
    return views.show(schedule_id)


def copy(
    key: str,
    name: str,
    check: Check,
    *,
    description: str | None = None,
    deployment: str | None = None,
    trigger: Mapping[str, Any] | None = None,
    policy: Mapping[str, Any] | None = None,
    revise: Revise | None = None,
    enabled: bool | None = None,
) -> ScheduleDetailView:
    """Create a copy of a schedule with changed fields; its view.

    Slots between a start in the past and now belong to the original, so the copy catches them up
    only if ``trigger`` has a start.

    Args:
        key: Name or id of the original.
        name: Name of the copy.
        check: As for :func:`create`.
        description: Description; None, as for the other fields, for that of the original.
        deployment: Deployment.
        trigger: As for :func:`update`.
        policy: As for :func:`update`.
        revise: Derives the parameters from those of the original.
        enabled: Whether its slots get runs.

    Raises:
        BadInputError: If the result is invalid, such as with an end in the past.
        ConflictError: If the name is taken.
    """
    ScheduleChanges.model_validate(
        {
            "new_name": name, "deployment": deployment, "description": description,
            "trigger": trigger, "policy": policy, "enabled": enabled,
        }
    )  # fmt: skip
    with catalogue.session() as open_session:
        row = rows.find(open_session, key)
        spec = ScheduleSpec(
            name=name,
            deployment=row.deployment if deployment is None else deployment,
            description=row.description if description is None else description,
            parameters=dict(row.parameters if revise is None else revise(row.parameters)),
            trigger=editing.merge_trigger(row.trigger, trigger or {}),
            policy={**row.policy, **(policy or {})},
            enabled=row.enabled if enabled is None else enabled,
        )
    return _insert(spec, check, from_now=not (trigger or {}).get("start"))


def trigger_now(key: str) -> SlotView:
    """Request a run now, subject to ``max_concurrency``; the view of its slot."""
    now = instants.present()
    second = int(now)
    with _changing(key, "trigger") as (open_session, row):
        schedule, connection = Schedule.from_row(row), open_session.connection()
        while True:
            slot = deciding.requested_slot(schedule, second, Kind.MANUAL, now, identity.caller())
            if slots.add_new(connection, slot):
                break
            second += 1  # this second has been requested already
    return SlotView.from_slot(slot)


def backfill(key: str, start: datetime | str, end: datetime | str) -> dict[str, Any]:
    """Request runs of all slots of a past range that have none.

    Args:
        key: Name or id of the schedule.
        start: Slots are after this time; ISO 8601, in the schedule's zone by default.
        end: Slots are not after this time, nor after the present.

    Returns:
        ``{"slots": ..., "run_before": ...}``: how many were requested, and how many had runs.

    Raises:
        BadInputError: With the codes ``BackfillEmpty`` and ``BackfillTooLarge``.
    """
    now = instants.present()
    detail: dict[str, str] = {}
    with _changing(key, "backfill", detail) as (open_session, row):
        schedule = Schedule.from_row(row)
        zone = schedule.trigger.timezone
        after = read_time(start, zone, "start")
        until = min(read_time(end, zone, "end"), instant_at(int(now)))
        detail |= {"start": str(start), "end": str(end)}
        free = schedule.trigger.rhythm()
        count = free.count(after, until)
        if not 0 < count <= MOST_BACKFILLED:
            raise BadInputError(
                f"There are {count} slots from {start} until {end}.{_before(free, after)}",
                f"Give a past range with 1 to {MOST_BACKFILLED} slots.",
                code="BackfillTooLarge" if count > 0 else "BackfillEmpty",
            )
        connection = open_session.connection()
        run = slots.with_runs(connection, row.id, second_of(after), second_of(until))
        wanted = [
            deciding.requested_slot(schedule, second_of(at), Kind.BACKFILL, now, identity.caller())
            for at in free.between(after, until)
            if second_of(at) not in run
        ]
        refused = slots.of(connection, row.id, fate=Fate.SKIPPED, kind=Kind.BACKFILL)
        before = {slot.slot for slot in refused}
        slots.change(connection, [slot for slot in wanted if slot.slot in before])
        slots.add(connection, [slot for slot in wanted if slot.slot not in before])
    return {"slots": len(wanted), "run_before": count - len(wanted)}


def _before(trigger: Trigger, after: datetime) -> str:
    """Explain why an interval has no slots after an instant; "" if that is not why."""
    if not trigger.is_interval or after >= trigger.base:
        return ""
    return f" An interval has no slots before its base, {trigger.base:%Y-%m-%dT%H:%M:%SZ}."


def delete(key: str) -> dict[str, Any]:
    """Delete a schedule without active runs; the catalogue keeps its slots.

    Raises:
        ConflictError: With the code ``RunGoesOn``.
    """
    return deletion.delete(NOUN, key)
