"""The state that a run gets when its process has ended without giving it one."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import State, StateType
from prefect.states import Crashed, Failed, Scheduled

from infra.state_details import CREATE_FAILED, annotate

# A run is queued again so many times at most, each time after a longer wait.
STARTS = 5
_FIRST_WAIT = timedelta(seconds=1)
_QUEUED_AGAIN = "Queued again: its process ended before the run began."


def crashed_state(flow_run_id: UUID, reason: str) -> State[Any]:
    """The end of a run whose process ended after it had begun."""
    return Crashed(
        message=f"{reason} A retry resumes from the newest checkpoint: "
        f"modelyard runs retry {flow_run_id}"
    )


def retry_state(history: list[State[Any]], reason: str, now: datetime) -> State[Any]:
    """The state of a run whose process ended before the run began.

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
