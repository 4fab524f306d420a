"""The MLflow runs of a tuning's trials, which MLflow shows below the tuning's own run.

A trial that runs beside its tuning has a run that is made here. One that runs in a pool has the
run of its own training, which :func:`registry.tracking.open_run` makes below the tuning's.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from infra.mlflow import MlflowException, MlflowRun, ViewType
from registry import tracking
from registry.tracking import (
    FLOW_RUN_TAG,
    KIND_TAG,
    PARENT_TAG,
    REASON_TAG,
    STATE_TAG,
    TRIAL_TAG,
    client,
)

KIND = "trial"
_PAGE = 1000
_DELETIONS_AT_ONCE = 4

# MLflow's status of a run in each final state of a trial.
_STATUSES = {
    "SUCCEEDED": "FINISHED",
    "EARLY_STOPPED": "FINISHED",
    "KILLED": "KILLED",
    "FAILED": "FAILED",
    "METRICS_UNAVAILABLE": "FAILED",
}


@dataclass(frozen=True)
class Parent:
    """A tuning's own MLflow run, and what its trials' runs have from it.

    Attributes:
        run_id: Its id.
        experiment_id: Where it is.
        flow_run_id: The tuning's flow run.
        user: Who started it.
    """

    run_id: str
    experiment_id: str
    flow_run_id: str
    user: str


def parent(run_id: str) -> Parent:
    """The tuning's run of this id, which :func:`registry.tracking.open_run` has opened."""
    run = client().get_run(run_id)
    tags = run.data.tags
    user = tags.get("mlflow.user", "")
    return Parent(run_id, str(run.info.experiment_id), tags[FLOW_RUN_TAG], user)


def open_trial(parent: Parent, number: int) -> str:
    """Make the run of a trial; its id. It is one request, so that no trial waits long for it."""
    tags = {
        PARENT_TAG: parent.run_id,
        KIND_TAG: KIND,
        FLOW_RUN_TAG: parent.flow_run_id,
        TRIAL_TAG: str(number),
        "mlflow.user": parent.user,
        "mlflow.source.name": "modelyard run tune",
    }
    made = client().create_run(parent.experiment_id, run_name=f"{KIND} {number}", tags=tags)
    return str(made.info.run_id)


def status(state: str) -> str:
    """MLflow's status of a run whose trial has ended in ``state``."""
    return _STATUSES[state]


def state_tags(state: str, reason: str) -> dict[str, str]:
    """Tags that record how a trial has ended, beside what its run says itself."""
    return {STATE_TAG: state, **({REASON_TAG: reason} if reason else {})}


def children(parent: Parent) -> dict[int, str]:
    """The runs of trials that are there already, by the trials' numbers.

    Where a trial has two, because an answer was lost while it was made, it is the first.
    """
    found: dict[int, str] = {}
    for run in _below(parent.run_id, parent.experiment_id, ViewType.ACTIVE_ONLY):
        found.setdefault(int(run.data.tags[TRIAL_TAG]), str(run.info.run_id))
    return found


def unsettled(parent: Parent) -> dict[str, str]:
    """Runs of trials that nobody has written the end of yet, with the kind of each.

    They are those of trials that go on, of trials whose tuning was killed before it could write
    down what became of them, and those that no trial has used.
    """
    return {
        str(run.info.run_id): run.data.tags.get(KIND_TAG, "")
        for run in _below(parent.run_id, parent.experiment_id, ViewType.ACTIVE_ONLY)
        if run.info.status == "RUNNING" or STATE_TAG not in run.data.tags
    }


def _below(run_id: str, experiment_id: str, view: ViewType) -> Iterator[MlflowRun]:
    """Runs of trials of the run, the first one first. A script's own runs below it are not."""
    mlflow = client()
    ours = f"tags.`{PARENT_TAG}` = '{run_id}' AND tags.`{TRIAL_TAG}` LIKE '%'"
    return tracking.paged(
        lambda token: mlflow.search_runs(
            [experiment_id], ours, view, _PAGE, ["attributes.start_time ASC"], token
        )
    )


def below(run_id: str) -> dict[str, str]:
    """Every run of a trial of the run, deleted ones as well, with where its artifacts are.

    None if the run itself is gone.
    """
    try:
        experiment_id = str(client().get_run(run_id).info.experiment_id)
    except MlflowException as error:
        if not error.is_missing:
            raise
        return {}
    found = _below(run_id, experiment_id, ViewType.ALL)
    return {str(run.info.run_id): str(run.info.artifact_uri) for run in found}


def delete(found: Mapping[str, str]) -> None:
    """Delete what :func:`below` has found, with the bytes of the artifacts; can be repeated."""
    with ThreadPoolExecutor(_DELETIONS_AT_ONCE) as pool:
        for _ in pool.map(tracking.delete_run, found.keys(), found.values()):
            pass


def history(run_id: str, metric: str, after: int = 0) -> list[float]:
    """Values of a metric in the order of their reports, from the ``after``-th on.

    What MLflow keeps as the largest float was an infinity.
    """
    found = client().get_metric_history(run_id, metric)[after:]
    return [_as_reported(each.value) for each in found]


def _as_reported(value: float) -> float:
    return math.copysign(math.inf, value) if abs(value) == sys.float_info.max else value
