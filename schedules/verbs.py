"""What people do with schedules."""

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
from registry.schedules.schedules import ScheduleModel
from registry.schedules.slots import Fate, Kind
from schedules import deciding, editing, instants, views
from schedules.editing import Changes, Check, Written
from schedules.instants import instant_at, second_of
from schedules.policy import Policy
from schedules.subject import Subject
from schedules.trigger import Trigger, read_time
from schedules.views import ScheduleDetailView, SlotView

NOUN = "schedule"
MOST_BACKFILLED = 10_000

# Makes new parameters of the present ones.
Revise = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def create(written: Written, check: Check) -> ScheduleDetailView:
    """Make a schedule; it as shown.

    Args:
        written: What it is.
        check: Refuses a deployment that is not there, and parameters that it cannot have.

    Raises:
        BadInputError: If it can never work as written.
        NotFoundError: If the deployment is not there.
        ConflictError: If the name is taken, with the code ``NameTaken``.
    """
    return _keep(written, check)


def _keep(written: Written, check: Check, *, from_now: bool = False) -> ScheduleDetailView:
    parameters = editing.check_parameters(written.deployment, written.parameters, check)
    row = editing.new_row(written, parameters, from_now=from_now)
    key = row.id
    rows.add(row)
    history.record(NOUN, key, "create", name=written.name)
    return views.show(key)


@contextmanager
def _changing(
    key: str, verb: str, detail: Mapping[str, Any] | None = None
) -> Iterator[tuple[Session, ScheduleModel]]:
    """A schedule that is changed; what ``detail`` has in the end is told of it in its history."""
    with rows.changing(key) as (open_session, row):
        yield open_session, row
        editing.touch(row)
        subject = row.id
    history.record(NOUN, subject, verb, **(detail or {}))


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
    """Change a schedule in place; what is None stays. Its id, slots and history stay; it as shown.

    What the old trigger had until now is decided by it, or skipped as ``TriggerChanged`` if the
    schedule is stopped. What the new one would have had is not made up for: it counts from now.

    Args:
        key: Its name or id.
        check: As for :func:`create`.
        name: Another name.
        description: Another description.
        deployment: What it runs from now on.
        trigger: Fields of the trigger. One that is null or empty is taken out; a cron expression
            and an interval take each other's place.
        policy: Fields of the policy; one that is null has its default again.
        revise: Makes its new parameters of the present ones.

    Raises:
        BadInputError: If it could never work.
        NotFoundError: If there is no such schedule, or deployment.
        ConflictError: If the name is taken; with the code ``ChangedMeanwhile`` if somebody else
            has changed what was checked.
    """
    given = {
        "name": name, "description": description, "deployment": deployment, "trigger": trigger,
        "policy": policy,
    }  # fmt: skip
    told = {field: value for field, value in given.items() if value is not None}
    changes = Changes.model_validate(
        {"new_name" if field == "name" else field: value for field, value in told.items()}
    )
    before = _known(key)
    laid = None
    if revise is not None or deployment is not None:
        wanted = before["parameters"] if revise is None else revise(before["parameters"])
        runs = before["deployment"] if deployment is None else deployment
        laid = editing.check_parameters(runs, wanted, check)
    detail = json.loads(json.dumps(told, default=str))
    with _changing(key, "update", detail) as (open_session, row):
        was = editing.told_of(row)
        if laid is not None:
            _check_same(row, before)
            row.parameters = laid
        _edit(open_session, row, changes)
        if laid is not None or trigger is not None:
            editing.check_run_names(Trigger(**row.trigger), row.parameters)
        editing.mend(row)
        detail["changed"] = editing.differing(was, editing.told_of(row))
        subject = row.id
    return views.show(subject)


def _known(key: str) -> dict[str, Any]:
    """What a schedule's deployment and parameters are now."""
    with catalogue.session() as open_session:
        row = rows.find(open_session, key)
        return {"deployment": row.deployment, "parameters": row.parameters}


def _check_same(row: ScheduleModel, before: Mapping[str, Any]) -> None:
    if before != {"deployment": row.deployment, "parameters": row.parameters}:
        raise ConflictError(
            f"Somebody has just changed the schedule {row.name!r}.", "Look at it, and try again.",
            code="ChangedMeanwhile",
        )  # fmt: skip


def _edit(open_session: Session, row: ScheduleModel, changes: Changes) -> None:
    if changes.new_name is not None:
        names.check(changes.new_name)
        row.name = changes.new_name
    if changes.description is not None:
        names.check_description(changes.description)
        row.description = changes.description
    if changes.policy is not None:
        row.policy = Policy(**{**row.policy, **changes.policy}).model_dump(mode="json")
    if changes.deployment is not None:
        editing.move(row, changes.deployment)
    if changes.trigger is not None:
        new = editing.read_trigger(editing.laid(row.trigger, changes.trigger), row.trigger)
        if new.model_dump(mode="json", exclude_none=True) != row.trigger:
            new.check_fires()
            editing.retrigger(open_session.connection(), row, new)


