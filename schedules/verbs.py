"""What people do with schedules."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from infra import identity
from infra.errors import BadInputError, ConflictError
from registry import catalogue, history, names, scheduled_runs, slots
from registry import schedules as rows
from registry.schedules import ScheduleModel
from registry.slots import Fate, Kind
from schedules import deciding, macros, views
from schedules.forms import Form
from schedules.instants import instant_at, second_of
from schedules.policy import Policy
from schedules.subject import Subject
from schedules.trigger import Trigger, read_time

NOUN = "schedule"
MOST_BACKFILLED = 10_000
EDITED = "TriggerChanged"
DELETED = "Deleted"

# Given a deployment and parameters, what is kept of them; refuses what cannot work.
Check = Callable[[str, Mapping[str, Any]], dict[str, Any]]


class Written(Form):
    """A schedule as it is written: what its trigger and its policy have, each field by itself."""

    name: str
    deployment: str
    description: str = ""
    parameters: dict[str, Any] = {}
    trigger: dict[str, Any]
    policy: dict[str, Any] = {}
    enabled: bool = True


def create(written: Written, check: Check, *, source: str = "") -> dict[str, Any]:
    """Make a schedule; it as shown.

    Args:
        written: What it is.
        check: Refuses a deployment that is not there, and parameters that it cannot have.
        source: Which file it comes from.

    Raises:
        BadInputError: If it can never work as written.
        NotFoundError: If the deployment is not there.
        ConflictError: If the name is taken, with the code ``NameTaken``.
    """
    names.check(written.name)
    names.check_description(written.description)
    now, user = datetime.now(UTC), identity.caller()
    trigger = Trigger(**{"since": now, **written.trigger})
    trigger.check_fires()
    policy = Policy(**written.policy)
    decided = second_of(trigger.base)
    row = ScheduleModel(
        id=str(uuid.uuid4()),
        name=written.name,
        description=written.description,
        deployment=written.deployment,
        parameters=_parameters(written.deployment, written.parameters, check),
        trigger=trigger.model_dump(mode="json", exclude_none=True),
        policy=policy.model_dump(mode="json"),
        enabled=written.enabled,
        paused="",
        registered=False,
        error="",
        source=source,
        decided_until=decided,
        next_slot=deciding.next_slot(trigger, decided),
        failures_since=0,
        created_at=now,
        created_by=user,
        changed_at=now,
        changed_by=user,
    )
    key = row.id
    rows.add(row)
    history.record(NOUN, key, "create", name=written.name)
    return views.show(key)


def _parameters(deployment: str, given: Mapping[str, Any], check: Check) -> dict[str, Any]:
    macros.check(given)
    name = given.get("name")
    if isinstance(name, str) and name and macros.fill(name, instant_at(0)) == name:
        raise BadInputError(
            f"Every run would be called {name!r}, and there can be one of a name.",
            "Leave the parameter name out, or put the slot in it: {{ slot.strftime('%F') }}.",
            code="RunNameFixed",
        )
    return check(deployment, given)


@contextmanager
def _changing(key: str, verb: str, **detail: Any) -> Iterator[tuple[Session, ScheduleModel]]:
    with rows.changing(key) as (open_session, row):
        yield open_session, row
        row.changed_at, row.changed_by = datetime.now(UTC), identity.caller()
        subject = row.id
    history.record(NOUN, subject, verb, **detail)


def update(
    key: str,
    check: Check,
    *,
    name: str | None = None,
    description: str | None = None,
    trigger: Mapping[str, Any] | None = None,
    policy: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Change a schedule in place; what is None stays. Its id, slots and history stay; it as shown.

    What another trigger would have had since its start is not made up for: it counts from now.

    Args:
        key: Its name or id.
        check: As for :func:`create`.
        name: Another name.
        description: Another description.
        trigger: Fields of the trigger; a cron expression and an interval take each other's place.
        policy: Fields of the policy.
        parameters: Parameters; those that are not named stay.

    Raises:
        BadInputError: If it could never work.
        NotFoundError: If there is no such schedule.
        ConflictError: If the name is taken.
    """
    given = {"name": name, "description": description, "trigger": trigger, "policy": policy}
    changed = {field: value for field, value in given.items() if value is not None}
    with _changing(key, "update", **changed) as (open_session, row):
        if name is not None:
            names.check(name)
            row.name = name
        if description is not None:
            names.check_description(description)
            row.description = description
        if parameters is not None:
            laid = {**row.parameters, **parameters}
            row.parameters = _parameters(row.deployment, laid, check)
        if policy is not None:
            row.policy = Policy(**{**row.policy, **policy}).model_dump(mode="json")
        if trigger is not None:
            _retrigger(open_session, row, _laid(row.trigger, trigger))
        subject = row.id
    return views.show(subject)


