"""Runs of every flow: Prefect's, in the reference's words, with their MLflow side."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

from mlflow.exceptions import MlflowException
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterName,
    FlowRunFilterState,
    FlowRunFilterStateType,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.states import AwaitingRetry

from infra import work_pools
from infra.errors import ConflictError, NotFoundError
from registry import catalogue, deployments, flow_kinds, history, names, tracking
from registry.models import model_versions, models
from registry.pipelines import pipeline_nodes
from registry.runs import pool_queues, run_attempts, run_removal, run_requests, run_views, statuses
from registry.schedules import schedules
from registry.tunings import tunings

USER_LABEL = "modelyard.user"
CHECKED_LABEL = "modelyard.checked"  # its parameters are complete: whoever made it checked them
SCHEDULE_LABEL = "modelyard.schedule"  # the id of the schedule that made it
SLOT_LABEL = "modelyard.slot"
_NOUN = "run"
_POLL_SECONDS = 0.5
_STOP_SECONDS = 60.0
_STOP_SECONDS_ON_A_CLUSTER = 120.0  # the worker has to notice, then pods have their grace
_PAGE = 200


@contextlib.contextmanager
def _prefect() -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


def _find(client: SyncPrefectClient, key: str) -> FlowRun:
    """The run whose id, or whose only name, is ``key``."""
    with contextlib.suppress(ValueError, ObjectNotFound):
        return client.read_flow_run(UUID(key))
    named = FlowRunFilter(name=FlowRunFilterName(any_=[key]))
    found = client.read_flow_runs(flow_run_filter=named, sort=FlowRunSort.ID_DESC, limit=_PAGE)
    if len(found) > 1:  # one that was refused never had the name
        held = [run for run in found if not statuses.is_refused(run.state)]
        found = held or found
    if len(found) > 1:
        raise ConflictError(
            f"Several runs are called {key!r}.", "Give the run's id: modelyard runs list."
        )
    if not found:
        raise NotFoundError(
            f"There is no run {key!r}.", "modelyard runs list shows those there are."
        )
    return found[0]


def _find_with_flow(client: SyncPrefectClient, key: str) -> tuple[FlowRun, str]:
    """The run that ``key`` means, and its flow's name."""
    run = _find(client, key)
    return run, client.read_flow(run.flow_id).name


def _flow_names(client: SyncPrefectClient, runs: list[FlowRun]) -> dict[UUID, str]:
    return {flow_id: client.read_flow(flow_id).name for flow_id in {run.flow_id for run in runs}}


def _scan(client: SyncPrefectClient, *, page: int = _PAGE, **filters: Any) -> Iterator[FlowRun]:
    """Runs that pass Prefect's ``filters``, newest first, fetched page by page."""
    for offset in itertools.count(step=page):
        found = client.read_flow_runs(
            sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=page, offset=offset, **filters
        )
        yield from found
        if len(found) < page:
            return


def list_all(
    flow: str | None = None, limit: int = 50, ids: Iterable[str] | None = None
) -> list[dict[str, Any]]:
    """The newest runs, newest first; of one flow if it is named, and of these ids if they are.

    Tunings tell how many trials they have as well, and the best value.
    """
    wanted = FlowFilter(name=FlowFilterName(any_=[flow])) if flow else None
    among = None if ids is None else FlowRunFilter(id=FlowRunFilterId(any_=list(map(UUID, ids))))
    with _prefect() as client:
        found = _scan(client, page=min(_PAGE, limit), flow_filter=wanted, flow_run_filter=among)
        runs = list(itertools.islice(found, limit))
        names = _flow_names(client, runs)
    tuned = [run for run in runs if names[run.flow_id] == flow_kinds.TUNE.name]
    over = {str(run.id) for run in tuned if run.state and run.state.is_final()}
    more = tunings.summaries({str(run.id): run_views.mlflow_run_id(run) for run in tuned}, over)
    waits = run_views.waits(runs)
    return [
        {
            **run_views.row(run, names[run.flow_id], waits.get(str(run.id))),
            **more.get(str(run.id), {}),
        }
        for run in runs
    ]