def start(key: str) -> ScheduleDetailView:
    """Run a schedule's slots again; those that it has missed meanwhile as its catch-up says.

    One whose creation has failed is tried again.
    """
    with _changing(key, "start") as (_, row):
        editing.enable(row)
        editing.mend(row)
        subject = row.id
    return views.show(subject)


def stop(key: str) -> ScheduleDetailView:
    """Run none of a schedule's slots from now on; its runs go on."""
    with _changing(key, "stop") as (_, row):
        row.enabled = False
        subject = row.id
    return views.show(subject)


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
    """Make a schedule with everything of another, but for what is given; it as shown.

    Its slots count from now: those that lie between a start in the past and now were the other
    one's. Only with a start that is given here are they made up for.

    Args:
        key: The other one's name or id.
        name: What it is called.
        check: As for :func:`create`.
        description: Another description.
        deployment: Another deployment.
        trigger: As for :func:`update`.
        policy: As for :func:`update`.
        revise: Makes its parameters of the other one's.
        enabled: Whether its slots are run; as the other one's if None.

    Raises:
        BadInputError: If it can never work, such as with an end in the past.
        ConflictError: If the name is taken.
    """
    Changes.model_validate(
        {
            "new_name": name, "deployment": deployment, "description": description,
            "trigger": trigger, "policy": policy, "enabled": enabled,
        }
    )  # fmt: skip
    with catalogue.session() as open_session:
        row = rows.find(open_session, key)
        written = Written(
            name=name,
            deployment=row.deployment if deployment is None else deployment,
            description=row.description if description is None else description,
            parameters=dict(row.parameters if revise is None else revise(row.parameters)),
            trigger=editing.laid(row.trigger, trigger or {}),
            policy={**row.policy, **(policy or {})},
            enabled=row.enabled if enabled is None else enabled,
        )
    return _keep(written, check, from_now=not (trigger or {}).get("start"))


def trigger_now(key: str) -> SlotView:
    """Have a run created now, when the schedule has room; the slot as shown."""
    now = instants.present()
    second = int(now)
    with _changing(key, "trigger") as (open_session, row):
        subject, connection = Subject.of(row), open_session.connection()
        while True:
            slot = deciding.asked(subject, second, Kind.MANUAL, now, identity.caller())
            if slots.add_new(connection, slot):
                break
            second += 1  # somebody has asked in this second already
    return SlotView.from_slot(slot)


def backfill(key: str, start: datetime | str, end: datetime | str) -> dict[str, Any]:
    """Have the slots of a past range run that have no run; how many there are of either kind.

    Args:
        key: The schedule.
        start: Slots are after this; ISO 8601, in the schedule's zone if it names no other.
        end: And not after this, nor after the present.

    Raises:
        BadInputError: With the codes ``BackfillEmpty`` and ``BackfillTooLarge``.
    """
    now = instants.present()
    detail: dict[str, str] = {}
    with _changing(key, "backfill", detail) as (open_session, row):
        subject = Subject.of(row)
        zone = subject.trigger.timezone
        after = read_time(start, zone, "start")
        until = min(read_time(end, zone, "end"), instant_at(int(now)))
        detail |= {"start": str(start), "end": str(end)}
        free = subject.trigger.rhythm()
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
            deciding.asked(subject, second_of(at), Kind.BACKFILL, now, identity.caller())
            for at in free.between(after, until)
            if second_of(at) not in run
        ]
        refused = slots.of(connection, row.id, fate=Fate.SKIPPED, kind=Kind.BACKFILL)
        before = {slot.slot for slot in refused}
        slots.change(connection, [slot for slot in wanted if slot.slot in before])
        slots.add(connection, [slot for slot in wanted if slot.slot not in before])
    return {"slots": len(wanted), "run_before": count - len(wanted)}


def _before(trigger: Trigger, after: datetime) -> str:
    """Why there are no slots after an instant, where that is not plain."""
    if not trigger.is_interval or after >= trigger.base:
        return ""
    return f" An interval has no slots before it began, at {trigger.base:%Y-%m-%dT%H:%M:%SZ}."


def delete(key: str) -> dict[str, Any]:
    """Delete a schedule, none of whose runs goes on; its slots stay on record.

    Raises:
        ConflictError: With the code ``RunGoesOn``.
    """
    return deletion.delete(NOUN, key)
