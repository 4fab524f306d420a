"""Next state of a run whose process ended without setting a final one."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import State, StateType
from prefect.states import Crashed, Failed, Scheduled

from infra.state_details import CREATE_FAILED, annotate

# The maximum number of starts; each retry waits longer.
STARTS = 5
_FIRST_WAIT = timedelta(seconds=1)
_QUEUED_AGAIN = "Queued again: its process ended before the run began."


def crashed_state(flow_run_id: UUID | str, reason: str) -> State[Any]:
    """Build the Crashed state of a run whose process ended after the run had begun."""
    return Crashed(
        message=f"{reason} A retry resumes from the newest checkpoint: "
        f"modelyard runs retry {flow_run_id}"
    )


def retry_state(history: list[State[Any]], reason: str, now: datetime) -> State[Any]:
    """Build the next state of a run whose process ended before the run began.

    Args:
        history: Every state of the run, oldest first.
        reason: Why its process ended.
        now: The present time.
    """
    tries = 1
    for state in reversed(history):
        if state.type == StateType.SCHEDULED and not _is_retry(state):
            break
        tries += _is_retry(state)
    if tries < STARTS:
        at = now + _FIRST_WAIT * 4 ** (tries - 1)
        return Scheduled(scheduled_time=at, message=f"{_QUEUED_AGAIN} {reason}")
    name, message = annotate(
        "FAILED", CREATE_FAILED,
        f"NotBegun: The run's process ended {tries} times before the run began. The last time: "
        f"{reason} See worker.log in the home's folder logs.",
    )  # fmt: skip
    return Failed(name=name, message=message)


def _is_retry(state: State[Any]) -> bool:
    return (state.message or "").startswith(_QUEUED_AGAIN)
