"""Runs of every flow: Prefect's flow runs, with their MLflow runs."""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterTags,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound

from infra import work_pools
from infra.errors import BadInputError, ConflictError, NotFoundError
from infra.prefect_client import prefect_client
from registry import (
    catalogue,
    deployments,
    experiment_names,
    flow_kinds,
    history,
    names,
    tracking,
)
from registry.blockers import Blocker
from registry.models import model_versions, models
from registry.runs import (
    labels,
    pending_reasons,
    pool_queues,
    run_attempts,
    run_filters,
    run_lookup,
    run_names,
    run_nodes,
    run_removal,
    run_requests,
    run_results,
    run_tagging,
    run_tags,
    statuses,
)
from registry.runs.run_filters import RunGroup, RunQuery
from registry.runs.run_views import RunDetailView, RunStatusView, RunView
from registry.schedules import schedules
from registry.tunings import tunings
from registry.views import JsonObject

USER_LABEL = "modelyard.user"
CHECKED_LABEL = "modelyard.checked"  # its parameters are complete: whoever made it checked them
SCHEDULE_LABEL = labels.SCHEDULE
SLOT_LABEL = labels.SLOT
_NOUN = "run"
_POLL_SECONDS = 0.5
_STOP_SECONDS = 60.0
_STOP_SECONDS_ON_A_CLUSTER = 120.0  # the worker has to notice, then pods have their grace
_PAGE = 200


@contextlib.contextmanager
def _prefect() -> Iterator[SyncPrefectClient]:
    with prefect_client() as client:
        yield client


def _find_with_flow(client: SyncPrefectClient, key: str) -> tuple[FlowRun, str]:
    """Return a run, and its flow's name."""
    run = run_lookup.find(client, key)
    return run, client.read_flow(run.flow_id).name


def _word(run: FlowRun, flow: str) -> str:
    return RunView.from_flow_run(run, flow).state


def _mlflow_run_id(run: FlowRun) -> str | None:
    return labels.mlflow_run_id(run.labels or {})


def _scan(client: SyncPrefectClient, query: RunQuery, page: int = _PAGE) -> Iterator[FlowRun]:
    """Yield the runs of a query, newest first, fetched page by page."""
    for offset in itertools.count(step=page):
        found = client.read_flow_runs(
            flow_run_filter=query.runs, flow_filter=query.flows,
            sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=page, offset=offset,
        )  # fmt: skip
        yield from found
        if len(found) < page:
            return


def list_all(
    flow: str | None = None,
    limit: int = 50,
    groups: Collection[RunGroup] = (),
    *,
    states: Collection[str] = (),
    name: str = "",
    tags: Collection[str] = (),
    since: datetime | None = None,
) -> list[RunView]:
    """List the newest runs, newest first; tunings with a summary of their trials.

    Args:
        flow: Only runs of this flow.
        limit: How many at most.
        groups: Only runs that are in each of these.
        states: Only runs in one of these states: the reference's words, or Prefect's names.
        name: Only runs whose name has this part, in capitals or not.
        tags: Only runs that have all of these tags in Prefect.
        since: Only runs that started, or are due, at this time or later.

    Raises:
        BadInputError: With the code ``StateUnknown`` or ``LimitInvalid``.
        NotFoundError: With the code ``FlowUnknown``.
    """
    if limit < 0:
        raise BadInputError(f"The limit is {limit}.", "Give 0 or more.", code="LimitInvalid")
    states = [statuses.read(text) for text in states]
    page = _PAGE if states or name or any(group.labels for group in groups) else min(_PAGE, limit)
    with _prefect() as client:
        _check_flow(client, flow)
        queries = run_filters.build(
            flow, states=states, name=name, tags=tags, since=since,
            all_tagged=statuses.CREATE_FAILED not in states or run_tagging.is_complete(client),
        )  # fmt: skip
        for group in groups:
            queries = [part for query in queries for part in run_filters.within(query, group)]
        flows = functools.cache(lambda flow_id: client.read_flow(flow_id).name)
        # Prefect knows the types of states, which are fewer than the words, and takes % and _ in a
        # name for any characters.
        found = (
            run
            for run in run_filters.merge_newest_first(
                [_scan(client, query, page) for query in queries]
            )
            if name.casefold() in run.name.casefold()
            and all(group.has(run) for group in groups)
            and statuses.is_one_of(states, _word(run, flows(run.flow_id)), run.state)
        )
        runs = list(itertools.islice(found, limit))
        names = {run.flow_id: flows(run.flow_id) for run in runs}
    views = _views(runs, names)
    tuned = {run.id: run.mlflow_run_id for run in views if run.flow == flow_kinds.TUNE.name}
    trials = tunings.summaries(tuned, {run.id for run in views if run.is_final})
    return [run.model_copy(update={"tuning": trials.get(run.id)}) for run in views]


