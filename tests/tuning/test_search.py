"""Search strategies: reproducible, never the same point twice, and better than chance."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Callable, Sequence
from typing import Any, get_args

import pytest

from infra.errors import BadInputError
from tests.tuning.spaces import choice, double, integer
from tuning import bayesian
from tuning.search import Search, Strategy
from tuning.space import Grid, Parameter, Point
from tuning.trials import Trial, TrialState

_STRATEGIES = get_args(Strategy)
_MODELS = ("bayesian", "gp", "tpe")

_MIXED = [
    double(-5.0, 10.0, 0.5, name="x"),
    double(1e-5, 0.1, 0.01, name="rate", log=True),
    integer(1, 1000, 100, name="n", log=True),
    choice("a", True, 0, 2.5, name="c"),
    Parameter(name="size", type="discrete", values=[64, 16, 32]),
]


def _search(
    parameters: Sequence[Parameter] = _MIXED,
    strategy: Any = "bayesian",
    seed: int = 7,
    directions: Any = ("minimize",),
    constraints: int = 0,
) -> Search:
    return Search(parameters, directions, strategy=strategy, seed=seed, constraints=constraints)


def _trial(
    number: int, point: Point, value: float | None = None, state: str = "SUCCEEDED", **others: Any
) -> Trial:
    values = None if value is None else (value,)
    return Trial(number, point, TrialState(state), **{"values": values, **others})


def _loss(point: Point) -> float:
    return abs(float(point["x"]) - 3) + abs(math.log10(float(point["rate"])) + 3)


def _ended(number: int, point: Point) -> Trial:
    """An end of each kind, by turns."""
    loss = _loss(point)
    match number % 8:
        case 3:
            return _trial(number, point, state="FAILED")
        case 4:
            reports = (loss + 2, math.nan, loss + 1, math.inf)
            return _trial(number, point, loss, "EARLY_STOPPED", reports=reports)
        case 5:
            return _trial(number, point, state="METRICS_UNAVAILABLE")
        case 6:
            return _trial(number, point)
        case 7:
            return _trial(number, point, state="KILLED")
    return _trial(number, point, loss)


_LEARNED = [
    _trial(number, {"x": x, "rate": 0.00201, "n": 7, "c": True, "size": 16}, x)
    for number, x in enumerate((-5.0, -2.5, 10.0))
]


class TestGoingOn:
    """What a search gives does not depend on whether it was made anew in between."""

    @pytest.mark.parametrize("parallel", [1, 3])
    @pytest.mark.parametrize("learned", [[], _LEARNED], ids=["cold", "warm"])
    @pytest.mark.parametrize("strategy", _STRATEGIES)
    def test_gives_the_same_points_after_any_restart(
        self, strategy: str, learned: list[Trial], parallel: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bayesian, "LARGEST_MODEL", 15)  # so that the choice changes as well
        search = _search(strategy=strategy)
        search.learn(learned)
        order = random.Random(0)
        trials: dict[int, Trial] = {}
        for number in range(32):
            anew = _search(strategy=strategy)
            anew.learn(learned)
            for _, trial in sorted(trials.items()):
                (anew.pending if trial.state is TrialState.RUNNING else anew.tell)(trial)
            point = search.ask(number)
            assert point is not None
            assert anew.ask(number) == point
            trials[number] = _trial(number, point, state="RUNNING")
            running = [one for one in trials.values() if one.state is TrialState.RUNNING]
            if len(running) == parallel:
                done = order.choice(running)
                trials[done.number] = _ended(done.number, done.parameters)
                search.tell(trials[done.number])

    @pytest.mark.parametrize("strategy", _STRATEGIES)
    def test_gives_a_trial_the_same_point_again(self, strategy: str) -> None:
        search = _search(strategy=strategy)

        assert search.ask(0) == search.ask(0)
        assert search.ask(1) not in (None, search.ask(0))

    @pytest.mark.parametrize("strategy", ["random", "sobol", *_MODELS])
    def test_another_seed_gives_other_points(self, strategy: str) -> None:
        points = [_search(strategy=strategy, seed=seed).ask(0) for seed in (1, 2, -1, 2**70)]

        assert all(a != b for a, b in itertools.combinations(points, 2))

    @pytest.mark.parametrize("strategy", _MODELS)
    def test_what_failed_teaches_nothing_but_its_point(self, strategy: str) -> None:
        def after(loss: float, state: str) -> Point | None:
            search = _search(strategy=strategy)
            for number in range(14):
                point = search.ask(number)
                assert point is not None
                if number == 5:
                    search.tell(_trial(number, point, loss, state))
                else:
                    search.tell(_trial(number, point, _loss(point)))
            return search.ask(14)

        assert after(-1e3, "FAILED") == after(1e3, "FAILED") == after(0, "KILLED")
        assert after(-1e3, "SUCCEEDED") != after(1e3, "SUCCEEDED")


class TestEveryPointOnce:
    @pytest.mark.parametrize("strategy", _STRATEGIES)
    def test_a_small_space_is_tried_to_its_end(self, strategy: str) -> None:
        space = [integer(-1, 3, name="n"), choice(True, "b", 0.5), double(2.0, 2.0)]
        learned = [_trial(0, {"n": 2, "c": "b", "x": 2.0}, 1.0)]
        search = _search(space, strategy)
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

    @pytest.mark.parametrize("strategy", ["random", "sobol", *_MODELS])
    def test_so_is_one_of_two_doubles(self, strategy: str) -> None:
        search = _search([double(1.0, math.nextafter(1.0, 2))], strategy)

        points = [search.ask(number) for number in range(3)]

        assert search.size is None
        assert sorted(one["x"] for one in points if one) == [1.0, math.nextafter(1.0, 2)]
        assert points[2] is None

    @pytest.mark.parametrize("strategy", _MODELS)
    def test_trials_that_run_at_once_differ(self, strategy: str) -> None:
        search = _search([integer(1, 40)], strategy)
        for number in range(12):
            point = search.ask(number)
            assert point is not None
            search.tell(_trial(number, point, abs(float(point["n"]) - 20)))

        points = [search.ask(number) for number in range(12, 40)]

        assert len({one["n"] for one in points if one}) == 28

    def test_pending_points_are_not_asked_for_again(self) -> None:
        search = _search([choice("a", "b")], "random")
        search.pending(_trial(0, {"c": "a"}, state="RUNNING"))

        assert search.ask(1) == {"c": "b"}
        assert search.ask(2) is None


def _ended_with(number: int, point: Point, loss: float) -> Trial:
    return _trial(number, point, loss) if number % 3 else _trial(number, point, state="FAILED")


class TestPoints:
    @pytest.mark.parametrize("strategy", _STRATEGIES)
    def test_have_values_of_the_right_types_within_the_bounds(self, strategy: str) -> None:
        search = _search(strategy=strategy)
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
            assert any(point["c"] is value for value in _MIXED[3].values)
            search.tell(_trial(number, point, _loss(point)))

    @pytest.mark.parametrize("strategy", ["random", "sobol"])
    def test_lie_evenly_on_the_scale_that_was_asked_for(self, strategy: str) -> None:
        search = _search(strategy=strategy)
        points = [search.ask(number) for number in range(400)]

        def quarter(name: str, below: float) -> float:
            return statistics.mean(float(one[name]) < below for one in points if one)

        assert quarter("x", -1.25) == pytest.approx(0.25, abs=0.06)
        assert quarter("rate", 1e-4) == pytest.approx(0.25, abs=0.06)
        assert quarter("n", 5.6) == pytest.approx(0.29, abs=0.06)
        assert quarter("size", 32) == pytest.approx(1 / 3, abs=0.06)

    def test_of_sobol_are_those_of_one_sequence(self) -> None:
        anew = _search(strategy="sobol")
        search = _search(strategy="sobol")
        points = [search.ask(number) for number in range(515)]

        assert [anew.ask(number) for number in (514, 255, 256)] == [
            points[514], points[255], points[256],
        ]  # fmt: skip

    @pytest.mark.parametrize("strategy", ["random", "sobol", *_MODELS])
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
        search = _search([parameter, double(0.0, 1.0, name="other")], strategy)
        for number in range(16):
            point = search.ask(number)
            if point is None:
                break
            assert low <= float(point[parameter.name]) <= high
            search.tell(_trial(number, point, float(point["other"])))
        assert number > 2


class TestGrid:
    def test_goes_through_the_grid_in_its_order(self) -> None:
        space = [double(0.0, 0.35, 0.05), choice(True, "b"), integer(1, 9, 4)]
        grid = list(Grid(space))
        search = _search(space, "grid")

        assert search.size == len(grid) == 48
        assert [search.ask(number) for number in range(49)] == [*grid, None]

    def test_leaves_out_what_was_learned_and_learns_of_its_own_points_alone(self) -> None:
        space = [double(0.0, 0.3, 0.1), integer(1, 3)]
        search = _search(space, "grid")
        known: list[Point] = [
            {"x": 0.1, "n": 2},
            {"x": 0.15, "n": 2},  # between two points
            {"n": 3.0, "x": 0},  # the same numbers of other types
            {"x": 0.4, "n": 2},
        ]

        assert search.learn(_trial(number, one, 1.0) for number, one in enumerate(known)) == 2
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

        assert _search().learn([_trial(0, point, 1.0)]) == taken

    @pytest.mark.parametrize(
        "trial",
        [
            _trial(0, _LEARNED[0].parameters, 1.0, "FAILED"),
            _trial(0, _LEARNED[0].parameters),
            _trial(0, {"x": 1.0}, 1.0),
        ],
        ids=["failed", "no value", "other parameters"],
    )
    def test_leaves_out_what_teaches_nothing(self, trial: Trial) -> None:
        assert _search().learn([trial]) == 0

    @pytest.mark.parametrize("strategy", _MODELS)
    def test_begins_where_the_other_tuning_ended(self, strategy: str) -> None:
        first = _search(strategy="random", seed=1)
        known = []
        for number in range(60):
            point = first.ask(number)
            assert point is not None
            known.append(_trial(number, point, _loss(point)))

        def losses(learned: list[Trial]) -> list[float]:
            search = _search(strategy=strategy)
            search.learn(learned)
            points = [search.ask(number) for number in range(6)]
            return [_loss(point) for point in points if point]

        assert statistics.median(losses(known)) < statistics.median(losses([])) / 2


def _branin(point: Point) -> float:
    x, y = float(point["x"]), float(point["y"])
    curve = y - 5.1 / (4 * math.pi**2) * x * x + 5 / math.pi * x - 6
    return curve**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10


_PLANE = [double(-5.0, 10.0, name="x"), double(0.0, 15.0, name="y")]


def _best(
    strategy: str,
    seed: int,
    function: Callable[[Point], float] = _branin,
    trials: int = 30,
    parallel: int = 1,
    sign: int = 1,
    state: str = "SUCCEEDED",
) -> float:
    direction = "minimize" if sign > 0 else "maximize"
    search = _search(_PLANE, strategy, seed, [direction])
    values, running = [], []
    for number in range(trials):
        point = search.ask(number)
        assert point is not None
        values.append(function(point))
        running.append(
            _trial(number, point, sign * values[-1], state, reports=(sign * values[-1],))
        )
        if len(running) == parallel:
            search.tell(running.pop(0))
    return min(values)


class TestQuality:
    """The least of Branin's function is 0.3979."""

    @pytest.mark.parametrize("parallel", [1, 4])
    def test_bayesian_is_far_better_than_chance(self, parallel: int) -> None:
        seeds = range(3)

        ours = [_best("bayesian", seed, parallel=parallel) - 0.3979 for seed in seeds]
        chance = [_best("random", seed) - 0.3979 for seed in seeds]

        assert statistics.median(ours) < statistics.median(chance) / 20
        assert max(ours) < 0.1

    @pytest.mark.parametrize("strategy", _MODELS)
    def test_maximizing_is_minimizing_the_negative(self, strategy: str) -> None:
        assert _best(strategy, 3, sign=-1, trials=20) == _best(strategy, 3, trials=20)

    def test_a_gaussian_process_learns_from_what_was_stopped_early(self) -> None:
        assert _best("gp", 1, state="EARLY_STOPPED") == _best("gp", 1)

    def test_trials_that_diverged_do_not_blur_the_others(self) -> None:
        def diverging(point: Point) -> float:
            return _branin(point) if float(point["x"]) < 6 else 1e12 + float(point["y"])

        assert statistics.median(_best("gp", seed, diverging) for seed in range(3)) < 0.45

    def test_parzen_estimators_are_better_than_chance(self) -> None:
        ours = [_best("tpe", seed, trials=60) for seed in range(9)]
        chance = [_best("random", seed, trials=60) for seed in range(9)]

        assert statistics.median(ours) < statistics.median(chance)

    @pytest.mark.parametrize("strategy", _MODELS)
    @pytest.mark.parametrize(
        "value", [lambda _: 1.0, lambda p: 1e300 * (float(p["x"]) - 2)], ids=["same", "huge"]
    )
    def test_no_values_stop_a_search(self, strategy: str, value: Callable[[Point], float]) -> None:
        assert math.isfinite(_best(strategy, 1, value, trials=20))


