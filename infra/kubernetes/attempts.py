"""A run's attempts, as the worker and the reconciler ask and tell of them.

Neither is kept in the run's labels in Prefect: a label is written by reading all of them and
writing all of them, so that of two who write at a time one is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

# The exit status of a pod that refuses its run for a reason that another attempt would meet, too.
REFUSED = 78  # EX_CONFIG


@dataclass(frozen=True)
class Attempt:
    """A run's newest attempt.

    Attributes:
        number: Its number, from 1; 0 before the first.
        waiting: What it waits for, in words; "" if for nothing.
        state_id: The state of the run for which it was begun; "" before the first.
        failures: How many attempts before it, in a row, failed to start and were tried again.
        queued_at: When the first of the attempts was begun of which each was tried again by
            itself; a queue's time counts from there.
    """

    number: int = 0
    waiting: str = ""
    state_id: str = ""
    failures: int = 0
    queued_at: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Retry:
    """That an attempt is given up for another one.

    Attributes:
        reason: Why, in words.
        failures: How many attempts in a row failed to start, with this one.
    """

    reason: str
    failures: int


class Attempts(Protocol):
    """Where attempts are kept; its answers hold for all processes."""

    def begin(self, flow_run_id: str, state_id: str) -> int:
        """Begin the next attempt, of a run in a state, that waits for nothing yet; its number."""

    def newest(self, flow_run_ids: Iterable[str]) -> Mapping[str, Attempt]:
        """The newest attempts of runs, by run; without those that have none."""

    def retry(self, flow_run_id: str, attempt: int, retry: Retry) -> None:
        """Record that an attempt is given up for another one, which is yet to begin."""

    def tell_waiting(self, flow_run_id: str, attempt: int, waiting: str) -> None:
        """Tell what an attempt waits for, in words; "" if for nothing."""
