"""When a tuning ends and as what, and how many trials it may start: a pure function of counts.

The order of the questions is Katib's: goal, failures, maximum. Unlike Katib's, trials without a
metric use up the maximum as well, so there are never more trials than that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from tuning.trials import ACTIVE, FAILURES, TrialState


class Ending(StrEnum):
    """How a tuning ends by itself; the values are the reference's bracketed words."""

    GOAL_REACHED = "GoalReached"
    MAX_TRIALS_REACHED = "MaxTrialsReached"
    SUGGESTION_END_REACHED = "SuggestionEndReached"
    FAILED = "FailHyperparameterTuning"


@dataclass(frozen=True)
class Limits:
    """What a tuning may use.

    Attributes:
        max_trials: How many trials there are at most; None for as many as the strategy has.
        max_failed_trials: The failure that fails the tuning: its N-th, and the first if it is 0;
            None for never.
        parallel_trials: How many trials go on at once at most.
    """

    max_trials: int | None
    max_failed_trials: int | None
    parallel_trials: int


@dataclass(frozen=True)
class Verdict:
    """What comes next.

    Attributes:
        ending: How the tuning ends now; None if it goes on.
        start: How many trials may be started now.
    """

    ending: Ending | None
    start: int


def judge(
    counts: Mapping[TrialState, int], limits: Limits, *, goal_reached: bool, exhausted: bool
) -> Verdict:
    """What comes next for a tuning with so many trials in each state.

    Args:
        counts: Trials by state; a state that is missing has none.
        limits: What it may use.
        goal_reached: Whether a finished trial has reached the goal.
        exhausted: Whether the strategy has no further point.
    """
    active = sum(counts.get(state, 0) for state in ACTIVE)
    started = sum(counts.values())
    failures = sum(counts.get(state, 0) for state in FAILURES)
    if goal_reached:
        return Verdict(Ending.GOAL_REACHED, 0)
    if limits.max_failed_trials is not None and failures >= max(limits.max_failed_trials, 1):
        return Verdict(Ending.FAILED, 0)
    if limits.max_trials is not None and started - active >= limits.max_trials:
        return Verdict(Ending.MAX_TRIALS_REACHED, 0)
    if exhausted:
        return Verdict(None if active else Ending.SUGGESTION_END_REACHED, 0)
    room = limits.parallel_trials - active
    left = room if limits.max_trials is None else limits.max_trials - started
    return Verdict(None, max(0, min(room, left)))
