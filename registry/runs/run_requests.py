"""What is asked of a run in passing, without waiting for what comes of it."""

from __future__ import annotations

import contextlib
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import AwaitingRetry, Cancelled, Cancelling


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
            if not _claimed(client, found):
                return
        # It has begun, perhaps just now, so that somebody has to end its process.
        client.set_flow_run_state(found, Cancelling(message="Stopping."), force=True)


def _claimed(client: SyncPrefectClient, run: UUID) -> bool:
    """Whether a worker had taken a run before it was cancelled, and so may run it all the same."""
    types = [state.type for state in client.read_flow_run_states(run)]  # in their order
    before = types[: -1 - types[::-1].index(StateType.CANCELLED)]
    return bool(before) and before[-1] != StateType.SCHEDULED


def go_on(run_id: str) -> None:
    """Run again a run that failed or was stopped; it resumes from its checkpoints."""
    found = UUID(run_id)
    with get_client(sync_client=True) as client, contextlib.suppress(ObjectNotFound):
        state = client.read_flow_run(found).state
        if state and state.is_final() and not state.is_completed():
            client.set_flow_run_state(found, AwaitingRetry(message="Again."), force=True)
