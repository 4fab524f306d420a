"""A run's attempts, as the worker and the reconciler ask and tell of them.

Neither is kept in the run's labels in Prefect: a label is written by reading all of them and
writing all of them, so that of two who write at a time one is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Attempt:
    """A run's newest attempt.

    Attributes:
        number: Its number, from 1; 0 before the first.
        waiting: What it waits for, in words; "" if for nothing.
        state_id: The state of the run for which it was begun; "" before the first.
    """

    number: int = 0
    waiting: str = ""
    state_id: str = ""


class Attempts(Protocol):
    """Where attempts are kept; its answers hold for all processes."""

    def begin(self, flow_run_id: str, state_id: str) -> int:
        """Begin the next attempt, of a run in a state, that waits for nothing yet; its number."""

    def newest(self, flow_run_ids: Iterable[str]) -> Mapping[str, Attempt]:
        """The newest attempts of runs, by run; without those that have none."""

    def tell_waiting(self, flow_run_id: str, attempt: int, waiting: str) -> None:
        """Tell what an attempt waits for, in words; "" if for nothing."""
