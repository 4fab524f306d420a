"""Names of runs, unique among the runs of a flow in an experiment.

MLflow has the names of the runs that have begun, Prefect those of the runs that wait. A run that
a form or a schedule has made is checked when it begins, see :func:`registry.tracking.open_run`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterName,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun

from infra.prefect_client import prefect_client
from registry import experiment_names, tracking
from registry.runs import labels


@contextlib.contextmanager
def claiming(flow: str, name: str, experiment: str, flow_run_id: str = "") -> Iterator[None]:
    """Check a name, and hold its lock while a run is created under it or renamed to it.

    Args:
        flow: The flow's name.
        name: The run's name.
        experiment: Its experiment's name.
        flow_run_id: The run; "" before there is one.

    Raises:
        ConflictError: With the code ``NameTaken``.
    """
    with tracking.name_lock(flow, name, experiment):
        # In this order: a run that begins in between is found by the second.
        for run in _active(flow, name):
            in_it = (run.parameters.get("experiment") or experiment_names.DEFAULT) == experiment
            trial = labels.PARENT in (run.labels or {})
            if in_it and not trial and str(run.id) != flow_run_id:
                raise tracking.name_taken(name, experiment, str(run.id))
        tracking.check_name(flow, name, experiment, flow_run_id)
        yield


def _active(flow: str, name: str) -> list[FlowRun]:
    """Runs of the flow that have the name and have not ended."""
    active = FlowRunFilterState(type=FlowRunFilterStateType(not_any_=list(TERMINAL_STATES)))
    with prefect_client() as client:
        return client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])),
            flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[name]), state=active),
        )
