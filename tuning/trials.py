"""A trial of a tuning: one point of the search space, tried by one training."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tuning.space import Point


class TrialState(StrEnum):
    """The reference's words for a trial.

    Attributes:
        CREATED: Its point is chosen, and its script has not started.
        RUNNING: Its script runs.
        SUCCEEDED: Its script exited with 0 and reported every objective.
        KILLED: It was stopped with its tuning, or when the tuning's end was decided.
        FAILED: Its script failed, or exceeded `trial_max_minutes`; `reason` says more.
        METRICS_UNAVAILABLE: Its script exited with 0 without a finite value of an objective or
            of a constrained metric; that counts as a failure.
        EARLY_STOPPED: Early stopping ended it; its values count.
    """

    CREATED = "CREATED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    KILLED = "KILLED"
    FAILED = "FAILED"
    METRICS_UNAVAILABLE = "METRICS_UNAVAILABLE"
    EARLY_STOPPED = "EARLY_STOPPED"


ACTIVE = frozenset({TrialState.CREATED, TrialState.RUNNING})
FAILURES = frozenset({TrialState.FAILED, TrialState.METRICS_UNAVAILABLE})

# What these have observed counts: they can be the best, and the search learns from them.
OBSERVED = frozenset({TrialState.SUCCEEDED, TrialState.EARLY_STOPPED})


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes:
        number: Its number, from 0 in the order of creation.
        parameters: The point that it tries, in the order of the space.
        state: Its state.
        values: The value of each objective, in their order; None while there is not a finite one
            for each.
        reports: What the first objective was, report by report; NaN and infinities among them.
        violations: By how much each constraint is violated, in their order; at most 0 if it holds.
        reason: Why it ended, where that is not plain; "" otherwise.
        mlflow_run_id: Its MLflow run, once it has one.
        flow_run_id: Its own flow run, where it has one.
        attempts: How often it was begun.
        losses: How often what ran it died before it had ended.
        created: When it was created, in seconds since 1970.
        started: When its script was started first, likewise; None before.
        ended: When it ended, likewise; None before.
    """

    number: int
    parameters: Point
    state: TrialState
    values: tuple[float, ...] | None = None
    reports: tuple[float, ...] = ()
    violations: tuple[float, ...] = ()
    reason: str = ""
    mlflow_run_id: str | None = None
    flow_run_id: str | None = None
    attempts: int = 1
    losses: int = 0
    created: float = 0.0
    started: float | None = None
    ended: float | None = None

    @property
    def feasible(self) -> bool:
        """Whether every constraint holds."""
        return all(violation <= 0 for violation in self.violations)
