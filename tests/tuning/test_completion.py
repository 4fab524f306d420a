from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.tuning import facts
from tuning.completion import TuningDecision, TuningLimits, TuningOutcome, decide
from tuning.trials import ACTIVE, TrialState

_CASES = facts.load("tuning_status")["cases"]

_STATES = {
    "succ": TrialState.SUCCEEDED,
    "failed": TrialState.FAILED,
    "killed": TrialState.KILLED,
    "es": TrialState.EARLY_STOPPED,
    "mu": TrialState.METRICS_UNAVAILABLE,
    "run": TrialState.RUNNING,
}
_ENDINGS = {
    "Running/ExperimentRunning": None,
    "Succeeded/ExperimentGoalReached": TuningOutcome.GOAL_REACHED,
    "Succeeded/ExperimentMaxTrialsReached": TuningOutcome.MAX_TRIALS_REACHED,
    "Failed/ExperimentFailed": TuningOutcome.FAILED,
}

# Of 10 trials 9 are there already, three of them without a metric. Katib does not count those when
# it starts new ones, and ends up with 11; here there are never more than the maximum.
_OVERSHOOT = "metricsUnavailable overshoot: controller starts trials beyond maxTrialCount"

COUNTS = st.dictionaries(st.sampled_from(TrialState), st.integers(0, 30))
LIMITS = st.builds(
    TuningLimits,
    max_trials=st.none() | st.integers(1, 40),
    max_failed_trials=st.none() | st.integers(0, 10),
    parallel_trials=st.integers(1, 10),
)


def _judge(
    counts: dict[TrialState, int],
    max_trials: int | None = 12,
    max_failed_trials: int | None = 3,
    parallel_trials: int = 3,
    goal_reached: bool = False,
    exhausted: bool = False,
) -> TuningDecision:
    limits = TuningLimits(max_trials, max_failed_trials, parallel_trials)
    return decide(counts, limits, goal_reached=goal_reached, exhausted=exhausted)


@pytest.mark.parametrize("case", _CASES, ids=lambda case: str(case["note"]))
def test_katibs_cases(case: dict[str, Any]) -> None:
    given = case["input"]

    decision = _judge(
        {state: given.get(word, 0) for word, state in _STATES.items()},
        given["maxt"],
        given.get("maxf"),
        given.get("par", 3),
        given.get("goal", False),
    )

    started = 1 if case["note"] == _OVERSHOOT else case["create_trials"]
    assert decision == TuningDecision(_ENDINGS[case["condition"]], started)


def test_the_case_that_differs_is_one_of_the_cases() -> None:
    (case,) = [case for case in _CASES if case["note"] == _OVERSHOOT]

    assert case["create_trials"] == 2


class TestFailures:
    @pytest.mark.parametrize(
        ("limit", "failures", "fails"),
        [
            (None, 11, False),
            (0, 0, False),
            (0, 1, True),
            (1, 0, False),
            (1, 1, True),
            (3, 2, False),
            (3, 3, True),
            (3, 4, True),
        ],
    )
    @pytest.mark.parametrize("state", [TrialState.FAILED, TrialState.METRICS_UNAVAILABLE])
    def test_the_nth_fails_the_tuning(
        self, limit: int | None, failures: int, fails: bool, state: TrialState
    ) -> None:
        decision = _judge({state: failures}, max_failed_trials=limit)

        assert (decision.outcome is TuningOutcome.FAILED) == fails

    def test_both_kinds_count_together(self) -> None:
        counts = {TrialState.FAILED: 1, TrialState.METRICS_UNAVAILABLE: 1}

        assert _judge(counts, max_failed_trials=2).outcome is TuningOutcome.FAILED

    @pytest.mark.parametrize("state", [TrialState.KILLED, TrialState.EARLY_STOPPED])
    def test_what_was_stopped_is_no_failure(self, state: TrialState) -> None:
        assert _judge({state: 11}, max_failed_trials=1) == TuningDecision(None, 1)

    def test_without_a_limit_a_tuning_of_failures_reaches_its_maximum(self) -> None:
        decision = _judge({TrialState.FAILED: 12}, max_failed_trials=None)

        assert decision.outcome is TuningOutcome.MAX_TRIALS_REACHED


