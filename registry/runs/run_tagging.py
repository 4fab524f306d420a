"""Adds the tags of :mod:`registry.runs.run_tags` to runs that earlier versions have made."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Iterator
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import VariableCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort

from infra.mlflow import ViewType
from infra.prefect_client import prefect_client
from registry import tracking
from registry.runs import labels, run_tags
from registry.tunings import trial_runs

_DONE = "modelyard_runs_tagged"  # a variable of Prefect's, which has the tags as well
_PAGE = 200
_RETRY_SECONDS = 60.0
_UNSUCCESSFUL = FlowRunFilterState(
    type=FlowRunFilterStateType(
        any_=[StateType.SCHEDULED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED]
    )
)

_logger = logging.getLogger(__name__)


def is_complete(client: SyncPrefectClient) -> bool:
    """Whether every run has its tags; false in a home of an earlier version, for a while."""
    return client.read_variable_by_name(_DONE) is not None


def is_done() -> bool:
    """Return what :func:`is_complete` does, by a client of its own."""
    with prefect_client() as client:
        return is_complete(client)


def start() -> None:
    """Tag runs of earlier versions in a thread of this process, which may end at any time."""
    threading.Thread(target=_tag_patiently, daemon=True, name="tags of earlier runs").start()


def _tag_patiently() -> None:
    while True:
        try:
            tag_earlier()
        except Exception as error:  # noqa: BLE001 (the loop's edge; tried again)
            _logger.warning("Runs of earlier versions could not be tagged yet: %s", error)
            time.sleep(_RETRY_SECONDS)
        else:
            return


def tag_earlier() -> None:
    """Tag the runs of earlier versions; in a new home there are none.

    It takes about ten minutes for 50 000 runs, and can be repeated after an interruption.
    """
    with prefect_client() as client:
        if is_complete(client):
            return
        _tag_opened(client)
        _tag_unopened(client)
        client.create_variable(VariableCreate(name=_DONE, value=True))


def _tag_opened(client: SyncPrefectClient) -> None:
    """Tag runs that have an MLflow run with its experiment."""
    mlflow = tracking.client()
    experiments = list(
        tracking.paged(lambda token: mlflow.search_experiments(ViewType.ALL, page_token=token))
    )
    for experiment_id in (str(experiment.experiment_id) for experiment in experiments):
        opened = _opened(experiment_id)
        while some := dict(itertools.islice(opened, _PAGE)):
            for run in _read(client, FlowRunFilter(id=FlowRunFilterId(any_=list(some)))):
                tags = run_tags.opened(run.tags, experiment_id, trial=some[run.id])
                _tag(client, run, tags)


def _opened(experiment_id: str) -> Iterator[tuple[UUID, bool]]:
    """Yield the flow runs with an MLflow run in an experiment, and whether each is a trial."""
    mlflow = tracking.client()
    ours = f"tags.`{tracking.KIND_TAG}` != '{trial_runs.KIND}'"
    for run in tracking.paged(
        lambda token: mlflow.search_runs([experiment_id], ours, ViewType.ALL, page_token=token)
    ):
        tags = run.data.tags
        with contextlib.suppress(KeyError, ValueError):  # whoever uses MLflow may set our tags
            yield UUID(tags[tracking.FLOW_RUN_TAG]), tracking.PARENT_TAG in tags


def _tag_unopened(client: SyncPrefectClient) -> None:
    """Tag runs that have ended, or wait, without an MLflow run."""
    for offset in itertools.count(step=_PAGE):
        found = _read(client, FlowRunFilter(state=_UNSUCCESSFUL), offset)
        for run in found:
            if not (run.state and run.state.is_final()):
                run = client.read_flow_run(run.id)  # noqa: PLW2901 (it may have begun)
            if labels.mlflow_run_id(run.labels or {}) is None:
                _tag(client, run, run_tags.not_opened(run.tags))
        if len(found) < _PAGE:
            return


def _read(client: SyncPrefectClient, wanted: FlowRunFilter, offset: int = 0) -> list[FlowRun]:
    return client.read_flow_runs(
        flow_run_filter=wanted, sort=FlowRunSort.ID_DESC, limit=_PAGE, offset=offset
    )


def _tag(client: SyncPrefectClient, run: FlowRun, tags: list[str]) -> None:
    if set(tags) == set(run.tags):
        return
    client.update_flow_run(run.id, tags=tags)
