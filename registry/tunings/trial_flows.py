"""The flow runs of trials that run in a work pool: each is a run of ``train``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound

from infra import identity
from infra.prefect_client import prefect_client
from registry import flow_kinds, tracking
from registry.runs import labels as run_labels
from registry.runs import runs, statuses

# Labels of a trial's flow run.
TUNING_LABEL = run_labels.TUNING
PARENT_LABEL = run_labels.PARENT
TRIAL_LABEL = "modelyard.trial"

_FLOW = flow_kinds.TRAIN.name
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
        detail: The detail of its state, such as why it was lost; "" for none.
        message: What its state says.
        error_code: The code of the error that its last attempt failed with; "" for none.
        attempts: How often it was begun.
        mlflow_run_id: Its MLflow run; "" until it has one.
    """

    word: str
    begun: bool
    final: bool
    crashed: bool
    detail: str
    message: str
    error_code: str
    attempts: int
    mlflow_run_id: str


def number(labels: Mapping[str, object]) -> int | None:
    """Which trial a flow run with these labels is; None if it is none."""
    found = labels.get(TRIAL_LABEL)
    return None if found is None else int(str(found))


def pool_type() -> str | None:
    """The type of the pool that trials would run in; None if there is none."""
    with prefect_client() as client:
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
    with prefect_client() as client:
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
                    detail=statuses.detail(state),
                    message=statuses.message(state),
                    error_code=statuses.error_code(labels, run.run_count),
                    attempts=run.run_count,
                    mlflow_run_id=str(labels.get(tracking.MLFLOW_RUN_LABEL) or ""),
                )
    return found
