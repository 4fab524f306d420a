"""Completion of a tuning: its outcome, and how many trials it may start. Pure.

The conditions are checked in Katib's order: goal, failures, maximum. Unlike Katib's, trials
without a metric count toward the maximum, so there are never more trials than that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from tuning.trials import ACTIVE, FAILURES, TrialState


class TuningOutcome(StrEnum):
    """Outcome of a tuning; the values are the reference's bracketed words.

    Attributes:
        GOAL_REACHED: A trial has reached the objective's `goal`.
        MAX_TRIALS_REACHED: `max_trials` trials have ended, in any state.
        SUGGESTION_END_REACHED: Every point of the space was tried.
        FAILED: `max_failed_trials` trials failed: the run is not COMPLETE.
    """

    GOAL_REACHED = "GoalReached"
    MAX_TRIALS_REACHED = "MaxTrialsReached"
    SUGGESTION_END_REACHED = "SuggestionEndReached"
    FAILED = "FailHyperparameterTuning"


@dataclass(frozen=True)
class TuningLimits:
    """Limits of a tuning.

    Attributes:
        max_trials: The maximum number of trials; None for as many as the strategy has.
        max_failed_trials: The N-th failure fails the tuning, the first if it is 0; None for
            never.
        parallel_trials: The maximum number of concurrent trials.
    """

    max_trials: int | None
    max_failed_trials: int | None
    parallel_trials: int


@dataclass(frozen=True)
class TuningDecision:
    """Decision what to do next.

    Attributes:
        outcome: The tuning's outcome; None if it continues.
        start: The number of trials that may be started now.
    """

    outcome: TuningOutcome | None
    start: int


def decide(
    counts: Mapping[TrialState, int], limits: TuningLimits, *, goal_reached: bool, exhausted: bool
) -> TuningDecision:
    """Decide what a tuning with so many trials in each state does next.

    Args:
        counts: Trials by state; a state that is missing has none.
        limits: The tuning's limits.
        goal_reached: Whether a finished trial has reached the goal.
        exhausted: Whether the strategy has no further point.
    """
    active = sum(counts.get(state, 0) for state in ACTIVE)
    started = sum(counts.values())
    failures = sum(counts.get(state, 0) for state in FAILURES)
    if goal_reached:
        return TuningDecision(TuningOutcome.GOAL_REACHED, 0)
    if limits.max_failed_trials is not None and failures >= max(limits.max_failed_trials, 1):
        return TuningDecision(TuningOutcome.FAILED, 0)
    if limits.max_trials is not None and started - active >= limits.max_trials:
        return TuningDecision(TuningOutcome.MAX_TRIALS_REACHED, 0)
    if exhausted:
        return TuningDecision(None if active else TuningOutcome.SUGGESTION_END_REACHED, 0)
    room = limits.parallel_trials - active
    left = room if limits.max_trials is None else limits.max_trials - started
    return TuningDecision(None, max(0, min(room, left)))
