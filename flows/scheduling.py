"""Schedules of deployments, whose parameters are checked when the schedule is written.

In Python a schedule is made with :func:`create`, changed with :func:`update` and copied with
:func:`copy`; what else is done with it is in :mod:`schedules.verbs`, within
:func:`flows.connection.connected`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from flows import catalogue, placing
from flows.connection import connected
from infra import prefect_events
from infra.errors import BadInputError, ModelyardError, NotFoundError
from registry import deployments, flow_kinds
from registry.notifications import notifications
from registry.pipelines import pipelines
from registry.runs import run_requests
from registry.schedules import scheduled_runs, upcoming_slots
from registry.schedules.slots import Slot
from schedules import applying, editing, macros, plain, verbs, views
from schedules.instants import instant_at
from schedules.schedule import PausedSchedule, Schedule
from schedules.views import ScheduleDetailView, SlotView
from tasks import parameters


def check(deployment: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Validate the parameters of a schedule's runs; the parameters as they are stored.

    They are validated with macros expanded for the present, and stored with the macros.

    Args:
        deployment: A flow of Modelyard, an uploaded pipeline, or any ``flow/deployment``.
        given: The parameters.

    Raises:
        NotFoundError: With the code ``DeploymentUnknown``.
        ModelyardError: If a parameter is refused.
    """
    filled = macros.fill(given, datetime.now(UTC).replace(microsecond=0))
    try:
        deployments.check(deployment)
        flow, fixed = _own(deployment)
    except NotFoundError as error:
        raise NotFoundError(error.message, error.hint, code=editing.DEPLOYMENT_UNKNOWN) from None
    if flow != flow_kinds.PIPELINE_RUN.name and (macro := macros.find_foreign(given)):
        raise BadInputError(
            f"The macro {macro[:40]} is supported in pipelines only.",
            "Use {{ slot.strftime('%Y-%m-%d') }}.",
            code="MacroUnknown",
        )
    if not flow:
        deployments.check_parameters(deployment, filled)
        return dict(given)
    twice = sorted(set(fixed) & set(given))
    if twice:
        raise BadInputError(
            f"The deployment {deployment} sets the parameter {twice[0]} itself.",
            f"Leave {twice[0]} out.",
            code="ParameterInvalid",
        )  # fmt: skip
    declared = catalogue.find(flow)
    placing.checked(declared, {**filled, **fixed})
    dumped = parameters.read(declared.model, given).absolute().model_dump(mode="json")
    return {name: dumped[name] for name in given}


def flow_of(deployment: str) -> str:
    """Return the flow of Modelyard's that a deployment runs.

    It is "" for any other flow, and for a deployment that a user has created.
    """
    return _divided(deployment)[0]


def _own(deployment: str) -> tuple[str, dict[str, str]]:
    """Find the flow as :func:`flow_of` does, and the parameters that the deployment sets."""
    flow, pipeline = _divided(deployment)
    if not pipeline:
        return flow, {}
    pipelines.find(pipeline)
    return flow, {"pipeline": pipeline}


def _divided(deployment: str) -> tuple[str, str]:
    """Divide a deployment into flow and uploaded pipeline; "" for none of Modelyard's."""
    flow, slash, name = deployment.partition("/")
    own = catalogue.names()
    if not slash:
        return (flow, "") if flow in own else (flow_kinds.PIPELINE_RUN.name, deployment)
    if flow in own and name == flow:
        return flow, ""
    return (flow, name) if flow == flow_kinds.PIPELINE_RUN.name else ("", "")


def create(
    name: str,
    deployment: str,
    *,
    cron: str | None = None,
    interval_seconds: int | str | None = None,
    timezone: str | None = None,
    start: datetime | str | None = None,
    end: datetime | str | None = None,
    policy: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Any] | None = None,
    description: str = "",
    enabled: bool = True,
) -> ScheduleDetailView:
    """Create a schedule that runs a deployment at the slots of a cron expression or interval.

    Args:
        name: Name of the schedule.
        deployment: A flow, such as ``train``; an uploaded pipeline, as ``NAME`` for its newest
            version or ``NAME:NUMBER``; or any ``flow/deployment``.
        cron: A cron expression: six fields with seconds first, or five, or a word such as
            ``@daily``.
        interval_seconds: Instead of a cron expression: the seconds between slots, or a duration
            such as ``1h30m``.
        timezone: Time zone of the cron expression (IANA name).
        start: Slots are after this time.
        end: Slots are not after this time.
        policy: Fields of :class:`schedules.policy.SchedulePolicy`.
        parameters: Parameters of its runs; may have macros such as ``{{ slot }}``.
        description: A description.
        enabled: Whether its slots get runs.

    Returns:
        The schedule, as ``modelyard schedule show`` prints it.

    Raises:
        ModelyardError: If the schedule is invalid; nothing is stored then.
    """
    given = {
        "cron": cron, "interval_seconds": interval_seconds, "timezone": timezone,
        "start": start, "end": end,
    }  # fmt: skip
    spec = editing.ScheduleSpec.model_validate(
        {
            "name": name,
            "deployment": deployment,
            "description": description,
            "parameters": parameters,
            "trigger": {field: value for field, value in given.items() if value is not None},
            "policy": policy,
            "enabled": enabled,
        }
    )
    with connected():
        return verbs.create(spec, check)


