"""Start, change and copy runs, refusing bad parameters before a run exists."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from flows import catalogue, placing
from infra import identity
from infra.errors import BadInputError, ConflictError
from registry import experiment_names, experiments
from registry.runs import run_names, runs, statuses
from registry.runs.run_views import RunStatusView
from tasks import parameters


def start(flow: str, given: dict[str, Any]) -> str:
    """Check ``given`` parameters and create a run of ``flow``, to be started by its pool.

    Args:
        flow: The flow's name.
        given: As its form has them; relative paths count from this process's folder.

    Returns:
        The run's id.

    Raises:
        ModelyardError: If the flow or a parameter is refused; no run exists then.
    """
    declared = catalogue.find(flow)
    checked = placing.checked(declared, given)
    name = checked.get("name") or None
    with contextlib.ExitStack() as held:
        experiment = checked.get("experiment") or experiment_names.DEFAULT
        if declared.spec.tracked and name:
            held.enter_context(run_names.claiming(flow, name, experiment))
        elif declared.spec.base_name:
            base = declared.spec.base_name(checked)
            name = held.enter_context(run_names.claiming_next(flow, base, experiment))
        return runs.submit(declared.deployment(checked), checked, name, identity.caller())


def update(
    run: str, name: str | None, description: str | None, given: dict[str, Any]
) -> RunStatusView:
    """Rename or describe a run, or change parameters while it runs or for its retry.

    Raises:
        BadInputError: If the name cannot be used; with the code ``ParameterNotChangeable`` if a
            parameter is fixed once a run exists.
        ConflictError: If the name is taken, or the run is complete; with the code
            ``RunStillActive`` if a parameter can only be changed for a retry.
    """
    if not given:
        return runs.update(run, name, description)
    found = runs.show(run)
    flow = catalogue.find(found.flow)
    names = flow.spec.changeable + flow.spec.changes_at_retry
    fixed = sorted(set(given) - set(names))
    if fixed:
        raise BadInputError(
            f"The parameter {fixed[0]} of a run of {found.flow} cannot be changed.",
            f"Parameters that can: {', '.join(names) or 'none'}. Or run a copy: modelyard runs "
            "copy.",
            code="ParameterNotChangeable",
        )
    if found.state == statuses.COMPLETE:
        raise ConflictError(
            f"The run {found.name} is {found.state}.", "Run a copy: modelyard runs copy."
        )
    late = sorted(set(given) & set(flow.spec.changes_at_retry))
    if statuses.is_active(found.state) and late:
        raise ConflictError(
            f"The run {found.name} is {found.state}, and changes of {', '.join(late)} count "
            "for its retry only.",
            f"Stop it, change them, and retry it, which continues: modelyard runs stop {found.id}",
            code="RunStillActive",
        )
    request = parameters.read(flow.model, {**found.parameters, **given})
    flow.check_limit(request)
    with placing.where_it_runs(flow):
        flow.spec.check_changed(request)
    dumped = request.model_dump(mode="json")
    return runs.update(run, name, description, {name: dumped[name] for name in given})


def copy(run: str, changes: dict[str, Any] | Callable[[str], dict[str, Any]]) -> str:
    """Start a new run with the parameters of ``run``, changed; its id.

    A copy without a new name gets a generated one: names are unique. It is in the experiment of
    the run under that one's current name, and has the parameters that the run took from its
    template, even if the template has changed.

    Args:
        run: Its id or name.
        changes: The changed parameters, or what reads them for a flow's name.
    """
    found = runs.show(run)
    overrides = changes(found.flow) if callable(changes) else changes
    copied = {**found.parameters, "name": ""}
    if copied.get("template") and runs.is_checked(found.id):
        copied["template"] = ""
    experiment = experiments.name_now(copied, found.id)
    if experiment and "experiment" in copied:
        copied["experiment"] = experiment
    return start(found.flow, parameters.merge(copied, overrides))