def _check_flow(client: SyncPrefectClient, name: str | None) -> None:
    """Refuse the name of a flow that is neither Modelyard's nor one of Prefect's."""
    known = [kind.name for kind in flow_kinds.ALL]
    if name is None or name in known:
        return
    if not client.read_flows(flow_filter=FlowFilter(name=FlowFilterName(any_=[name])), limit=1):
        raise NotFoundError(
            f"There is no flow {name!r}.", f"Give one of: {', '.join(known)}.", code="FlowUnknown"
        )


def _views(runs: Iterable[FlowRun], flows: Mapping[UUID, str]) -> list[RunView]:
    runs = list(runs)
    waiting = pending_reasons.of({str(run.id): run.state.type.value for run in runs if run.state})
    return [
        RunView.from_flow_run(run, flows[run.flow_id], waiting.get(str(run.id), ""))
        for run in runs
    ]


def active() -> list[RunView]:
    """List every run that has not ended, newest first."""
    return matching(FlowRunFilter(state=run_filters.in_state(run_filters.ACTIVE)))


def ended_unopened() -> list[RunView]:
    """List every run that ended, other than COMPLETE, before it opened its MLflow run.

    In a home with runs of earlier versions that have no tags yet, that reads all that failed.
    """
    unsuccessful = run_filters.in_state(TERMINAL_STATES - {StateType.COMPLETED})
    with _prefect() as client:
        tagged = run_tagging.is_complete(client)
    tags = FlowRunFilterTags(all_=[run_tags.NO_MLFLOW_RUN]) if tagged else None
    found = matching(FlowRunFilter(state=unsuccessful, tags=tags))
    return [run for run in found if run.mlflow_run_id is None]


def with_ids(ids: Iterable[str]) -> list[RunView]:
    """List the runs of these ids that Prefect has."""
    wanted = list(ids)
    return [
        run
        for first in range(0, len(wanted), _PAGE)
        for run in matching(
            FlowRunFilter(id=FlowRunFilterId(any_=list(map(UUID, wanted[first : first + _PAGE]))))
        )
    ]


def matching(wanted: FlowRunFilter) -> list[RunView]:
    """List every run that passes a filter of Prefect's, newest first."""
    with _prefect() as client:
        found = list(run_filters.merge_newest_first([_scan(client, RunQuery(wanted))]))
        return _views(found, run_lookup.flow_names(client, found))


def show(key: str) -> RunDetailView:
    """Return everything that is known of a run.

    Args:
        key: Its id, or its name where only one run has it.

    Raises:
        NotFoundError: If there is none.
        ConflictError: If several runs have the name.
    """
    with _prefect() as client:
        run, flow = _find_with_flow(client, key)
        [view] = _views([run], {run.flow_id: flow})
        waiting = view.waiting or pool_queues.waits(client, run)
    own = run.labels or {}
    scheduled = own.get(SCHEDULE_LABEL)
    retried = run_attempts.retried(view.id)
    return RunDetailView.from_flow_run(
        run,
        flow,
        waiting,
        message=view.message or waiting,
        user=own.get(USER_LABEL),
        schedule=schedules.name_of(str(scheduled)) if scheduled else None,
        slot=own.get(SLOT_LABEL),
        # Prefect counts those that have begun.
        attempts=run.run_count + sum(not one.begun for one in retried),
        retried=[one.reason for one in retried],
        nodes=run_nodes.of_run(view),
        result=run_results.result(view),
        links=run_results.links(view),
        history=history.of(_NOUN, view.id),
    )


def submit(
    deployment: str,
    parameters: JsonObject,
    name: str | None,
    user: str,
    labels: Mapping[str, str] = MappingProxyType({}),
    once: str | None = None,
    tags: Iterable[str] = (),
    checked: bool = True,
) -> str:
    """Create a run of ``deployment``, which its pool starts; return its id.

    Args:
        deployment: Its name, which is its flow's as well, or else ``flow/deployment``.
        parameters: Parameters of the run.
        name: Name of the run; None for one of Prefect's.
        user: Who starts it.
        labels: Further labels of the run.
        once: Idempotency key: a second call with it returns the first call's run.
        tags: Further tags of the run.
        checked: Whether its parameters were checked and completed; else the run does that itself.

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
        run = run_lookup.find(client, key)
    return bool(run.state and run.state.is_final())


def brief(key: str) -> RunStatusView:
    """Return the run's state and pages, which its verbs answer with."""
    with _prefect() as client:
        run = RunView.from_flow_run(*_find_with_flow(client, key))
    return RunStatusView(
        flow_run_id=run.id, name=run.name, state=run.state, links=run_results.links(run)
    )  # fmt: skip


def logs(key: str, after: int = 0) -> list[str]:
    """Return lines of the run's log in Prefect in order, without the first ``after``."""
    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[UUID(key)]))
    with _prefect() as client:
        return [entry.message for entry in client.read_logs(wanted, limit=_PAGE, offset=after)]


