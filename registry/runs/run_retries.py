"""Retries of runs that failed or were stopped, under their ids."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from prefect.states import AwaitingRetry

from infra.errors import ConflictError
from infra.prefect_client import prefect_client
from registry import experiment_names, history, tracking
from registry.runs import run_tags, runs
from registry.runs.run_views import RunStatusView, RunView

_NOUN = "run"


def retry(key: str) -> RunStatusView:
    """Run a failed or stopped run again under its id; it resumes from its checkpoints.

    Raises:
        ConflictError: If it is active or complete, or was called in a process of its own; if its
            pipeline was deleted, with the code ``DeploymentGone``, or its pool, with ``PoolGone``,
            or its experiment, with ``ExperimentDeleted``.
    """
    with _made_due(key) as (client, run, _):
        if run.deployment_id is None:
            raise ConflictError(
                f"The run {run.name} was called in a Python process, so no pool can retry it.",
                f"Run a copy in a pool: modelyard runs copy {run.id}. Or retry it in Python, with "
                "its flow's retry, such as train.retry.",
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
        _check_experiment(run)
    return runs.brief(str(run.id))


def reopen(flow: str, key: str) -> FlowRun:
    """Make a call of ``flow`` that failed or was stopped due again, for the caller's process.

    Raises:
        ConflictError: If it is active or complete, of another flow, or its pool's to retry; if its
            experiment was deleted, with the code ``ExperimentDeleted``.
    """
    with _made_due(key) as (_, run, of_flow):
        if of_flow != flow or run.deployment_id is not None:
            raise ConflictError(
                f"The run {run.name} is not a call of {flow} in a Python process.",
                f"If its pool runs it: modelyard runs retry {run.id}.",
            )
        _check_experiment(run)
    return run


def _check_experiment(run: FlowRun) -> None:
    """Refuse a run whose experiment is deleted, while its state still tells how it ended."""
    named = str(run.parameters.get("experiment") or experiment_names.DEFAULT)
    tracking.check_experiment(named, str(run.id))


@contextlib.contextmanager
def _made_due(key: str) -> Iterator[tuple[SyncPrefectClient, FlowRun, str]]:
    """Make a run due again, unless the block refuses; yields it, and its flow's name."""
    run_id = UUID(runs.find(key))
    with prefect_client() as client:
        run = client.read_flow_run(run_id)
        flow = client.read_flow(run.flow_id).name
        word = RunView.from_flow_run(run, flow).state
        if run.state is None or not run.state.is_final() or run.state.is_completed():
            raise ConflictError(
                f"The run {run.name} is {word}.",
                "Only a run that failed or was stopped can be retried; copy it to run it again.",
            )
        yield client, run, flow
        client.update_flow_run(run_id, tags=run_tags.not_opened(run.tags))
        client.set_flow_run_state(run_id, AwaitingRetry(message="Retried."), force=True)
    history.record(_NOUN, str(run_id), "retry", was=word)
