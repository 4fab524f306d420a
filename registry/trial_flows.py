"""The flow runs of trials that run in a work pool: each is a run of ``train``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.states import AwaitingRetry, Cancelled, Cancelling

from infra import identity
from registry import runs, statuses, tracking

# Labels of a trial's flow run.
TUNING_LABEL = "modelyard.tuning"  # the flow run of the tuning that it belongs to
PARENT_LABEL = "modelyard.parent_mlflow_run_id"
TRIAL_LABEL = "modelyard.trial"

_FLOW = "train"
_PAGE = 200
_NOT_BEGUN = frozenset({StateType.SCHEDULED, StateType.PENDING})


@dataclass(frozen=True)
class TrialFlow:
    """What a trial's flow run has come to.

    Attributes:
        word: The reference's word for its state.
        begun: Whether it runs, or has run.
        final: Whether it has ended.
        crashed: Whether what executed it was lost.
        message: What its state says.
        attempts: How often it was begun.
        mlflow_run_id: Its MLflow run; "" until it has one.
    """

    word: str
    begun: bool
    final: bool
    crashed: bool
    message: str
    attempts: int
    mlflow_run_id: str


def number(labels: Mapping[str, object]) -> int | None:
    """Which trial a flow run with these labels is; None if it is none."""
    found = labels.get(TRIAL_LABEL)
    return None if found is None else int(str(found))


def pool_type() -> str | None:
    """The type of the pool that trials would run in; None if there is none."""
    with get_client(sync_client=True) as client:
        try:
            found = client.read_deployment_by_name(f"{_FLOW}/{_FLOW}")
            pool = found.work_pool_name
            return client.read_work_pool(pool).type if pool else None
        except ObjectNotFound:
            return None


def submit(
    parameters: dict[str, object], name: str, *, tuning: str, parent: str, number: int
) -> str:
    """Create the run of a trial, once for a tuning and a number; its id.

    Args:
        parameters: Of ``train``; they have been checked.
        name: What the run is called.
        tuning: The flow run of the tuning.
        parent: The MLflow run of the tuning.
        number: The trial's number.
    """
    labels = {TUNING_LABEL: tuning, PARENT_LABEL: parent, TRIAL_LABEL: str(number)}
    return runs.submit(
        _FLOW, parameters, name, identity.caller(), labels, once=f"{tuning} trial {number}"
    )


def read(ids: Iterable[str]) -> dict[str, TrialFlow]:
    """The runs of these ids that Prefect has."""
    wanted = [UUID(run_id) for run_id in ids]
    found = {}
    with get_client(sync_client=True) as client:
        for first in range(0, len(wanted), _PAGE):
            some = FlowRunFilter(id=FlowRunFilterId(any_=wanted[first : first + _PAGE]))
            for run in client.read_flow_runs(
                flow_run_filter=some, sort=FlowRunSort.ID_DESC, limit=_PAGE
            ):
                state, labels = run.state, run.labels or {}
                found[str(run.id)] = TrialFlow(
                    word=statuses.word(_FLOW, state),
                    begun=bool(state and state.type not in _NOT_BEGUN),
                    final=bool(state and state.is_final()),
                    crashed=bool(state and state.type == StateType.CRASHED),
                    message=(state.message or "") if state else "",
                    attempts=run.run_count,
                    mlflow_run_id=str(labels.get(tracking.MLFLOW_RUN_LABEL) or ""),
                )
    return found


def ask_to_stop(run_id: str) -> None:
    """Ask for the end of a run, which may take a while; one that has ended or is gone stays so."""
    found = UUID(run_id)
    with get_client(sync_client=True) as client, contextlib.suppress(ObjectNotFound):
        run = client.read_flow_run(found)
        state = run.state
        if state and (state.is_final() or state.type == StateType.CANCELLING):
            return
        if state is None or state.type == StateType.SCHEDULED:
            client.set_flow_run_state(found, Cancelled(message="Stopped."))
            if client.read_flow_run(found).run_count == run.run_count:
                return
        # It has begun, perhaps just now, so that somebody has to end its process.
        client.set_flow_run_state(found, Cancelling(message="Stopping."), force=True)


def go_on(run_id: str) -> None:
    """Run again a run that failed or was stopped; it resumes from its checkpoints."""
    found = UUID(run_id)
    with get_client(sync_client=True) as client, contextlib.suppress(ObjectNotFound):
        state = client.read_flow_run(found).state
        if state and state.is_final() and not state.is_completed():
            client.set_flow_run_state(found, AwaitingRetry(message="Again."), force=True)
