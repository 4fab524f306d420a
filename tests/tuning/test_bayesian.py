"""Searches that learn: far better than chance, whatever they are told."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import pytest

from infra.errors import BadInputError
from tests.tuning.searches import MODELS, PLANE, best, branin, ended, make
from tuning import bayesian
from tuning.space import Point


class TestQuality:
    """The least of Branin's function is 0.3979."""

    @pytest.mark.parametrize("parallel", [1, 4])
    def test_bayesian_is_far_better_than_chance(self, parallel: int) -> None:
        seeds = range(3)

        ours = [best("bayesian", seed, parallel=parallel) - 0.3979 for seed in seeds]
        chance = [best("random", seed) - 0.3979 for seed in seeds]

        assert statistics.median(ours) < statistics.median(chance) / 20
        assert max(ours) < 0.1

    @pytest.mark.parametrize("strategy", MODELS)
    def test_maximizing_is_minimizing_the_negative(self, strategy: str) -> None:
        assert best(strategy, 3, sign=-1, trials=20) == best(strategy, 3, trials=20)

    def test_a_gaussian_process_learns_from_what_was_stopped_early(self) -> None:
        assert best("gp", 1, state="EARLY_STOPPED") == best("gp", 1)

    def test_trials_that_diverged_do_not_blur_the_others(self) -> None:
        def diverging(point: Point) -> float:
            return branin(point) if float(point["x"]) < 6 else 1e12 + float(point["y"])

        assert statistics.median(best("gp", seed, diverging) for seed in range(3)) < 0.45

    def test_parzen_estimators_are_better_than_chance(self) -> None:
        ours = [best("tpe", seed, trials=60) for seed in range(9)]
        chance = [best("random", seed, trials=60) for seed in range(9)]

        assert statistics.median(ours) < statistics.median(chance)

    @pytest.mark.parametrize("strategy", MODELS)
    @pytest.mark.parametrize(
        "value", [lambda _: 1.0, lambda p: 1e300 * (float(p["x"]) - 2)], ids=["same", "huge"]
    )
    def test_no_values_stop_a_search(self, strategy: str, value: Callable[[Point], float]) -> None:
        assert math.isfinite(best(strategy, 1, value, trials=20))


class TestConstraints:
    @pytest.mark.parametrize("strategy", MODELS)
    def test_the_search_keeps_to_where_they_hold(self, strategy: str) -> None:
        search = make(PLANE, strategy, constraints=2)
        kept = []
        for number in range(45):
            point = search.ask(number)
            assert point is not None
            violations = (float(point["x"]) - 0.0, math.inf if number == 11 else -1.0)
            kept.append(violations[0] <= 0)
            search.tell(ended(number, point, branin(point), violations=violations))

        # Two of the three places where the function is least are forbidden, and so are two
        # thirds of the space.
        assert statistics.mean(kept[20:]) > 0.7

    @pytest.mark.parametrize("strategy", MODELS)
    def test_a_first_point_that_keeps_them_is_found(self, strategy: str) -> None:
        search = make(PLANE, strategy, constraints=1)
        least = math.inf
        for number in range(40):
            point = search.ask(number)
            assert point is not None
            away = math.hypot(float(point["x"]) - 8, float(point["y"]) - 14) - 0.5
            least = min(least, away)
            search.tell(ended(number, point, float(point["x"]), violations=(away,)))

        assert least <= (0.7 if strategy == "tpe" else 0)

    @pytest.mark.parametrize("strategy", MODELS)
    def test_what_is_not_known_to_hold_is_violated(self, strategy: str) -> None:
        def after(*violations: float) -> Point | None:
            search = make(PLANE, strategy, constraints=1)
            for number in range(14):
                point = search.ask(number)
                assert point is not None
                told = violations if number == 5 else (-1.0,)
                value = -1e3 if number == 5 else branin(point)
                search.tell(ended(number, point, value, violations=told))
            return search.ask(14)

        assert after() == after(math.nan) == after(math.inf) != after(-1.0)


class TestSeveralObjectives:
    def test_are_sought_by_parzen_estimators(self) -> None:
        search = make(PLANE, "bayesian", directions=["minimize", "maximize"])
        for number in range(40):
            point = search.ask(number)
            assert point is not None
            state = "EARLY_STOPPED" if number % 7 == 1 else "SUCCEEDED"
            values = float(point["x"]), -abs(float(point["y"]) - 5)
            search.tell(ended(number, point, state=state, values=values, reports=(1.0,)))
        last = [search.ask(number) for number in range(40, 50)]

        assert search.sampler.startswith("Parzen estimators")
        assert statistics.median(abs(float(one["y"]) - 5) for one in last if one) < 2.5

    def test_are_refused_by_a_gaussian_process(self) -> None:
        with pytest.raises(BadInputError) as refused:
            make(strategy="gp", directions=["minimize", "minimize"])

        assert refused.value.code == "StrategyUnsuited"
        assert "tpe" in refused.value.hint


def test_many_trials_are_left_to_parzen_estimators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bayesian, "LARGEST_MODEL", 12)
    automatic, gaussian, parzen = (make(PLANE, one) for one in MODELS)
    for number in range(14):
        point = automatic.ask(number)
        assert point is not None
        if number < 12:
            assert gaussian.ask(number) == point
        trial = ended(number, point, branin(point))
        for search in (automatic, gaussian, parzen):
            search.tell(trial)

    assert automatic.ask(14) == parzen.ask(14) != gaussian.ask(14)


def test_a_model_without_a_result_gives_way_to_chance(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: object) -> None:
        raise bayesian.IndistinguishableError

    monkeypatch.setattr(bayesian, "propose", failing)

    assert math.isfinite(best("gp", 1, trials=12))
    assert "Trial 11 gets a point by chance" in caplog.text
