"""What is told of a run on a cluster by its labels in Prefect."""

from __future__ import annotations

from prefect.client.schemas.objects import FlowRun

ATTEMPT = "modelyard.attempt"
WAITING = "modelyard.waiting"


def attempt_of(run: FlowRun) -> int:
    """The number of the run's newest attempt; 0 before the first."""
    return int((run.labels or {}).get(ATTEMPT) or 0)