def _laid(present: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    other = {"cron": "interval_seconds", "interval_seconds": "cron"}
    gone = {"since", *(other[name] for name in other.keys() & given.keys())}
    return {**{name: value for name, value in present.items() if name not in gone}, **given}


def _retrigger(open_session: Session, row: ScheduleModel, given: Mapping[str, Any]) -> None:
    """Give a schedule another trigger; what the old one had until now is decided by it."""
    now = time.time()
    new = Trigger(**{"since": instant_at(int(now)), **given})
    new.check_fires()
    before = Subject.of(row)
    if row.enabled:
        decision = deciding.decide(before, now, identity.caller())
        found = decision.slots
    else:
        found = deciding.drop(before, now, identity.caller(), EDITED)
    slots.add(open_session.connection(), found)
    row.trigger = new.model_dump(mode="json", exclude_none=True)
    row.decided_until = int(now)
    row.next_slot = deciding.next_slot(new, row.decided_until)


def start(key: str) -> dict[str, Any]:
    """Run a schedule's slots again; those that it has missed meanwhile as its catch-up says."""
    with _changing(key, "start") as (_, row):
        if not row.enabled:
            row.enabled, row.paused = True, ""
            row.failures_since = int(time.time())
        subject = row.id
    return views.show(subject)


def stop(key: str) -> dict[str, Any]:
    """Run none of a schedule's slots from now on; its runs go on."""
    with _changing(key, "stop") as (_, row):
        row.enabled = False
        subject = row.id
    return views.show(subject)


def copy(key: str, name: str, check: Check) -> dict[str, Any]:
    """Make a schedule with everything of another; it as shown. Its slots count from now."""
    with catalogue.session() as open_session:
        row = rows.find(open_session, key)
        trigger = {field: value for field, value in row.trigger.items() if field != "since"}
        written = Written(
            name=name, deployment=row.deployment, description=row.description,
            parameters=row.parameters, trigger=trigger, policy=row.policy, enabled=row.enabled,
        )  # fmt: skip
    return create(written, check)


def trigger_now(key: str) -> dict[str, Any]:
    """Have a run created now, when the schedule has room; the slot as shown."""
    now = time.time()
    with _changing(key, "trigger") as (open_session, row):
        slot = deciding.asked(Subject.of(row), int(now), Kind.MANUAL, now, identity.caller())
        slots.add(open_session.connection(), [slot])
    return views.slot(slot)


def backfill(key: str, start: str, end: str) -> dict[str, Any]:
    """Have the slots of a past range run that have no run; how many there are of either kind.

    Args:
        key: The schedule.
        start: Slots are after this; ISO 8601, in the schedule's zone if it names no other.
        end: And not after this, nor after the present.

    Raises:
        BadInputError: With the codes ``BackfillEmpty`` and ``BackfillTooLarge``.
    """
    now = time.time()
    with _changing(key, "backfill", start=start, end=end) as (open_session, row):
        subject = Subject.of(row)
        zone = subject.trigger.timezone
        after = read_time(start, zone, "start")
        until = min(read_time(end, zone, "end"), instant_at(int(now)))
        free = subject.trigger.model_copy(update={"start": after, "end": None})
        count = free.count(after, until)
        if not 0 < count <= MOST_BACKFILLED:
            raise BadInputError(
                f"There are {count} slots from {start} until {end}.",
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
        slots.add(connection, wanted)
    return {"slots": len(wanted), "run_before": count - len(wanted)}


def delete(key: str) -> dict[str, Any]:
    """Delete a schedule, none of whose runs goes on; its slots stay on record.

    Raises:
        ConflictError: With the code ``RunGoesOn``.
    """
    with _changing(key, "delete") as (open_session, row):
        connection = open_session.connection()
        active = [one for one in slots.active(connection, [row.id]) if one.flow_run_id]
        runs = [str(one.flow_run_id) for one in active]
        goes_on = set(runs) - scheduled_runs.ended(runs).keys()
        if goes_on:
            raise ConflictError(
                f"{len(goes_on)} runs of {row.name!r} go on, such as {min(goes_on)}.",
                "Wait for them, or stop them: modelyard runs stop ID.",
                code="RunGoesOn",
            )
        queue = slots.queue(connection, row.id, float("inf"))
        slots.change(
            connection, [replace(slot, fate=Fate.SKIPPED, reason=DELETED) for slot in queue]
        )
        row.enabled, row.archived_at = False, datetime.now(UTC)
        found = {"id": row.id, "name": row.name}
    return {"deleted": True, **found}