class TestOrder:
    """What is asked first wins: goal, failures, maximum, and only then the end of the points."""

    @pytest.mark.parametrize(
        ("counts", "goal", "ending"),
        [
            ({TrialState.FAILED: 3, TrialState.SUCCEEDED: 9}, True, TuningOutcome.GOAL_REACHED),
            ({TrialState.FAILED: 3, TrialState.SUCCEEDED: 9}, False, TuningOutcome.FAILED),
            (
                {TrialState.FAILED: 2, TrialState.SUCCEEDED: 10},
                False,
                TuningOutcome.MAX_TRIALS_REACHED,
            ),
            ({TrialState.SUCCEEDED: 11}, False, TuningOutcome.SUGGESTION_END_REACHED),
        ],
    )
    def test_of_the_endings(
        self, counts: dict[TrialState, int], goal: bool, ending: TuningOutcome
    ) -> None:
        assert _judge(counts, goal_reached=goal, exhausted=True) == TuningDecision(ending, 0)


class TestEndOfThePoints:
    def test_waits_for_the_trials_that_go_on(self) -> None:
        counts = {TrialState.SUCCEEDED: 4, TrialState.RUNNING: 1}

        assert _judge(counts, exhausted=True) == TuningDecision(None, 0)

    def test_ends_a_tuning_without_a_maximum(self) -> None:
        decision = _judge({TrialState.KILLED: 4}, max_trials=None, exhausted=True)

        assert decision.outcome is TuningOutcome.SUGGESTION_END_REACHED


class TestStarting:
    def test_a_created_trial_takes_a_place(self) -> None:
        counts = {TrialState.CREATED: 1, TrialState.RUNNING: 1}

        assert _judge(counts) == TuningDecision(None, 1)

    def test_fewer_in_parallel_than_go_on_starts_none_and_ends_none(self) -> None:
        counts = {TrialState.RUNNING: 5}

        assert _judge(counts, parallel_trials=2) == TuningDecision(None, 0)

    def test_a_maximum_below_what_was_started_waits_for_the_running_ones(self) -> None:
        running = {TrialState.SUCCEEDED: 4, TrialState.RUNNING: 2}
        ended = {TrialState.SUCCEEDED: 5, TrialState.RUNNING: 1}

        assert _judge(running, max_trials=5) == TuningDecision(None, 0)
        assert _judge(ended, max_trials=5) == TuningDecision(TuningOutcome.MAX_TRIALS_REACHED, 0)

    def test_without_a_maximum_there_is_always_room(self) -> None:
        assert _judge({TrialState.SUCCEEDED: 10**6}, max_trials=None) == TuningDecision(None, 3)


@given(counts=COUNTS, limits=LIMITS, goal=st.booleans(), exhausted=st.booleans())
@settings(database=None, deadline=None)
def test_never_more_than_allowed(
    counts: dict[TrialState, int], limits: TuningLimits, goal: bool, exhausted: bool
) -> None:
    decision = decide(counts, limits, goal_reached=goal, exhausted=exhausted)

    active = sum(counts.get(state, 0) for state in ACTIVE)
    assert decision.start >= 0
    if decision.start:
        assert decision.outcome is None
        assert not exhausted
        assert active + decision.start <= limits.parallel_trials
        assert limits.max_trials is None or (
            sum(counts.values()) + decision.start <= limits.max_trials
        )


@given(counts=COUNTS, limits=LIMITS)
@settings(database=None, deadline=None)
def test_a_tuning_never_waits_for_nothing(
    counts: dict[TrialState, int], limits: TuningLimits
) -> None:
    assume(not any(counts.get(state) for state in ACTIVE))

    decision = decide(counts, limits, goal_reached=False, exhausted=False)

    assert decision.outcome is not None or decision.start > 0


_ENDED = sorted(set(TrialState) - ACTIVE)


@given(data=st.data(), limits=LIMITS, points=st.integers(0, 60))
@settings(database=None, deadline=None)
def test_histories(data: st.DataObject, limits: TuningLimits, points: int) -> None:
    """Start, end and change the parallelism at random until the end, which always comes."""
    counts: Counter[TrialState] = Counter()
    for _ in range(1000):
        exhausted = counts.total() >= points
        decision = decide(counts, limits, goal_reached=False, exhausted=exhausted)
        if decision.outcome is not None:
            break
        before = counts[TrialState.RUNNING]
        started = min(decision.start, points - counts.total())
        counts[TrialState.RUNNING] += started
        assert counts[TrialState.RUNNING] <= max(before, limits.parallel_trials)
        assert counts[TrialState.RUNNING] > 0
        counts[TrialState.RUNNING] -= 1
        counts[data.draw(st.sampled_from(_ENDED))] += 1
        parallel = data.draw(st.integers(1, 10))
        limits = TuningLimits(limits.max_trials, limits.max_failed_trials, parallel)
    else:
        pytest.fail("there is no end")
    assert limits.max_trials is None or counts.total() <= limits.max_trials
    assert counts.total() <= points
    if decision.outcome is not TuningOutcome.FAILED:
        assert counts.total() == min(points, limits.max_trials or points)