def wait(key: str, timeout: float | None = None) -> bool:
    """Wait until the run has ended; return False if it has not within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout if timeout is not None else None
    while not ended(key):
        if deadline is not None and time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def stop(key: str) -> RunStatusView:
    """Stop a run and wait until it has stopped.

    Raises:
        ConflictError: If it has ended already, or does not stop within a minute, on a cluster
            two.
    """
    with _prefect() as client:
        run, flow = _find_with_flow(client, key)
        if run.state and run.state.is_final():
            raise ConflictError(
                f"The run {run.name} has ended: it is {_word(run, flow)}.",
                "Only an active run can be stopped.",
            )
    run_requests.request_stop(str(run.id))
    history.record(_NOUN, str(run.id), "stop")
    remote = work_pools.is_remote(run.work_pool_name)
    patience = _STOP_SECONDS_ON_A_CLUSTER if remote else _STOP_SECONDS
    if not wait(str(run.id), patience):
        raise ConflictError(
            f"The run {run.name} has not stopped after {patience:.0f} s.",
            "It will when its worker answers: modelyard status.",
        )
    return brief(str(run.id))


def update(
    key: str,
    name: str | None,
    description: str | None,
    parameters: Mapping[str, Any] = MappingProxyType({}),
) -> RunStatusView:
    """Rename or describe a run, in Prefect and in MLflow, or change its parameters.

    Raises:
        BadInputError: If the name cannot be used.
        ConflictError: If it is taken; with the code ``ExperimentDeleted`` if the run's experiment
            is deleted, whose runs MLflow does not change.
    """
    with _prefect() as client:
        run, flow = _find_with_flow(client, key)
        mlflow_run_id = _mlflow_run_id(run)
        experiment = str(run.parameters.get("experiment") or experiment_names.DEFAULT)
        if name is not None:
            names.check(name)
        if mlflow_run_id and not (name is None and description is None):
            tracking.check_experiment(experiment, str(run.id))
        # In its parameters as well: a retry would take the old ones again.
        given = {"name": name, "description": description}
        changed = {key: value for key, value in given.items() if value is not None}
        with contextlib.ExitStack() as held:
            if name is not None:
                held.enter_context(run_names.claiming(flow, name, experiment, str(run.id)))
            if mlflow_run_id:
                tracking.describe(mlflow_run_id, name, description)
            client.update_flow_run(
                run.id, name=name, parameters={**run.parameters, **changed, **parameters}
            )
    history.record(_NOUN, str(run.id), "update", **changed, **parameters)
    return brief(str(run.id))


def is_checked(key: str) -> bool:
    """Whether the run's parameters were completed when it was created, or when it began."""
    with _prefect() as client:
        return bool((run_lookup.find(client, key).labels or {}).get(CHECKED_LABEL))


def find(key: str) -> str:
    """Return the id of the run with this id, or with this name where only one has it.

    Raises:
        NotFoundError: If there is none.
        ConflictError: If several runs have the name.
    """
    with _prefect() as client:
        return str(run_lookup.find(client, key).id)


def active_blockers(run_id: str) -> list[Blocker]:
    """Return why the run may not be deleted: it is active."""
    with _prefect() as client:
        run = run_lookup.find(client, run_id)
    final = run.state and run.state.is_final()
    stop = ("runs", "stop", str(run.id))
    return [] if final else [Blocker(f"The run {run.name} is active.", stop)]


def label(run_id: str, name: str) -> str:
    """Return a label of the run; empty if it has none of that name."""
    with _prefect() as client:
        return str((run_lookup.find(client, run_id).labels or {}).get(name) or "")


def mlflow_run_id(run_id: str) -> str | None:
    """Return the run's MLflow run; None if it has none yet."""
    with _prefect() as client:
        return _mlflow_run_id(run_lookup.find(client, run_id))


def model_blockers(run_id: str) -> list[Blocker]:
    """Return why the run may not be deleted: the models that were made from it."""
    with _prefect() as client:
        run = run_lookup.find(client, run_id)
    mlflow_run_id = _mlflow_run_id(run)
    return models.blockers(f"The run {run.name}", [mlflow_run_id]) if mlflow_run_id else []


@contextlib.contextmanager
def model_lock(run_id: str) -> Iterator[None]:
    """Hold the advisory lock under which models are made of the run's artifacts."""
    with _prefect() as client:
        mlflow_run_id = _mlflow_run_id(run_lookup.find(client, run_id))
    lock = model_versions.lock_of_run(mlflow_run_id or run_id)
    with catalogue.advisory_lock(lock):
        yield


def remove(run_id: str) -> JsonObject:
    """Remove a run from MLflow, with its artifacts, and from Prefect, with its files.

    Called by :mod:`registry.deletion`, without any further check. Can be repeated after an
    interruption.
    """
    with _prefect() as client:
        run = run_lookup.find(client, run_id)
        run_removal.remove(client, run_id, _mlflow_run_id(run))
    return {"id": run_id, "name": run.name}


def remove_existing(run_ids: Iterable[str]) -> None:
    """Remove many runs; of those that Prefect no longer has, only the files."""
    with _prefect() as client:
        for run_id in run_ids:
            try:
                run = client.read_flow_run(UUID(run_id))
            except ObjectNotFound:
                run_removal.remove_files(run_id)
            else:
                run_removal.remove(client, run_id, _mlflow_run_id(run))
