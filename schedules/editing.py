"""Creation and changes of a schedule's row, from the fields that users write."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, ClassVar

from pydantic import StrictBool
from sqlalchemy import Connection

from infra import identity
from infra.errors import BadInputError
from registry import names
from registry.schedules import slots
from registry.schedules.schedules import ScheduleModel
from schedules import deciding, instants, macros, plain
from schedules.instants import LAST, instant_at, second_of
from schedules.policy import SchedulePolicy, plan_catchup
from schedules.schedule import Schedule
from schedules.schedule_fields import ScheduleFields
from schedules.trigger import Trigger

EDITED = "TriggerChanged"
DEPLOYMENT_UNKNOWN = "DeploymentUnknown"

MOST_CAUGHT_UP = 10_000  # by a new schedule
_SLOTS_COMPARED = 100  # run names may repeat only after a day or a month

# Fields that determine an interval's phase; while they stay the same, so does its base.
_RHYTHM = ("cron", "interval_seconds")

# Validates the parameters of a deployment, and returns them as they are stored. It refuses an
# unknown deployment with the code DeploymentUnknown.
Check = Callable[[str, Mapping[str, Any]], dict[str, Any]]


class ScheduleSpec(ScheduleFields):
    """Specification of a schedule, as a user writes it."""

    noun: ClassVar[str] = "schedule"

    name: str
    deployment: str
    description: str = ""
    parameters: dict[str, Any] = {}
    trigger: dict[str, Any]
    policy: dict[str, Any] = {}
    enabled: StrictBool = True


class ScheduleChanges(ScheduleFields):
    """Changed fields of a schedule, or of its copy; None keeps a field."""

    noun: ClassVar[str] = "schedule"

    new_name: str | None = None
    deployment: str | None = None
    description: str | None = None
    trigger: dict[str, Any] | None = None
    policy: dict[str, Any] | None = None
    enabled: StrictBool | None = None


def check_parameters(
    deployment: str, given: Mapping[str, Any], check: Check, trigger: Trigger | None = None
) -> dict[str, Any]:
    """Validate the parameters of a schedule's runs; the parameters as they are stored.

    ``check`` may call Prefect, so no transaction may be open. It refuses a run name that an
    earlier run has, so one that slots of the trigger would share is refused before: another fixed
    name would be no better.

    Raises:
        ModelyardError: If they are refused, or the deployment does not exist.
    """
    plain.check(given)
    macros.check(given)
    if trigger is not None:
        check_run_names(trigger, given)
    found = check(deployment, given)
    for name, value in found.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            raise BadInputError(
                f"The parameter {name!r} is not a string, number, boolean, list or mapping.",
                "Put a date in quotes, and give finite numbers.",
                code="ParameterInvalid",
            ) from None
    return found


def check_run_names(trigger: Trigger, given: Mapping[str, Any]) -> None:
    """Refuse a run name that two slots of the trigger share in one experiment.

    Raises:
        BadInputError: ``RunNameFixed``.
    """
    name = given.get("name")
    if not isinstance(name, str) or not name:
        return
    found = [*itertools.islice(trigger.between(trigger.base, instant_at(LAST)), _SLOTS_COMPARED)]
    taken = set()
    for slot in found if len(found) > 1 else [instant_at(0), *found]:
        named = macros.fill({"in": given.get("experiment"), "name": name}, slot, trigger.timezone)
        key = json.dumps(named)
        if key in taken:
            raise BadInputError(
                f"Runs of different slots would have the same name {named['name']!r}, which must "
                "be unique in an experiment.",
                "Leave the parameter name out (-p name= drops a file's), or include the whole "
                "slot in it: -p \"name=n {{ slot.strftime('%Y%m%dT%H%M%S') }}\".",
                code="RunNameFixed",
            )
        taken.add(key)


def read_trigger(given: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> Trigger:
    """Validate the fields of a trigger.

    Args:
        given: The fields.
        before: Stored fields of the trigger that it replaces; an unchanged interval keeps its
            base.

    Raises:
        BadInputError: If a field is invalid.
    """
    if "since" in given:
        raise BadInputError(
            "A trigger has no field 'since'.", "Slots are after its start.", code="FieldUnknown"
        )
    trigger = Trigger(**{**given, "since": instant_at(int(instants.present()))})
    if before is not None and all(before.get(name) == getattr(trigger, name) for name in _RHYTHM):
        return Trigger(**{**given, "since": before["since"]})
    return trigger


def trigger_fields(trigger: Mapping[str, Any]) -> dict[str, Any]:
    """User-written fields of a stored trigger."""
    return {name: value for name, value in trigger.items() if name != "since"}


def merge_trigger(present: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Merge changed fields into those of a stored trigger.

    A null or empty value removes a field; a cron expression and an interval replace each other.
    """
    other = {"cron": "interval_seconds", "interval_seconds": "cron"}
    gone = {other[name] for name in other.keys() & given.keys()}
    kept = {name: value for name, value in trigger_fields(present).items() if name not in gone}
    return {name: value for name, value in {**kept, **given}.items() if value not in (None, "")}


