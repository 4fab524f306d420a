from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.tuning import facts
from tests.tuning.rules import DIRECTIONS, ENDED, OF_BRACKET, REPORTS, live, tell
from tuning.early_stopping import (
    EarlyStopping,
    Hyperband,
    MedianRule,
    StoppingRule,
    SuccessiveHalving,
    bracket_of,
)
from tuning.objectives import Direction
from tuning.trials import TrialState

_PROPERTY = settings(database=None, deadline=None)
_VECTORS = facts.load("median_stopping")
_NAN, _INF = math.nan, math.inf
_STOPPED = TrialState.EARLY_STOPPED


def naive(
    direction: Direction,
    completed: Sequence[Sequence[float]],
    running: Sequence[float],
    min_trials: int,
    start_step: int,
) -> int | None:
    """The documented rule, word for word."""
    for step in range(start_step, len(running) + 1):
        averages = []
        for reports in completed:
            finite = [value for value in reports[:step] if math.isfinite(value)]
            if finite:
                averages.append(statistics.mean(finite))
        if len(averages) < min_trials:
            continue
        own = [value for value in running[:step] if math.isfinite(value)]
        median = statistics.median(averages)
        if not own:
            return step
        if direction == "minimize" and min(own) > median:
            return step
        if direction == "maximize" and max(own) < median:
            return step
    return None


_WIDE = st.lists(st.floats(-1e150, 1e150) | st.sampled_from([0.1, 0.3, _NAN, _INF]), max_size=12)


class TestMedianRule:
    @pytest.mark.parametrize("case", _VECTORS["cases"], ids=lambda case: str(case["name"]))
    def test_the_documented_stops(self, case: dict[str, Any]) -> None:
        rule = MedianRule(case["direction"], case["min_trials_required"], case["start_step"])
        for reports in case["completed"]:
            rule.complete(reports)

        assert live(rule, 0, case["running"]) == case["documented_stop_at"]

    @given(
        direction=DIRECTIONS, completed=st.lists(_WIDE, max_size=7), running=_WIDE,
        min_trials=st.integers(1, 4), start_step=st.integers(1, 6),
    )  # fmt: skip
    @settings(database=None, deadline=None, max_examples=300)
    def test_is_the_documented_one(
        self,
        direction: Direction,
        completed: list[list[float]],
        running: list[float],
        min_trials: int,
        start_step: int,
    ) -> None:
        rule = MedianRule(direction, min_trials, start_step)
        for reports in completed:
            rule.complete(reports)

        expected = naive(direction, completed, running, min_trials, start_step)

        assert live(rule, 0, running) == expected

    @given(trials=st.lists(st.tuples(REPORTS, st.sampled_from(ENDED)), max_size=8), own=REPORTS)
    @_PROPERTY
    def test_goes_by_succeeded_trials_only(
        self, trials: list[tuple[list[float], TrialState]], own: list[float]
    ) -> None:
        rule, other = MedianRule("minimize", 1, 1), MedianRule("minimize", 1, 1)
        for number, (reports, state) in enumerate(trials):
            rule.ended(number, state, reports)
            if state is TrialState.SUCCEEDED:
                other.complete(reports)

        assert live(rule, 99, own) == live(other, 99, own)

    @given(
        completed=st.lists(
            st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=15), min_size=1, max_size=7
        ),
        gains=st.lists(st.floats(0, 10), min_size=15, max_size=15),
    )
    @_PROPERTY
    def test_who_leads_all_the_way_is_never_stopped(
        self, completed: list[list[float]], gains: list[float]
    ) -> None:
        """Of the trials that lead in the end only those that fall behind before can be stopped."""
        rule = MedianRule("maximize", 1, 1)
        for reports in completed:
            rule.complete(reports)
        lead = [
            max(value for reports in completed for value in reports[: step + 1])
            for step in range(15)
        ]

        assert live(rule, 0, [best + gain for best, gain in zip(lead, gains, strict=True)]) is None

    @given(
        heights=st.lists(st.integers(-50, 50), min_size=4, max_size=12, unique=True),
        curve=st.lists(st.integers(0, 9), min_size=1, max_size=12),
    )
    @_PROPERTY
    def test_where_no_curves_cross_the_best_trial_is_never_stopped(
        self, heights: list[int], curve: list[int]
    ) -> None:
        """One after another, each lower or higher than the others all along."""
        falling = list(itertools.accumulate(curve, lambda level, fall: level - fall, initial=0))
        rule = MedianRule("minimize", 3, 2)
        stopped = set()
        for number, height in enumerate(heights):
            reports = [float(height + level) for level in falling]
            stop = live(rule, number, reports)
            if stop is not None:
                stopped.add(height)
            rule.ended(number, _STOPPED if stop else TrialState.SUCCEEDED, reports[:stop])

        assert min(heights) not in stopped

    def test_is_judged_by_trials_that_completed_meanwhile(self) -> None:
        rule = MedianRule("minimize", 1, 1)
        reports = [5.0]
        assert not rule.stops(0, reports)

        tell(rule, [[1.0]])
        assert rule.stops(0, reports)

        tell(rule, [[9.0], [9.0]], first=200)
        assert not rule.stops(0, reports)

    def test_a_trial_without_a_value_by_then_is_not_counted(self) -> None:
        rule = MedianRule("minimize", 2, 1)
        tell(rule, [[1.0, 1.0, 1.0], [_NAN, _NAN, 1.0], []])

        assert live(rule, 0, [9.0, 9.0, 9.0]) == 3