class TestConstraints:
    @pytest.mark.parametrize("strategy", _MODELS)
    def test_the_search_keeps_to_where_they_hold(self, strategy: str) -> None:
        search = _search(_PLANE, strategy, constraints=2)
        kept = []
        for number in range(45):
            point = search.ask(number)
            assert point is not None
            violations = (float(point["x"]) - 0.0, math.inf if number == 11 else -1.0)
            kept.append(violations[0] <= 0)
            search.tell(_trial(number, point, _branin(point), violations=violations))

        # Two of the three places where the function is least are forbidden, and so are two
        # thirds of the space.
        assert statistics.mean(kept[20:]) > 0.7

    @pytest.mark.parametrize("strategy", _MODELS)
    def test_a_first_point_that_keeps_them_is_found(self, strategy: str) -> None:
        search = _search(_PLANE, strategy, constraints=1)
        least = math.inf
        for number in range(40):
            point = search.ask(number)
            assert point is not None
            away = math.hypot(float(point["x"]) - 8, float(point["y"]) - 14) - 0.5
            least = min(least, away)
            search.tell(_trial(number, point, float(point["x"]), violations=(away,)))

        assert least <= (0.7 if strategy == "tpe" else 0)


class TestSeveralObjectives:
    def test_are_sought_by_parzen_estimators(self) -> None:
        search = _search(_PLANE, "bayesian", directions=["minimize", "maximize"])
        for number in range(40):
            point = search.ask(number)
            assert point is not None
            state = "EARLY_STOPPED" if number % 7 == 1 else "SUCCEEDED"
            values = float(point["x"]), -abs(float(point["y"]) - 5)
            search.tell(_trial(number, point, state=state, values=values, reports=(1.0,)))
        last = [search.ask(number) for number in range(40, 50)]

        assert search.sampler.startswith("Parzen estimators")
        assert statistics.median(abs(float(one["y"]) - 5) for one in last if one) < 2.5

    def test_are_refused_by_a_gaussian_process(self) -> None:
        with pytest.raises(BadInputError) as refused:
            _search(strategy="gp", directions=["minimize", "minimize"])

        assert refused.value.code == "StrategyUnsuited"
        assert "tpe" in refused.value.hint


def test_what_chooses_is_told() -> None:
    told = {strategy: _search(strategy=strategy).sampler for strategy in _STRATEGIES}

    assert len(set(told.values())) == len(_STRATEGIES)
    assert told["bayesian"].startswith("Gaussian process: ")


def test_many_trials_are_left_to_parzen_estimators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bayesian, "LARGEST_MODEL", 12)
    automatic, gaussian, parzen = (_search(_PLANE, one) for one in _MODELS)
    for number in range(14):
        point = automatic.ask(number)
        assert point is not None
        if number < 12:
            assert gaussian.ask(number) == point
        ended = _trial(number, point, _branin(point))
        for search in (automatic, gaussian, parzen):
            search.tell(ended)

    assert automatic.ask(14) == parzen.ask(14) != gaussian.ask(14)


def test_a_model_without_a_result_gives_way_to_chance(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: object) -> None:
        raise bayesian.AlikeError

    monkeypatch.setattr(bayesian, "propose", failing)

    assert math.isfinite(_best("gp", 1, trials=12))
    assert "Trial 11 gets a point by chance" in caplog.text
