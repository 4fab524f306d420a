"""What every rule of early stopping keeps to."""

from __future__ import annotations

import math
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tuning.rules import DIRECTIONS, ENDED, OF_BRACKET, REPORTS, live, tell
from tuning.early_stopping import Hyperband, MedianRule, StoppingRule, SuccessiveHalving
from tuning.objectives import Direction
from tuning.trials import TrialState

_PROPERTY = settings(database=None, deadline=None)
_RULES: list[type[StoppingRule]] = [MedianRule, SuccessiveHalving, Hyperband]
_NAN, _INF = math.nan, math.inf
_STOPPED = TrialState.EARLY_STOPPED


@pytest.mark.parametrize("kind", _RULES)
class TestContract:
    """What every rule keeps to."""

    def test_nobody_is_stopped_before_the_start_step(self, kind: type[StoppingRule]) -> None:
        rule = kind("minimize", 1, 5)
        tell(rule, [[1.0] * 60] * 51)

        stops = [live(rule, number, [9.0] * 60) for number in range(51)]

        assert min(stop or 0 for stop in stops) == 5

    def test_nobody_is_stopped_without_enough_trials(self, kind: type[StoppingRule]) -> None:
        rule = kind("minimize", 6, 1)
        tell(rule, [[1.0] * 60] * 4)

        assert live(rule, 0, [9.0] * 60) is None

    def test_a_hopeless_trial_is_stopped(self, kind: type[StoppingRule]) -> None:
        for direction, good, bad in (("minimize", 1.0, 9.0), ("maximize", 9.0, 1.0)):
            rule = kind(direction, 3, 4)  # type: ignore[arg-type]
            tell(rule, [[good] * 60] * 51)

            assert live(rule, 0, [bad] * 60) == 4

    @pytest.mark.parametrize("nothing", [_NAN, _INF, -_INF])
    @pytest.mark.parametrize("direction", ["minimize", "maximize"])
    def test_what_is_not_finite_is_worse_than_anything(
        self, kind: type[StoppingRule], nothing: float, direction: Direction
    ) -> None:
        for others in ([1.0] * 60, [1e308] * 60, [-1e308] * 60):
            rule = kind(direction, 3, 4)
            tell(rule, [others] * 51)

            assert live(rule, 0, [nothing] * 60) == 4

    def test_not_even_the_best_of_those_that_report_nothing_is_kept(
        self, kind: type[StoppingRule]
    ) -> None:
        rule = kind("minimize", 3, 1)
        tell(rule, [[1.0] * 9] * 3)

        stops = [live(rule, number, [_NAN] * 9) for number in OF_BRACKET[0][:9]]

        assert stops[3:] == [1] * 6

    @pytest.mark.parametrize("value", [0.0, 0.1, 1.1, -0.7, 1e-320, 1e300])
    def test_equally_good_trials_are_kept(self, kind: type[StoppingRule], value: float) -> None:
        for direction in ("minimize", "maximize"):
            rule = kind(direction, 1, 1)
            tell(rule, [[value] * 50] * 51)

            assert [live(rule, number, [value] * 50) for number in range(51)] == [None] * 51

    @given(trials=st.lists(REPORTS, max_size=8), own=REPORTS, number=st.integers(0, 50))
    @_PROPERTY
    def test_the_direction_is_a_sign(
        self, kind: type[StoppingRule], trials: list[list[float]], own: list[float], number: int
    ) -> None:
        down, up = kind("minimize", 2, 2), kind("maximize", 2, 2)
        tell(down, trials)
        tell(up, [[-value for value in reports] for reports in trials])

        assert live(down, number, own) == live(up, number, [-value for value in own])

    @given(trials=st.lists(REPORTS, max_size=8), own=REPORTS, number=st.integers(0, 50))
    @_PROPERTY
    def test_to_ask_or_tell_again_changes_nothing(
        self, kind: type[StoppingRule], trials: list[list[float]], own: list[float], number: int
    ) -> None:
        once, often = kind("minimize", 2, 2), kind("minimize", 2, 2)
        tell(once, trials)
        tell(often, trials)
        tell(often, trials)

        stop = live(once, number, own)

        assert [live(often, number, own) for _ in range(3)] == [stop] * 3
        assert [often.first_stop(number, own) for _ in range(3)] == [stop] * 3

    @given(
        trials=st.lists(REPORTS, max_size=8), own=REPORTS, number=st.integers(0, 50),
        polls=st.lists(st.integers(0, 40)).map(sorted),
    )  # fmt: skip
    @_PROPERTY
    def test_reports_that_come_late_are_judged_as_if_they_had_not(
        self,
        kind: type[StoppingRule],
        trials: list[list[float]],
        own: list[float],
        number: int,
        polls: list[int],
    ) -> None:
        """Also where they are appended to one list, of which the rule remembers a part."""
        rule, polled = kind("minimize", 2, 2), kind("minimize", 2, 2)
        tell(rule, trials)
        tell(polled, trials)
        seen: list[float] = []
        found = []
        for poll in [*polls, len(own)]:
            before = len(seen)
            seen += own[before:poll]
            found.append(polled.first_stop(number, seen, before))
            if found[-1] is not None:
                break

        assert found[-1] == live(rule, number, own)
        assert not any(found[:-1])

    @given(trials=st.lists(REPORTS, min_size=1, max_size=8), data=st.data())
    @_PROPERTY
    def test_a_new_rule_that_is_told_everything_answers_the_same(
        self, kind: type[StoppingRule], trials: list[list[float]], data: st.DataObject
    ) -> None:
        rule = kind("minimize", 2, 1)
        reported: dict[int, list[float]] = {number: [] for number in range(len(trials))}
        ended: dict[int, TrialState] = {}

        def rebuilt() -> StoppingRule:
            new = kind("minimize", 2, 1)
            for number in data.draw(st.permutations(sorted(ended))):
                new.ended(number, ended[number], reported[number])
            for number in reported.keys() - ended.keys():
                new.first_stop(number, reported[number], seen=len(reported[number]))
            return new

        restart = data.draw(st.integers(0, 60))
        for event in range(60):
            running = sorted(reported.keys() - ended.keys())
            if not running:
                break
            if event == restart:
                rule = rebuilt()
            number = data.draw(st.sampled_from(running))
            if len(reported[number]) == len(trials[number]):
                ended[number] = data.draw(st.sampled_from(ENDED))
            else:
                reported[number].append(trials[number][len(reported[number])])
                stops = rule.stops(number, reported[number])
                if event >= restart:
                    assert rebuilt().stops(number, tuple(reported[number])) == stops
                if stops:
                    ended[number] = _STOPPED
            if number in ended:
                rule.ended(number, ended[number], reported[number])

    def test_a_list_that_begins_anew_is_another(self, kind: type[StoppingRule]) -> None:
        """A trial that is begun again under its number is judged by what it reports now."""
        rule = kind("minimize", 1, 3)
        tell(rule, [[5.0] * 60] * 51)
        reports = [1.0, 1.0]
        assert not rule.stops(0, reports)

        reports[:] = [9.0]
        stops = []
        for value in (9.0, 9.0):
            stops.append(rule.stops(0, reports))
            reports.append(value)

        assert [*stops, rule.stops(0, reports)] == [False, False, True]

    @given(
        trials=st.lists(REPORTS, max_size=8), own=REPORTS, number=st.integers(0, 50),
        min_trials=st.integers(1, 9), start_step=st.integers(1, 9), direction=DIRECTIONS,
    )  # fmt: skip
    @_PROPERTY
    def test_nobody_is_stopped_too_early(
        self,
        kind: type[StoppingRule],
        trials: list[list[float]],
        own: list[float],
        number: int,
        min_trials: int,
        start_step: int,
        direction: Direction,
    ) -> None:
        rule = kind(direction, min_trials, start_step)
        tell(rule, trials)

        stop = live(rule, number, own)

        assert stop is None or stop >= start_step
        assert stop is None or len(trials) + 1 >= min_trials

    def test_a_trial_that_is_begun_again_is_judged_by_its_new_reports(
        self, kind: type[StoppingRule]
    ) -> None:
        rule = kind("minimize", 1, 3)
        tell(rule, [[5.0] * 60] * 51)
        assert not rule.stops(0, [1.0, 1.0])

        assert rule.stops(0, [9.0, 9.0, 9.0])

    def test_keeps_nothing_of_a_trial_that_has_ended(self, kind: type[StoppingRule]) -> None:
        class Reports(list[float]):
            """A list that can be asked for."""

        rule = kind("minimize", 1, 3)
        reports = Reports([1.0])
        rule.stops(0, reports)
        rule.ended(0, TrialState.FAILED, reports)
        kept = weakref.ref(reports)
        del reports

        assert kept() is None
