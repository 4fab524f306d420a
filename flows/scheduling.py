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
from infra.errors import BadInputError, ModelyardError, NotFoundError
from registry import deployments, flow_kinds
from registry.pipelines import pipelines
from registry.runs import run_requests
from registry.schedules import scheduled_runs, upcoming_slots
from registry.schedules.slots import Slot
from schedules import applying, editing, macros, plain, verbs
from schedules.instants import instant_at
from schedules.subject import Subject
from schedules.views import ScheduleDetailView
from tasks import parameters


def check(deployment: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse parameters that no slot's run could use; the parameters as they are kept.

    Macros are tried with the present as the slot, and stay in what is kept.

    Args:
        deployment: A flow of Modelyard's, an uploaded pipeline, or any ``flow/deployment``.
        given: The parameters.

    Raises:
        NotFoundError: If the deployment is not there, with the code ``DeploymentUnknown``.
        ModelyardError: If a parameter is refused.
    """
    filled = macros.fill(given, datetime.now(UTC).replace(microsecond=0))
    try:
        deployments.check(deployment)
        flow, fixed = _own(deployment)
    except NotFoundError as error:
        raise NotFoundError(error.message, error.hint, code=editing.DEPLOYMENT_UNKNOWN) from None
    if flow != flow_kinds.PIPELINE_RUN.name and (macro := macros.foreign(given)):
        raise BadInputError(
            f"The macro {macro[:40]} is filled in for pipelines alone.",
            "Use {{ slot.strftime('%Y-%m-%d') }}.",
            code="MacroUnknown",
        )
    if not flow:
        deployments.check_parameters(deployment, filled)
        return dict(given)
    twice = sorted(set(fixed) & set(given))
    if twice:
        raise BadInputError(
            f"{deployment} has its {twice[0]} already.", f"Leave {twice[0]} out.",
            code="ParameterInvalid",
        )  # fmt: skip
    declared = catalogue.find(flow)
    placing.checked(declared, {**filled, **fixed})
    dumped = parameters.read(declared.model, given).absolute().model_dump(mode="json")
    return {name: dumped[name] for name in given}


def _own(deployment: str) -> tuple[str, dict[str, str]]:
    """The flow of ours that a deployment runs, and the parameters that the deployment sets.

    The flow is "" for one that is not Modelyard's, and for a deployment that a user has made.
    """
    flow, slash, name = deployment.partition("/")
    ours = catalogue.names()
    if not slash and flow not in ours:
        flow, name = flow_kinds.PIPELINE_RUN.name, deployment
    elif not slash or (flow in ours and name == flow):
        return flow, {}
    if flow != flow_kinds.PIPELINE_RUN.name:
        return "", {}
    pipelines.find(name)
    return flow, {"pipeline": name}


def create(
    name: str,
    deployment: str,
    *,
    cron: str | None = None,
    interval_seconds: int | None = None,
    timezone: str | None = None,
    start: datetime | str | None = None,
    end: datetime | str | None = None,
    policy: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Any] | None = None,
    description: str = "",
    enabled: bool = True,
) -> ScheduleDetailView:
    """Have a deployment run at the slots of a cron expression or of an interval.

    Args:
        name: What the schedule is called.
        deployment: A flow, such as ``train``; an uploaded pipeline, whose newest version is taken
            unless it is ``NAME:NUMBER``; or any ``flow/deployment``.
        cron: Six fields, seconds first; or five; or ``@daily`` and the like.
        interval_seconds: Instead: the seconds from one slot to the next.
        timezone: Whose clocks a cron expression is read by.
        start: Slots are after this.
        end: And not after this.
        policy: Fields of :class:`schedules.policy.Policy`.
        parameters: The parameters of its runs; may hold ``{{ slot }}``.
        description: A description.
        enabled: Whether its slots are run.

    Returns:
        The schedule, as ``modelyard schedule show`` has it.

    Raises:
        ModelyardError: If it could never work; nothing is kept then.
    """
    given = {
        "cron": cron, "interval_seconds": interval_seconds, "timezone": timezone,
        "start": start, "end": end,
    }  # fmt: skip
    written = editing.Written.model_validate(
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
        return verbs.create(written, check)


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
        new_name: Another name.
        description: Another description.
        deployment: What it runs from now on.
        trigger: Fields of its trigger.
        policy: Fields of its policy.
        parameters: Laid over those that it has; one that is null is taken out.
    """
    revise = _over(parameters)
    with connected():
        return verbs.update(
            name, check, name=new_name, description=description, deployment=deployment,
            trigger=trigger, policy=policy, revise=revise,
        )  # fmt: skip


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
    """Make a schedule with everything of another but for what is given.

    Args:
        name: The other one's name or id.
        new_name: What it is called.
        description: As for :func:`update`.
        deployment: As for :func:`update`.
        trigger: As for :func:`update`.
        policy: As for :func:`update`.
        parameters: As for :func:`update`.
        enabled: Whether its slots are run; as the other one's if None.
    """
    revise = _over(parameters)
    with connected():
        return verbs.copy(
            name, new_name, check, description=description, deployment=deployment,
            trigger=trigger, policy=policy, revise=revise, enabled=enabled,
        )  # fmt: skip


def apply(document: Mapping[str, Any], file: str, *, adopt: bool = False) -> dict[str, Any]:
    """Make the schedules of a file what it says, as :func:`schedules.applying.apply` does."""
    with connected():
        return applying.apply(document, file, check, adopt=adopt)


def _over(given: Mapping[str, Any] | None) -> Callable[[Mapping[str, Any]], dict[str, Any]] | None:
    """What lays parameters over those that there are; None if none are given."""
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise BadInputError(
            "parameters: It is no mapping.", "Give names with values.", code="FieldInvalid"
        )
    plain.check(given, "parameters")
    return lambda present: parameters.without_nulls(parameters.merged(present, given))


class FlowRuns:
    """Runs of schedules, in Prefect."""

    def find(self, slot: Slot) -> str | None:
        """The run of a slot, if it was created; its id."""
        return scheduled_runs.find(slot)

    def create(self, subject: Subject, slot: Slot) -> str:
        """Create the run of a slot, or find the one that there is; its id.

        The run itself fills in its template and checks its parameters, as one from a form does.

        Raises:
            ModelyardError: If it is refused for good. What else is raised may pass.
        """
        at, zone = instant_at(slot.slot), subject.trigger.timezone
        return scheduled_runs.create(
            slot,
            schedule=subject.name,
            deployment=subject.deployment,
            parameters=macros.fill(subject.parameters, at, zone),
            user=subject.user,
        )

    def ended(self, ids: Collection[str]) -> dict[str, str]:
        """Those of the runs that have ended or are gone, with the word for it."""
        return scheduled_runs.ended(ids)

    def stop(self, run_id: str) -> None:
        """Ask for the end of a run."""
        run_requests.request_stop(run_id)

    def refusal(self, deployment: str) -> str:
        """Why there can be no runs of a deployment; "" if there can."""
        try:
            deployments.check(deployment)
        except ModelyardError as error:
            return str(error)
        return ""

    def announce(self, table: Sequence[Mapping[str, str]]) -> None:
        """Show the slots to come among Prefect's artifacts."""
        upcoming_slots.publish(table)