def show(key: str, *, following: int = views.NEXT, last: int = views.LAST) -> ScheduleDetailView:
    """Return a schedule with its slots, and the present states of their runs. Needs a connection.

    Args:
        key: Its name or id.
        following: How many of its next slots.
        last: How many of its last slots, newest first.

    Raises:
        NotFoundError: With the code ``ScheduleUnknown``.
    """
    found = views.show(key, following=following, last=last)
    slots = views.with_states(found.slots, scheduled_runs.states)
    return found.model_copy(update={"slots": slots})


def slots_of(key: str, *, last: int = views.LAST, fate: str | None = None) -> list[SlotView]:
    """List a schedule's last slots, newest first, with the present states of their runs.

    Needs a connection.

    Args:
        key: Its name or id.
        last: How many.
        fate: Only those of this fate.

    Raises:
        NotFoundError: With the code ``ScheduleUnknown``.
        BadInputError: With the code ``FateUnknown``.
    """
    return views.with_states(views.slots_of(key, last=last, fate=fate), scheduled_runs.states)


def update(
    name: str,
    *,
    new_name: str | None = None,
    description: str | None = None,
    deployment: str | None = None,
    trigger: Mapping[str, Any] | None = None,
    policy: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> ScheduleDetailView:
    """Change a schedule in place, as :func:`schedules.verbs.update` does.

    Args:
        name: Its name or id.
        new_name: New name; None, as for the other fields, to keep it.
        description: New description.
        deployment: New deployment.
        trigger: Changed fields of its trigger.
        policy: Changed fields of its policy.
        parameters: Merged into its parameters; a null value removes one.
    """
    revise = _over(parameters)
    with connected():
        before = views.show(name).name if new_name is not None else None
        changed = verbs.update(
            name, check, name=new_name, description=description, deployment=deployment,
            trigger=trigger, policy=policy, revise=revise,
        )  # fmt: skip
        if before is not None and before != changed.name:
            notifications.rename_schedule(before, changed.name)
        return changed


def copy(
    name: str,
    new_name: str,
    *,
    description: str | None = None,
    deployment: str | None = None,
    trigger: Mapping[str, Any] | None = None,
    policy: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Any] | None = None,
    enabled: bool | None = None,
) -> ScheduleDetailView:
    """Create a copy of a schedule with changed fields.

    Args:
        name: Name or id of the original.
        new_name: Name of the copy.
        description: As for :func:`update`.
        deployment: As for :func:`update`.
        trigger: As for :func:`update`.
        policy: As for :func:`update`.
        parameters: As for :func:`update`.
        enabled: Whether its slots get runs; None for the state of the original.
    """
    revise = _over(parameters)
    with connected():
        return verbs.copy(
            name, new_name, check, description=description, deployment=deployment,
            trigger=trigger, policy=policy, revise=revise, enabled=enabled,
        )  # fmt: skip


def apply(document: Mapping[str, Any], file: str, *, adopt: bool = False) -> dict[str, Any]:
    """Apply the schedules of a file, as :func:`schedules.applying.apply` does."""
    with connected():
        return applying.apply(document, file, check, adopt=adopt)


def _over(given: Mapping[str, Any] | None) -> Callable[[Mapping[str, Any]], dict[str, Any]] | None:
    """Function that merges parameters into the current ones; None if none are given."""
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise BadInputError(
            "parameters: Not a mapping.", "Give names with values.", code="FieldInvalid"
        )
    plain.check(given, "parameters")
    return lambda present: parameters.drop_nulls(parameters.merge(present, given))


class FlowRuns:
    """Runs of schedules, in Prefect."""

    def find(self, slot: Slot) -> str | None:
        """Find the run of a slot; its id, None if it was not created."""
        return scheduled_runs.find(slot)

    def create(self, schedule: Schedule, slot: Slot) -> str:
        """Create the run of a slot, or find the existing one; its id.

        The run completes and validates its parameters itself, as a run of a form does.

        Raises:
            ModelyardError: If it is refused for good. Other exceptions may be temporary.
        """
        at, zone = instant_at(slot.slot), schedule.trigger.timezone
        return scheduled_runs.create(
            slot,
            schedule=schedule.name,
            deployment=schedule.deployment,
            parameters=macros.fill(schedule.parameters, at, zone),
            user=schedule.user,
        )

    def ended(self, ids: Collection[str]) -> dict[str, str]:
        """Select the runs that have ended or are gone, with their status word."""
        return scheduled_runs.ended(ids)

    def stop(self, run_id: str) -> None:
        """Request the end of a run."""
        run_requests.request_stop(run_id)

    def refusal(self, deployment: str) -> str:
        """Why runs of a deployment cannot be created; "" if they can."""
        try:
            deployments.check(deployment)
        except ModelyardError as error:
            return str(error)
        return ""

    def announce_pause(self, paused: PausedSchedule) -> None:
        """Emit the event of Prefect that notifications of paused schedules report."""
        flow, slash, _ = paused.deployment.partition("/")
        if not slash and flow not in catalogue.names():
            flow = flow_kinds.PIPELINE_RUN.name
        prefect_events.emit(
            prefect_events.PAUSED_SCHEDULE,
            f"modelyard.schedule.{paused.id}",
            paused.name,
            event_id=paused.event,
            labels={prefect_events.REASON_LABEL: paused.reason},
            related=[
                prefect_events.related("flow", flow, flow),
                prefect_events.related("tag", f"schedule:{paused.name}", ""),
            ],
        )

    def announce(self, table: Sequence[Mapping[str, str]]) -> None:
        """Publish the upcoming slots as an artifact of Prefect."""
        upcoming_slots.publish(table)
