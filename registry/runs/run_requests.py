"""Requests to stop or resume a run, without waiting for their effect."""

from __future__ import annotations

import contextlib
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import AwaitingRetry, Cancelled, Cancelling

from infra.prefect_client import prefect_client


def request_stop(run_id: str) -> None:
    """Request the end of a run; no effect on one that has ended or was deleted."""
    found = UUID(run_id)
    with prefect_client() as client, contextlib.suppress(ObjectNotFound):
        run = client.read_flow_run(found)
        state = run.state
        if state and (state.is_final() or state.type == StateType.CANCELLING):
            return
        if state is None or state.type == StateType.SCHEDULED:
            client.set_flow_run_state(found, Cancelled(message="Stopped."))
            if not _claimed(client, found):
                return
        # It may have just started, so its worker has to stop the process.
        client.set_flow_run_state(found, Cancelling(message="Stopping."), force=True)


def _claimed(client: SyncPrefectClient, run: UUID) -> bool:
    """Whether a worker had claimed a run before it was cancelled, and so may still run it."""
    types = [state.type for state in client.read_flow_run_states(run)]  # in their order
    before = types[: -1 - types[::-1].index(StateType.CANCELLED)]
    return bool(before) and before[-1] != StateType.SCHEDULED


def resume(run_id: str) -> None:
    """Run a failed or stopped run again; it resumes from its checkpoints."""
    found = UUID(run_id)
    with prefect_client() as client, contextlib.suppress(ObjectNotFound):
        state = client.read_flow_run(found).state
        if state and state.is_final() and not state.is_completed():
            client.set_flow_run_state(found, AwaitingRetry(message="Again."), force=True)