class TestSuccessiveHalving:
    def test_judges_at_the_rungs_only(self) -> None:
        rule = SuccessiveHalving("minimize", 1, 2)
        tell(rule, [[1.0] * 100] * 9)

        judged = [rule.stops(0, [9.0] * count) for count in range(1, 100)]

        assert [count for count, stops in enumerate(judged, 1) if stops] == [2, 6, 18, 54]

    def test_keeps_the_best_third_of_those_that_are_there(self) -> None:
        rule = SuccessiveHalving("minimize", 3, 4)
        stops = [live(rule, number, [float(number)] * 4) for number in range(9)]

        # Of the first two there are too few to judge; then there is always one that is better.
        assert stops == [None, None, *[4] * 7]

        rule = SuccessiveHalving("minimize", 3, 4)
        stops = [live(rule, 9 - number, [-float(number)] * 4) for number in range(9)]

        assert stops == [None] * 9  # each is the best when it comes

        assert live(rule, 20, [-5.5] * 4) == 4  # the fourth of ten
        assert live(rule, 21, [-6.5] * 4) is None  # the third of eleven

    def test_goes_by_the_best_value_by_then(self) -> None:
        rule = SuccessiveHalving("minimize", 1, 2)
        tell(rule, [[3.0, 1.0, 0.0], [2.0, 5.0, 0.0]])

        assert live(rule, 0, [1.5, 9.0]) == 2
        assert live(rule, 1, [1.0, 9.0]) is None

    @pytest.mark.parametrize("state", ENDED)
    def test_every_trial_that_was_there_counts(self, state: TrialState) -> None:
        rule = SuccessiveHalving("minimize", 2, 2)
        rule.ended(0, state, [1.0, 1.0])

        assert live(rule, 1, [2.0, 2.0]) == 2

    def test_a_running_trial_counts(self) -> None:
        rule = SuccessiveHalving("minimize", 2, 2)
        assert live(rule, 0, [1.0, 1.0, 1.0]) is None

        assert live(rule, 1, [2.0, 2.0]) == 2

    def test_who_has_not_come_so_far_does_not_count(self) -> None:
        rule = SuccessiveHalving("minimize", 2, 2)
        tell(rule, [[1.0]] * 9)

        assert live(rule, 0, [2.0, 2.0]) is None

    def test_is_judged_when_it_comes_and_not_again(self) -> None:
        rule = SuccessiveHalving("minimize", 1, 2)
        assert not rule.stops(0, [5.0, 5.0])
        tell(rule, [[1.0, 1.0]] * 9)

        assert not rule.stops(0, [5.0, 5.0, 5.0])

    @given(
        trials=st.lists(
            st.lists(st.integers(0, 5), min_size=1, max_size=20), min_size=1, max_size=12
        ),
        start_step=st.integers(1, 4),
        direction=DIRECTIONS,
        data=st.data(),
    )
    @settings(database=None, deadline=None, max_examples=50)
    def test_agrees_with_optunas_where_they_mean_the_same(
        self,
        trials: list[list[int]],
        start_step: int,
        direction: Direction,
        data: st.DataObject,
    ) -> None:
        """Optuna's goes by the value at the rung: the best by then where no report is a worse one.

        It judges from the first trial on. Any number of trials run at a time.
        """
        pruner = optuna.pruners.SuccessiveHalvingPruner(
            min_resource=start_step, reduction_factor=3, min_early_stopping_rate=0
        )
        study = optuna.create_study(direction=direction, pruner=pruner)
        rule = SuccessiveHalving(direction, 1, start_step)
        sign = 1 if direction == "minimize" else -1
        curves = [
            [-sign * float(sum(gains[: n + 1])) for n in range(len(gains))] for gains in trials
        ]
        theirs = [study.ask() for _ in trials]
        reported: dict[int, list[float]] = {number: [] for number in range(len(trials))}
        while reported:
            number = data.draw(st.sampled_from(sorted(reported)))
            reports = reported[number]
            reports.append(curves[number][len(reports)])
            theirs[number].report(reports[-1], len(reports))

            stops = rule.stops(number, reports)

            assert stops == theirs[number].should_prune()
            if stops or len(reports) == len(curves[number]):
                state = _STOPPED if stops else TrialState.SUCCEEDED
                rule.ended(number, state, reported.pop(number))