@dataclass(frozen=True)
class Listed:
    """A run among others.

    Attributes:
        id: Its id.
        row: What a list shows of it.
        created: When it was created.
        parameters: What it was told.
        final: Whether it has ended.
        opened: Whether it has an MLflow run.
    """

    id: str
    row: dict[str, Any]
    created: datetime | None
    parameters: dict[str, Any]
    final: bool
    opened: bool


def not_complete(*, final: bool = True) -> list[Listed]:
    """Every run that is not COMPLETE, newest first; without ``final``, those that go on."""
    ended = [StateType.COMPLETED] if final else TERMINAL_STATES
    kind = FlowRunFilterStateType(not_any_=list(ended))
    with _prefect() as client:
        return _listed(client, FlowRunFilter(state=FlowRunFilterState(type=kind)))


def with_ids(ids: Iterable[str]) -> list[Listed]:
    """The runs of these ids that Prefect has."""
    wanted = [UUID(run_id) for run_id in ids]
    with _prefect() as client:
        return [
            run
            for first in range(0, len(wanted), _PAGE)
            for run in _listed(
                client, FlowRunFilter(id=FlowRunFilterId(any_=wanted[first : first + _PAGE]))
            )
        ]


def _listed(client: SyncPrefectClient, wanted: FlowRunFilter) -> list[Listed]:
    # A run that begins or ends meanwhile can move from one page to the next.
    found = {run.id: run for run in _scan(client, flow_run_filter=wanted)}
    flows = _flow_names(client, list(found.values()))
    waits = run_views.waits(found.values())
    return [
        Listed(
            str(run.id),
            run_views.row(run, flows[run.flow_id], waits.get(str(run.id))),
            run.created,
            run.parameters,
            bool(run.state and run.state.is_final()),
            run_views.mlflow_run_id(run) is not None,
        )
        for run in found.values()
    ]


def show(key: str) -> dict[str, Any]:
    """Everything about a run.

    Args:
        key: Its id, or its name where only one run has it.

    Raises:
        NotFoundError: If there is none.
        ConflictError: If several runs have the name.
    """
    with _prefect() as client:
        run, flow = _find_with_flow(client, key)
        what = run_views.waits([run]).get(str(run.id)) or pool_queues.waits(client, run)
    labels = run.labels or {}
    scheduled = labels.get(SCHEDULE_LABEL)
    retried = run_attempts.retried(str(run.id))
    return {
        **run_views.row(run, flow, what),
        "message": statuses.message(run.state) or what,
        "user": labels.get(USER_LABEL),
        "schedule": schedules.name_of(str(scheduled)) if scheduled else None,
        "slot": labels.get(SLOT_LABEL),
        # Prefect counts those that have begun.
        "attempts": run.run_count + sum(not one.begun for one in retried),
        **({"retried": [one.reason for one in retried]} if retried else {}),
        "waiting": what,
        "parameters": run.parameters,
        "result": _result(run, flow),
        "links": run_views.links(run, flow),
        "history": history.of(_NOUN, str(run.id)),
    }


def _result(run: FlowRun, flow: str) -> dict[str, Any] | None:
    mlflow_run_id = run_views.mlflow_run_id(run)
    if mlflow_run_id is None:
        return None
    try:
        over = bool(run.state and run.state.is_final())
        return _RESULTS.get(flow, _own_result)(str(run.id), mlflow_run_id, over)
    except MlflowException:  # deleted in MLflow
        return None


def _own_result(_: str, mlflow_run_id: str, over: bool) -> dict[str, Any]:
    return tracking.result(mlflow_run_id)


# What runs of a flow have to show where that is not in their own MLflow run alone; told the flow
# run, the MLflow run, and whether it is over.
_RESULTS: dict[str, Callable[[str, str, bool], dict[str, Any]]] = {
    flow_kinds.TUNE.name: tunings.result,
    flow_kinds.PIPELINE_RUN.name: pipeline_nodes.result,
}


