"""Search strategies: reproducible, never the same point twice, and of the right values."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from typing import Any

import pytest

from tests.tuning.searches import MIXED, MODELS, STRATEGIES, ended, make
from tests.tuning.spaces import choice, double, integer
from tuning import bayesian
from tuning.space import Grid, Parameter, Point
from tuning.trials import Trial, TrialState


def _loss(point: Point) -> float:
    return abs(float(point["x"]) - 3) + abs(math.log10(float(point["rate"])) + 3)


def _ended(number: int, point: Point) -> Trial:
    """An end of each kind, by turns."""
    loss = _loss(point)
    match number % 8:
        case 3:
            return ended(number, point, state="FAILED")
        case 4:
            reports = (loss + 2, math.nan, loss + 1, math.inf)
            return ended(number, point, loss, "EARLY_STOPPED", reports=reports)
        case 5:
            return ended(number, point, state="METRICS_UNAVAILABLE")
        case 6:
            return ended(number, point)
        case 7:
            return ended(number, point, state="KILLED")
    return ended(number, point, loss)


_LEARNED = [
    ended(number, {"x": x, "rate": 0.00201, "n": 7, "c": True, "size": 16}, x)
    for number, x in enumerate((-5.0, -2.5, 10.0))
]


class TestGoingOn:
    """What a search gives does not depend on whether it was made anew in between."""

    @pytest.mark.parametrize("parallel", [1, 3])
    @pytest.mark.parametrize("learned", [[], _LEARNED], ids=["cold", "warm"])
    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_gives_the_same_points_after_any_restart(
        self, strategy: str, learned: list[Trial], parallel: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bayesian, "LARGEST_MODEL", 15)  # so that the choice changes as well
        search = make(strategy=strategy)
        search.learn(learned)
        order = random.Random(0)
        trials: dict[int, Trial] = {}
        for number in range(32):
            anew = make(strategy=strategy)
            anew.learn(learned)
            for _, trial in sorted(trials.items()):
                (anew.pending if trial.state is TrialState.RUNNING else anew.tell)(trial)
            point = search.ask(number)
            assert point is not None
            assert anew.ask(number) == point
            trials[number] = ended(number, point, state="RUNNING")
            running = [one for one in trials.values() if one.state is TrialState.RUNNING]
            if len(running) == parallel:
                done = order.choice(running)
                trials[done.number] = _ended(done.number, done.parameters)
                search.tell(trials[done.number])

    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_also_in_a_space_where_points_are_often_refused(self, strategy: str) -> None:
        space = [integer(1, 5, name="x"), choice(1e-4, 1e-3, 0.01, 0.1, 1.0, name="rate")]
        search = make(space, strategy)
        trials = []
        for number in range(25):
            anew = make(space, strategy)
            for trial in trials:
                anew.tell(trial)
            point = search.ask(number)
            assert point is not None
            assert anew.ask(number) == point
            trials.append(ended(number, point, _loss(point)))
            search.tell(trials[-1])

    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_gives_a_trial_the_same_point_again(self, strategy: str) -> None:
        search = make(strategy=strategy)

        assert search.ask(0) == search.ask(0)
        assert search.ask(1) not in (None, search.ask(0))

    @pytest.mark.parametrize("strategy", ["random", "sobol", *MODELS])
    def test_another_seed_gives_other_points(self, strategy: str) -> None:
        points = [make(strategy=strategy, seed=seed).ask(0) for seed in (1, 2, -1, 2**70)]

        assert all(a != b for a, b in itertools.combinations(points, 2))

    @pytest.mark.parametrize("strategy", MODELS)
    def test_what_failed_teaches_nothing_but_its_point(self, strategy: str) -> None:
        def after(loss: float, state: str) -> Point | None:
            search = make(strategy=strategy)
            for number in range(14):
                point = search.ask(number)
                assert point is not None
                if number == 5:
                    search.tell(ended(number, point, loss, state))
                else:
                    search.tell(ended(number, point, _loss(point)))
            return search.ask(14)

        assert after(-1e3, "FAILED") == after(1e3, "FAILED") == after(0, "KILLED")
        assert after(-1e3, "SUCCEEDED") != after(1e3, "SUCCEEDED")


class TestEveryPointOnce:
    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_a_small_space_is_tried_to_its_end(self, strategy: str) -> None:
        space = [integer(-1, 3, name="n"), choice(True, "b", 0.5), double(2.0, 2.0)]
        learned = [ended(0, {"n": 2, "c": "b", "x": 2.0}, 1.0)]
        search = make(space, strategy)
        assert search.size == 15

        assert search.learn(learned) == 1
        assert search.size == 14
        seen: list[Point] = [learned[0].parameters]
        for number in range(14):
            point = search.ask(number)
            assert point is not None
            assert point not in seen
            seen.append(point)
            search.tell(_ended_with(number, point, float(point["n"])))

        assert search.ask(14) is None
        assert search.ask(3) == seen[4]
        assert {type(point["c"]) for point in seen} == {bool, str, float}

    @pytest.mark.parametrize("strategy", ["random", "sobol", *MODELS])
    def test_so_is_one_of_two_doubles(self, strategy: str) -> None:
        search = make([double(1.0, math.nextafter(1.0, 2))], strategy)

        points = [search.ask(number) for number in range(3)]

        assert search.size is None
        assert sorted(one["x"] for one in points if one) == [1.0, math.nextafter(1.0, 2)]
        assert points[2] is None

    @pytest.mark.parametrize("strategy", MODELS)
    def test_trials_that_run_at_once_differ(self, strategy: str) -> None:
        search = make([integer(1, 40)], strategy)
        for number in range(12):
            point = search.ask(number)
            assert point is not None
            search.tell(ended(number, point, abs(float(point["n"]) - 20)))

        points = [search.ask(number) for number in range(12, 40)]

        assert len({one["n"] for one in points if one}) == 28

    def test_pending_points_are_not_asked_for_again(self) -> None:
        search = make([choice("a", "b")], "random")
        search.pending(ended(0, {"c": "a"}, state="RUNNING"))

        assert search.ask(1) == {"c": "b"}
        assert search.ask(2) is None


def _ended_with(number: int, point: Point, loss: float) -> Trial:
    return ended(number, point, loss) if number % 3 else ended(number, point, state="FAILED")


class TestPoints:
    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_have_values_of_the_right_types_within_the_bounds(self, strategy: str) -> None:
        search = make(strategy=strategy)
        for number in range(25):
            point = search.ask(number)
            assert point is not None
            assert list(point) == ["x", "rate", "n", "c", "size"]
            assert [type(point[name]) for name in ("x", "rate", "n", "size")] == [
                float, float, int, int,
            ]  # fmt: skip
            assert -5 <= float(point["x"]) <= 10
            assert 1e-5 <= float(point["rate"]) <= 0.1
            assert 1 <= int(point["n"]) <= 1000
            assert point["size"] in (16, 32, 64)
            assert any(point["c"] is value for value in MIXED[3].values)
            search.tell(ended(number, point, _loss(point)))

    @pytest.mark.parametrize("strategy", ["random", "sobol"])
    def test_lie_evenly_on_the_scale_that_was_asked_for(self, strategy: str) -> None:
        search = make(strategy=strategy)
        points = [search.ask(number) for number in range(400)]

        def quarter(name: str, below: float) -> float:
            return statistics.mean(float(one[name]) < below for one in points if one)

        assert quarter("x", -1.25) == pytest.approx(0.25, abs=0.06)
        assert quarter("rate", 1e-4) == pytest.approx(0.25, abs=0.06)
        assert quarter("n", 5.6) == pytest.approx(0.29, abs=0.06)
        assert quarter("size", 32) == pytest.approx(1 / 3, abs=0.06)

    def test_of_sobol_are_those_of_one_sequence(self) -> None:
        anew = make(strategy="sobol")
        search = make(strategy="sobol")
        points = [search.ask(number) for number in range(515)]

        assert [anew.ask(number) for number in (514, 255, 256)] == [
            points[514], points[255], points[256],
        ]  # fmt: skip

    @pytest.mark.parametrize("strategy", ["random", "sobol", *MODELS])
    @pytest.mark.parametrize(
        "parameter",
        [
            double(-(2.0**62), 2.0**62),
            double(-1e300, 1e300),
            double(0.0, 1e-320),
            double(5e-324, 1e-300, log=True),
            double(1e-9, math.nextafter(math.nextafter(1e-9, 1), 1), log=True),
            integer(-(2**62), 2**62),
            integer(1, 2**62, log=True),
            integer(5, 5),
        ],
        ids=lambda parameter: f"{parameter.min}..{parameter.max}",
    )
    def test_exist_in_extreme_ranges(self, parameter: Parameter, strategy: str) -> None:
        low, high = parameter.min, parameter.max
        assert low is not None
        assert high is not None
        search = make([parameter, double(0.0, 1.0, name="other")], strategy)
        for number in range(16):
            point = search.ask(number)
            if point is None:
                break
            assert low <= float(point[parameter.name]) <= high
            search.tell(ended(number, point, float(point["other"])))
        assert number > 2


class TestGrid:
    def test_goes_through_the_grid_in_its_order(self) -> None:
        space = [double(0.0, 0.35, 0.05), choice(True, "b"), integer(1, 9, 4)]
        grid = list(Grid(space))
        search = make(space, "grid")

        assert search.size == len(grid) == 48
        assert [search.ask(number) for number in range(49)] == [*grid, None]

    def test_leaves_out_what_was_learned_and_learns_of_its_own_points_alone(self) -> None:
        space = [double(0.0, 0.3, 0.1), integer(1, 3)]
        search = make(space, "grid")
        known: list[Point] = [
            {"x": 0.1, "n": 2},
            {"x": 0.15, "n": 2},  # between two points
            {"n": 3.0, "x": 0},  # the same numbers of other types
            {"x": 0.4, "n": 2},
        ]

        assert search.learn(ended(number, one, 1.0) for number, one in enumerate(known)) == 2
        assert search.size == 10
        points = [search.ask(number) for number in range(11)]

        assert points[-1] is None
        assert points[:-1] == [
            one for one in Grid(space) if one not in ({"x": 0.1, "n": 2}, {"x": 0.0, "n": 3})
        ]


class TestLearning:
    @pytest.mark.parametrize(
        ("changed", "taken"),
        [
            ({}, True),
            ({"x": 3}, True),
            ({"n": 7.0}, True),
            ({"n": 7.5}, False),
            ({"n": True}, False),
            ({"x": 11.0}, False),
            ({"x": "3"}, False),
            ({"x": math.nan}, False),
            ({"c": 1}, False),
            ({"c": False}, False),
            ({"size": 48}, False),
            ({"size": 16.0}, True),
            ({"another": 1}, False),
        ],
    )
    def test_takes_points_of_this_space(self, changed: dict[str, Any], taken: bool) -> None:
        point = {"x": 1.5, "rate": 0.01, "n": 7, "c": True, "size": 16, **changed}

        assert make().learn([ended(0, point, 1.0)]) == taken

    @pytest.mark.parametrize(
        "trial",
        [
            ended(0, _LEARNED[0].parameters, 1.0, "FAILED"),
            ended(0, _LEARNED[0].parameters),
            ended(0, {"x": 1.0}, 1.0),
        ],
        ids=["failed", "no value", "other parameters"],
    )
    def test_leaves_out_what_teaches_nothing(self, trial: Trial) -> None:
        assert make().learn([trial]) == 0

    @pytest.mark.parametrize("strategy", MODELS)
    def test_begins_where_the_other_tuning_ended(self, strategy: str) -> None:
        first = make(strategy="random", seed=1)
        known = []
        for number in range(60):
            point = first.ask(number)
            assert point is not None
            known.append(ended(number, point, _loss(point)))

        def losses(learned: list[Trial]) -> list[float]:
            search = make(strategy=strategy)
            search.learn(learned)
            points = [search.ask(number) for number in range(6)]
            return [_loss(point) for point in points if point]

        assert statistics.median(losses(known)) < statistics.median(losses([])) / 2


def test_what_chooses_is_told() -> None:
    told = {strategy: make(strategy=strategy).sampler for strategy in STRATEGIES}

    assert len(set(told.values())) == len(STRATEGIES)
    assert told["bayesian"].startswith("Gaussian process: ")