def new_row(
    spec: ScheduleSpec, parameters: dict[str, Any], *, source: str = "", from_now: bool = False
) -> ScheduleModel:
    """Make the row of a new schedule.

    Args:
        spec: Its specification.
        parameters: Its validated parameters.
        source: Name of the set that it was applied from; "" if it was created by hand.
        from_now: Whether to ignore slots before now, even if its start is in the past.

    Raises:
        BadInputError: If the specification is invalid, or has no slot.
    """
    names.check(spec.name)
    names.check_description(spec.description)
    trigger = read_trigger(spec.trigger)
    trigger.check_fires()
    decided = second_of(trigger.base)
    if from_now:
        decided = max(decided, int(instants.present()))
        check_fires_after(trigger, decided)
    check_catch_up(trigger, SchedulePolicy(**spec.policy), decided)
    now, user = datetime.now(UTC), identity.caller()
    return ScheduleModel(
        id=str(uuid.uuid4()),
        name=spec.name,
        description=spec.description,
        deployment=spec.deployment,
        parameters=parameters,
        trigger=trigger.model_dump(mode="json", exclude_none=True),
        policy=SchedulePolicy(**spec.policy).model_dump(mode="json"),
        enabled=spec.enabled,
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


def check_fires_after(trigger: Trigger, after: int) -> None:
    """Refuse a trigger that has no slot after an instant.

    Raises:
        BadInputError: ``TriggerNeverFires``.
    """
    if trigger.next(instant_at(after)) is None:
        raise BadInputError(
            "The schedule has no slot after now.", "Give a later end, or none.",
            code="TriggerNeverFires",
        )  # fmt: skip


def check_catch_up(trigger: Trigger, policy: SchedulePolicy, after: int) -> None:
    """Refuse a new schedule that would catch up an unreasonable number of slots.

    Raises:
        BadInputError: ``CatchupTooMany``.
    """
    now = max(int(instants.present()), after)
    late = plan_catchup(trigger, policy, instant_at(after), instant_at(now)).late
    if late is not None and late.count > MOST_CAUGHT_UP:
        raise BadInputError(
            f"The schedule would catch up {late.count} slots of the past; at most "
            f"{MOST_CAUGHT_UP} are allowed.",
            "Give a later start, or limit the catch-up: catchup=latest, max_catchup_runs=100 or "
            "catchup_window=86400.",
            code="CatchupTooMany",
        )


def replace_trigger(connection: Connection, row: ScheduleModel, new: Trigger) -> None:
    """Replace the trigger of a schedule, after deciding the slots of the old one until now.

    The undecided slots of a stopped schedule are skipped. Slots of the new trigger before now are
    not caught up.
    """
    now, user = instants.present(), identity.caller()
    schedule = Schedule.from_row(row)
    if row.enabled:
        backfilled = slots.backfilled(connection, {row.id: row.decided_until})[row.id]
        while True:
            decision = deciding.decide_slots(schedule, now, user, backfilled)
            slots.add(connection, decision.slots)
            if decision.decided_until >= int(now):
                break
            schedule = replace(schedule, decided_until=decision.decided_until)
    else:
        slots.add(connection, deciding.skip_undecided(schedule, now, user, EDITED))
    row.trigger = new.model_dump(mode="json", exclude_none=True)
    row.decided_until = int(now)
    row.next_slot = deciding.next_slot(new, row.decided_until)


def user_fields(row: ScheduleModel) -> dict[str, Any]:
    """User-written fields of a schedule, with dotted names."""
    plain_ = ("name", "description", "deployment", "enabled", "source")
    groups = {
        "trigger": trigger_fields(row.trigger), "policy": row.policy, "parameters": row.parameters
    }  # fmt: skip
    inner = {
        f"{one}.{name}": value for one, group in groups.items() for name, value in group.items()
    }
    return {**{name: getattr(row, name) for name in plain_}, **inner}


def changed_fields(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of the fields that differ; never their values, which may be secrets."""
    absent = object()
    return sorted(
        name
        for name in before.keys() | now.keys()
        if before.get(name, absent) != now.get(name, absent)
    )


def enable(row: ScheduleModel) -> None:
    """Enable a schedule, and reset its count of failures."""
    if not row.enabled:
        row.enabled, row.paused, row.pause_event = True, "", None
        row.failures_since = int(instants.present())


def clear_error(row: ScheduleModel) -> None:
    """Clear the error of a schedule, so that the scheduler registers it again."""
    if row.error:
        row.error, row.registered = "", False


def set_deployment(row: ScheduleModel, deployment: str) -> None:
    """Set the deployment that the schedule runs."""
    row.deployment, row.error, row.registered = deployment, "", False


def mark_changed(row: ScheduleModel) -> None:
    """Record the time and the user of a change."""
    row.changed_at, row.changed_by = datetime.now(UTC), identity.caller()