def submit(
    deployment: str,
    parameters: dict[str, Any],
    name: str | None,
    user: str,
    labels: Mapping[str, str] = MappingProxyType({}),
    once: str | None = None,
    tags: Iterable[str] = (),
    checked: bool = True,
) -> str:
    """Create a run of ``deployment``, to be started by its pool; its id.

    Args:
        deployment: Its name, which is its flow's as well, or else ``flow/deployment``.
        parameters: What the run is told.
        name: What the run is called; given by Prefect if None.
        user: Who starts it.
        labels: Further labels of the run.
        once: A key; the run that was created with it before is found again.
        tags: Further tags of the run.
        checked: Whether its parameters were checked and filled; else the run does that itself.

    Raises:
        NotFoundError: If the deployment is not registered.
    """
    with _prefect() as client:
        run = client.create_flow_run_from_deployment(
            deployments.read(client, deployment).id,
            parameters=parameters,
            name=name,
            labels={**labels, USER_LABEL: user, **({CHECKED_LABEL: "true"} if checked else {})},
            idempotency_key=once,
            tags=list(tags),
        )
    return str(run.id)


def ended(key: str) -> bool:
    """Whether the run has ended."""
    with _prefect() as client:
        run = _find(client, key)
    return bool(run.state and run.state.is_final())


def brief(key: str) -> dict[str, Any]:
    """``{"flow_run_id", "state", "links"}``: what one gets for having started a run."""
    with _prefect() as client:
        run, flow = _find_with_flow(client, key)
    return {
        "flow_run_id": str(run.id),
        "state": run_views.word(run, flow),
        "links": run_views.links(run, flow),
    }


def logs(key: str, after: int = 0) -> list[str]:
    """Lines of the run's log in order, from the ``after``-th on."""
    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[UUID(key)]))
    with _prefect() as client:
        return [entry.message for entry in client.read_logs(wanted, limit=_PAGE, offset=after)]


def wait(key: str, timeout: float | None = None) -> bool:
    """Wait until the run has ended; whether it has, before ``timeout`` seconds were over."""
    deadline = time.monotonic() + timeout if timeout is not None else None
    while not ended(key):
        if deadline is not None and time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def stop(key: str) -> dict[str, Any]:
    """Stop a run and wait until it has stopped; its brief.

    Raises:
        ConflictError: If it has ended already, or does not stop in a minute; on a cluster, in
            two.
    """
    with _prefect() as client:
        run, flow = _find_with_flow(client, key)
        if run.state and run.state.is_final():
            raise ConflictError(
                f"The run {run.name} has ended: it is {run_views.word(run, flow)}.",
                "Only a run that goes on can be stopped.",
            )
    run_requests.ask_to_stop(str(run.id))
    history.record(_NOUN, str(run.id), "stop")
    remote = work_pools.is_remote(run.work_pool_name)
    patience = _STOP_SECONDS_ON_A_CLUSTER if remote else _STOP_SECONDS
    if not wait(str(run.id), patience):
        raise ConflictError(
            f"The run {run.name} has not stopped after {patience:.0f} s.",
            "It will when its worker answers: modelyard status.",
        )
    return brief(str(run.id))


def retry(key: str) -> dict[str, Any]:
    """Run a failed or stopped run again under its id; it resumes from its checkpoints. Its brief.

    Raises:
        ConflictError: If it goes on, is complete, or was called in a process of its own; or if
            its pipeline has been deleted, with the code ``DeploymentGone``, or its pool, with
            ``PoolGone``.
    """
    with _prefect() as client:
        run, flow = _find_with_flow(client, key)
        word = run_views.word(run, flow)
        if run.state is None or not run.state.is_final() or run.state.is_completed():
            raise ConflictError(
                f"The run {run.name} is {word}.",
                "Only a run that failed or was stopped can be retried; copy it to run it again.",
            )
        if run.deployment_id is None:
            raise ConflictError(
                f"The run {run.name} was called in a Python process, so no pool can retry it.",
                f"Run a copy in a pool: modelyard runs copy {run.id}.",
            )
        try:
            client.read_deployment(run.deployment_id)
        except ObjectNotFound:
            raise ConflictError(
                f"What the run {run.name} was started from has been deleted.",
                "Upload the pipeline again, and start a run of it.", code="DeploymentGone",
            ) from None  # fmt: skip
        if run.work_pool_name is None:
            raise ConflictError(
                f"The pool that the run {run.name} was in has been made anew since.",
                f"Run a copy: modelyard runs copy {run.id}.", code="PoolGone",
            )  # fmt: skip
        client.set_flow_run_state(run.id, AwaitingRetry(message="Retried."), force=True)
    history.record(_NOUN, str(run.id), "retry", was=word)
    return brief(str(run.id))