class TestHyperband:
    @pytest.mark.parametrize("start", [0, 1, 5, 16, 1000])
    def test_shares_the_trials_as_hyperband_does(self, start: int) -> None:
        """3^s trials in the bracket of s rungs above the first, times 3 / (s + 1), rounded up."""
        found = Counter(bracket_of(number) for number in range(start, start + 17))

        assert found == {0: 9, 1: 5, 2: 3}

    def test_the_brackets_are_mixed(self) -> None:
        assert {bracket_of(number) for number in range(3)} == {0, 1, 2} or {
            bracket_of(number) for number in range(4)
        } == {0, 1, 2}

    @pytest.mark.parametrize(("bracket", "first"), [(0, 2), (1, 6), (2, 18)])
    def test_each_bracket_spares_trials_longer(self, bracket: int, first: int) -> None:
        rule = Hyperband("minimize", 3, 2)
        tell(rule, [[1.0] * 60] * 51)

        assert live(rule, OF_BRACKET[bracket][0], [9.0] * 60) == first

    def test_trials_are_compared_within_their_bracket(self) -> None:
        rule = Hyperband("minimize", 1, 2)
        for number in OF_BRACKET[0][:9]:
            rule.ended(number, TrialState.SUCCEEDED, [1.0] * 60)
        for number in OF_BRACKET[1][:9]:
            rule.ended(number, TrialState.SUCCEEDED, [10.0] * 60)

        assert live(rule, OF_BRACKET[0][9], [5.0] * 60) == 2
        assert live(rule, OF_BRACKET[1][9], [5.0] * 60) is None
        assert live(rule, OF_BRACKET[2][9], [99.0] * 60) is None


class TestForm:
    def test_what_is_left_out(self) -> None:
        form = EarlyStopping.model_validate({"rule": None, "min_trials": None})

        assert (form.rule, form.min_trials, form.start_step) == ("median", 3, 4)

    def test_every_field_is_described(self) -> None:
        schema = EarlyStopping.model_json_schema()

        assert all(field["description"] for field in schema["properties"].values())

    @pytest.mark.parametrize(
        ("word", "kind"),
        [
            ("median", MedianRule),
            ("successive_halving", SuccessiveHalving),
            ("hyperband", Hyperband),
        ],
    )
    def test_makes_its_rule(self, word: Any, kind: type[StoppingRule]) -> None:
        rule = EarlyStopping(rule=word, min_trials=7, start_step=2).make("maximize")

        assert type(rule) is kind
        assert (rule.direction, rule.min_trials, rule.start_step) == ("maximize", 7, 2)

    @pytest.mark.parametrize(
        "case",
        _VECTORS["upstream_unit_test"]["validate"] + _VECTORS["derived_validation"]["validate"],
        ids=lambda case: f"{case['algorithm']} {case['settings']}",
    )
    def test_katibs_cases(self, case: dict[str, Any]) -> None:
        rules = {"medianstop": "median"}
        words = {"min_trials_required": "min_trials"}
        given = {
            "rule": rules.get(case["algorithm"], case["algorithm"]),
            **{words.get(word, word): value for word, value in case["settings"].items()},
        }

        if case["ok"]:
            assert type(EarlyStopping.model_validate(given).make("minimize")) is MedianRule
        else:
            with pytest.raises(ValidationError):
                EarlyStopping.model_validate(given)
