"""Rows of schedules, made and changed as somebody has written them."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pydantic import StrictBool
from sqlalchemy import Connection

from infra import identity
from infra.errors import BadInputError
from registry import names
from registry.schedules import slots
from registry.schedules.schedules import ScheduleModel
from schedules import deciding, instants, macros, plain
from schedules.forms import Form
from schedules.instants import LAST, instant_at, second_of
from schedules.policy import Policy, missed
from schedules.subject import Subject
from schedules.trigger import Trigger

EDITED = "TriggerChanged"
DEPLOYMENT_UNKNOWN = "DeploymentUnknown"

MOST_CAUGHT_UP = 10_000  # by a schedule that is new
_SLOTS_NAMED = 100  # so many are compared: a name may be the same after a day or a month only

# What an interval is counted by; while these stay, it is counted from where it was.
_RHYTHM = ("cron", "interval_seconds")

# Given a deployment and parameters, what is kept of them; refuses what cannot work, and with the
# code DeploymentUnknown a deployment that is not there.
Check = Callable[[str, Mapping[str, Any]], dict[str, Any]]


class Written(Form):
    """A schedule as it is written: what its trigger and its policy have, each field by itself."""

    name: str
    deployment: str
    description: str = ""
    parameters: dict[str, Any] = {}
    trigger: dict[str, Any]
    policy: dict[str, Any] = {}
    enabled: StrictBool = True


class Changes(Form):
    """What is changed of a schedule, or of what is copied of it."""

    new_name: str | None = None
    deployment: str | None = None
    description: str | None = None
    trigger: dict[str, Any] | None = None
    policy: dict[str, Any] | None = None
    enabled: StrictBool | None = None


def check_parameters(deployment: str, given: Mapping[str, Any], check: Check) -> dict[str, Any]:
    """Refuse parameters that a slot's run could not have; they as they are kept.

    It may ask others, so no transaction may be open.

    Raises:
        ModelyardError: If they are refused, or the deployment is not there.
    """
    plain.check(given)
    macros.check(given)
    found = check(deployment, given)
    try:
        json.dumps(found, allow_nan=False)
    except (TypeError, ValueError):
        raise BadInputError(
            "A parameter is neither a text, a number, a truth value, a list nor a mapping.",
            "Put a date in quotes.",
            code="ParameterInvalid",
        ) from None
    return found


def check_run_names(trigger: Trigger, given: Mapping[str, Any]) -> None:
    """Refuse a name for runs that two slots of the trigger share, in one experiment.

    Raises:
        BadInputError: ``RunNameFixed``.
    """
    name = given.get("name")
    if not isinstance(name, str) or not name:
        return
    found = [*itertools.islice(trigger.between(trigger.base, instant_at(LAST)), _SLOTS_NAMED)]
    taken = set()
    for slot in found if len(found) > 1 else [instant_at(0), *found]:
        named = macros.fill({"in": given.get("experiment"), "name": name}, slot, trigger.timezone)
        key = json.dumps(named)
        if key in taken:
            raise BadInputError(
                f"Runs of different slots would both be called {named['name']!r}, and an "
                "experiment can have one of a name.",
                "Leave the parameter name out, or put the whole slot in it: "
                "{{ slot.strftime('%Y%m%dT%H%M%S') }}.",
                code="RunNameFixed",
            )
        taken.add(key)


def read_trigger(given: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> Trigger:
    """The trigger of its fields.

    Args:
        given: The fields.
        before: Those of the trigger that it takes the place of. An interval that stays is counted
            from where it was.

    Raises:
        BadInputError: If it is none.
    """
    if "since" in given:
        raise BadInputError(
            "A trigger has no field 'since'.", "Slots are after its start.", code="FieldUnknown"
        )
    since: Any = instant_at(int(instants.present()))
    if before is not None and all(before.get(name) == given.get(name) for name in _RHYTHM):
        since = before["since"]
    return Trigger(**{**given, "since": since})


def fields_of(trigger: Mapping[str, Any]) -> dict[str, Any]:
    """What somebody has written of a trigger that is kept."""
    return {name: value for name, value in trigger.items() if name != "since"}


def laid(present: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a trigger over those that it has.

    One that is null or empty is taken out; a cron expression and an interval take each other's
    place.
    """
    other = {"cron": "interval_seconds", "interval_seconds": "cron"}
    gone = {other[name] for name in other.keys() & given.keys()}
    kept = {name: value for name, value in fields_of(present).items() if name not in gone}
    return {name: value for name, value in {**kept, **given}.items() if value not in (None, "")}