def update(
    key: str,
    name: str | None,
    description: str | None,
    parameters: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Rename or describe a run, in Prefect and in MLflow, or change parameters; its brief.

    Raises:
        BadInputError: If the name cannot be used.
        ConflictError: If it is taken; with the code ``ExperimentDeleted`` if the run's experiment
            is deleted, whose runs MLflow does not change.
    """
    with _prefect() as client:
        run, flow = _find_with_flow(client, key)
        mlflow_run_id = run_views.mlflow_run_id(run)
        experiment = str(run.parameters.get("experiment", "Default"))
        if name is not None:
            names.check(name)
        if mlflow_run_id and not (name is None and description is None):
            tracking.check_experiment(experiment, str(run.id))
        if name is not None:
            tracking.check_name(flow, name, experiment, str(run.id))
        if mlflow_run_id:
            tracking.describe(mlflow_run_id, name, description)
        # In its parameters as well: a retry would take the old ones again.
        given = {"name": name, "description": description}
        changed = {key: value for key, value in given.items() if value is not None}
        client.update_flow_run(
            run.id, name=name, parameters={**run.parameters, **changed, **parameters}
        )
    history.record(_NOUN, str(run.id), "update", **changed, **parameters)
    return brief(str(run.id))


def is_checked(key: str) -> bool:
    """Whether the run's parameters were completed when it was made, or when it began."""
    with _prefect() as client:
        return bool((_find(client, key).labels or {}).get(CHECKED_LABEL))


def find(key: str) -> str:
    """The id of the run whose id, or whose only name, is ``key``.

    Raises:
        NotFoundError: If there is none.
        ConflictError: If several runs have the name.
    """
    with _prefect() as client:
        return str(_find(client, key).id)


def going_on(run_id: str) -> list[str]:
    """Why the run may not be deleted: it goes on."""
    with _prefect() as client:
        run = _find(client, run_id)
    final = run.state and run.state.is_final()
    return [] if final else [f"The run {run.name} goes on."]


def mlflow_run_id(run_id: str) -> str | None:
    """The run's MLflow run, once it has one."""
    with _prefect() as client:
        return run_views.mlflow_run_id(_find(client, run_id))


def models_of(run_id: str) -> list[str]:
    """Why the run may not be deleted: the models that were made from it."""
    with _prefect() as client:
        run = _find(client, run_id)
    mlflow_run_id = run_views.mlflow_run_id(run)
    made = models.made_by(mlflow_run_id) if mlflow_run_id else []
    return [f"The run {run.name} made the model {', '.join(made)}."] if made else []


@contextlib.contextmanager
def alone(run_id: str) -> Iterator[None]:
    """Let nobody make a model of what the run has left, until the end of the block."""
    with _prefect() as client:
        mlflow_run_id = run_views.mlflow_run_id(_find(client, run_id))
    lock = model_versions.lock_of_run(mlflow_run_id or run_id)
    with catalogue.advisory_lock(lock):
        yield


def remove(run_id: str) -> dict[str, Any]:
    """Remove a run, whatever depends on it: in MLflow with its artifacts, its files, in Prefect.

    What :mod:`registry.deletion` calls. One that was interrupted can be repeated.
    """
    with _prefect() as client:
        run = _find(client, run_id)
        run_removal.remove(client, run_id, run_views.mlflow_run_id(run))
    return {"id": run_id, "name": run.name}


def remove_there(run_ids: Iterable[str]) -> None:
    """The same for many runs, where those that Prefect has no more leave only their files."""
    with _prefect() as client:
        for run_id in run_ids:
            try:
                run = client.read_flow_run(UUID(run_id))
            except ObjectNotFound:
                run_removal.remove_files(run_id)
            else:
                run_removal.remove(client, run_id, run_views.mlflow_run_id(run))
