"""What is told of a run on a cluster by its labels in Prefect."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # those who only want the names do without Prefect's seconds of imports
    from prefect.client.schemas.objects import FlowRun

ATTEMPT = "modelyard.attempt"  # the number of its newest attempt
WAITING = "modelyard.waiting"  # what it waits for, in words; "" once it does not


def attempt_of(run: FlowRun) -> int:
    """The number of the run's newest attempt; 0 before the first."""
    return int((run.labels or {}).get(ATTEMPT) or 0)
