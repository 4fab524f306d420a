"""Schedules of deployments: what their runs are told, checked when it is written."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from flows import catalogue
from infra.errors import ModelyardError
from registry import run_requests, runs, scheduled_runs
from registry.slots import Slot
from schedules import macros
from schedules.instants import instant_at
from schedules.subject import Subject
from tasks import parameters


def check(deployment: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse what no slot's run could do; the parameters as they are kept.

    Macros are tried with the present as the slot, and stay in what is kept.

    Raises:
        NotFoundError: If the deployment is not there.
        ModelyardError: If a parameter is refused.
    """
    if "/" in deployment:
        runs.check_deployment(deployment)
        return dict(given)
    flow = catalogue.entry(deployment).flow
    runs.check_deployment(deployment)
    flow.checked(macros.fill(given, datetime.now(UTC).replace(microsecond=0)))
    dumped = parameters.read(flow.model, given).absolute().model_dump(mode="json")
    return {name: dumped[name] for name in given}


class FlowRuns:
    """Runs of schedules, in Prefect."""

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
        run_requests.ask_to_stop(run_id)

    def refusal(self, deployment: str) -> str:
        """Why there can be no runs of a deployment; "" if there can."""
        try:
            runs.check_deployment(deployment)
        except ModelyardError as error:
            return str(error)
        return ""