def new_row(
    written: Written, parameters: dict[str, Any], *, source: str = "", from_now: bool = False
) -> ScheduleModel:
    """The row of a new schedule.

    Args:
        written: What it is.
        parameters: Its parameters, which have been checked.
        source: Which file it comes from.
        from_now: Whether its slots count from now, also if its start is in the past.

    Raises:
        BadInputError: If it can never work as written.
    """
    names.check(written.name)
    names.check_description(written.description)
    trigger = read_trigger(written.trigger)
    trigger.check_fires()
    check_run_names(trigger, parameters)
    decided = second_of(trigger.base)
    if from_now:
        decided = max(decided, int(instants.present()))
        check_goes_on(trigger, decided)
    check_catch_up(trigger, Policy(**written.policy), decided)
    now, user = datetime.now(UTC), identity.caller()
    return ScheduleModel(
        id=str(uuid.uuid4()),
        name=written.name,
        description=written.description,
        deployment=written.deployment,
        parameters=parameters,
        trigger=trigger.model_dump(mode="json", exclude_none=True),
        policy=Policy(**written.policy).model_dump(mode="json"),
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


def check_goes_on(trigger: Trigger, after: int) -> None:
    """Refuse a trigger that has no slot after an instant.

    Raises:
        BadInputError: ``TriggerNeverFires``.
    """
    if trigger.next(instant_at(after)) is None:
        raise BadInputError(
            "The schedule has no slot from now on.", "Give a later end, or none.",
            code="TriggerNeverFires",
        )  # fmt: skip


def check_catch_up(trigger: Trigger, policy: Policy, after: int) -> None:
    """Refuse a schedule that would begin with more runs than anybody means to have.

    Raises:
        BadInputError: ``CatchupTooMany``.
    """
    now = max(int(instants.present()), after)
    late = missed(trigger, policy, instant_at(after), instant_at(now)).late
    if late is not None and late.count > MOST_CAUGHT_UP:
        raise BadInputError(
            f"The schedule begins {late.count} slots in the past, and would run them all.",
            "Give a later start, or a policy that runs fewer: catchup=latest, "
            "max_catchup_runs=100 or catchup_window=86400.",
            code="CatchupTooMany",
        )


def retrigger(connection: Connection, row: ScheduleModel, new: Trigger) -> None:
    """Give a schedule another trigger; what the old one had until now is decided by it.

    Slots that a stopped schedule had meanwhile are skipped: they are not the new trigger's. What
    the new one would have had until now is not made up for.
    """
    now, user = instants.present(), identity.caller()
    subject = Subject.of(row)
    if row.enabled:
        asked = slots.backfilled(connection, {row.id: row.decided_until})[row.id]
        while True:
            decision = deciding.decide(subject, now, user, asked)
            slots.add(connection, decision.slots)
            if decision.decided_until >= int(now):
                break
            subject = replace(subject, decided_until=decision.decided_until)
    else:
        slots.add(connection, deciding.drop(subject, now, user, EDITED))
    row.trigger = new.model_dump(mode="json", exclude_none=True)
    row.decided_until = int(now)
    row.next_slot = deciding.next_slot(new, row.decided_until)


def told_of(row: ScheduleModel) -> dict[str, Any]:
    """What people have said of a schedule, each field by its name."""
    plain_ = ("name", "description", "deployment", "enabled", "source")
    groups = {
        "trigger": fields_of(row.trigger), "policy": row.policy, "parameters": row.parameters
    }  # fmt: skip
    inner = {
        f"{one}.{name}": value for one, group in groups.items() for name, value in group.items()
    }
    return {**{name: getattr(row, name) for name in plain_}, **inner}


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The names of the fields that were changed, and never what is in them."""
    absent = object()
    return sorted(
        name
        for name in before.keys() | now.keys()
        if before.get(name, absent) != now.get(name, absent)
    )


def enable(row: ScheduleModel) -> None:
    """Run a schedule's slots again."""
    if not row.enabled:
        row.enabled, row.paused = True, ""
        row.failures_since = int(instants.present())


def mend(row: ScheduleModel) -> None:
    """Have a scheduler look again at a schedule that it could do nothing with."""
    if row.error:
        row.error, row.registered = "", False


def move(row: ScheduleModel, deployment: str) -> None:
    """Make the schedule's runs those of another deployment."""
    row.deployment, row.error, row.registered = deployment, "", False


def touch(row: ScheduleModel) -> None:
    """Say who has changed it, and when."""
    row.changed_at, row.changed_by = datetime.now(UTC), identity.caller()
