"""Records of runs' attempts, which the worker and the reconciler share.

They are not labels of the run in Prefect: writing one label rewrites all of them, so of two
concurrent writes one is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

# Exit status of a pod that refuses its run for a reason that a retry would meet, too.
REFUSED = 78  # EX_CONFIG


@dataclass(frozen=True)
class AttemptRecord:
    """Record of a run's newest attempt.

    Attributes:
        number: Its number, from 1; 0 before the first.
        waiting: Why it waits, for people; "" if it does not.
        state_id: The id of the run's state for which it was begun; "" before the first.
        failures: The number of attempts directly before it that failed to start and were
            retried.
        queued_at: When the first of those attempts was begun; the time in a queue counts from
            there.
    """

    number: int = 0
    waiting: str = ""
    state_id: str = ""
    failures: int = 0
    queued_at: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True)
class AttemptRetry:
    """Decision to replace an attempt by another one.

    Attributes:
        reason: Why, for people.
        failures: The number of attempts in a row that failed to start, with this one.
    """

    reason: str
    failures: int


class AttemptStore(Protocol):
    """Store of attempts, consistent across processes."""

    def begin(self, flow_run_id: str, state_id: str) -> int:
        """Begin the next attempt of a run, which waits for nothing yet; return its number."""

    def newest(self, flow_run_ids: Iterable[str]) -> Mapping[str, AttemptRecord]:
        """Return the newest attempts by run, of the runs that have any."""

    def retry(self, flow_run_id: str, attempt: int, retry: AttemptRetry) -> None:
        """Record that an attempt is to be replaced by another one."""

    def record_waiting(self, flow_run_id: str, attempt: int, waiting: str) -> None:
        """Record why an attempt waits, for people; "" if it does not."""
