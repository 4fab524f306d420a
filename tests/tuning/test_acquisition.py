"""Where the model would look next."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import integrate, stats

from tuning import acquisition
from tuning.acquisition import Dimension, Observations, log_improvement, normal, propose
from tuning.gaussian_process import Array, GaussianProcess

_PLANE = [Dimension(), Dimension()]
_NOTHING = np.empty((0, 2))


def _seen(points: Array, values: Array, **others: Array) -> Observations:
    violations = others.get("violations", np.empty((len(points), 0)))
    return Observations(points, values, violations, others.get("pending", _NOTHING))


def _bowl(points: Array) -> Array:
    found: Array = ((points - [0.3, 0.7]) ** 2).sum(axis=1)
    return found


def _points(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).random((count, 2))


def _proposed(seen: Observations, dimensions: list[Dimension] = _PLANE, seed: int = 1) -> Array:
    return propose(dimensions, seen, np.random.default_rng(seed))


class TestLogImprovement:
    @pytest.mark.parametrize("z", [-6.0, -3.0, -1.001, -0.999, 0.0, 2.0, 8.0])
    def test_is_what_integration_gives(self, z: float) -> None:
        expected = integrate.quad(
            lambda t: (z - t) * stats.norm.pdf(t), -40, z, epsabs=0, points=[z - 1, z - 5]
        )[0]

        assert log_improvement(np.array([z]))[0][0] == pytest.approx(np.log(expected), rel=1e-6)

    def test_has_the_right_derivative(self) -> None:
        z = np.array([-300.0, -20.0, -1.5, -0.5, 0.0, 3.0])

        slope = (log_improvement(z + 1e-6)[0] - log_improvement(z - 1e-6)[0]) / 2e-6

        assert log_improvement(z)[1] == pytest.approx(slope, rel=1e-4)

    def test_never_ends_falling(self) -> None:
        z = -np.geomspace(1e-3, 1e9, 400)

        value, slope = log_improvement(z)

        assert (np.diff(value) < 0).all()
        assert np.isfinite(slope).all()
        assert (np.diff(slope) > 0).all()


class TestNormal:
    @pytest.mark.parametrize(
        "values",
        [
            np.arange(10.0),
            np.exp(np.arange(10.0)),
            -np.exp(np.arange(10.0)),
            np.array([0.5, 0.4, 1e12, 0.45, 1e300, 0.41]),
            np.array([-1e308, 1e308, 0.0, 5.0]),
            np.array([1.0, 1.0, 1.0, 1.0, 1.5]),
            np.array([0.0, 5e-324, 1e-323]),
            np.array([0.0, 1e-300, 2e-300, 3e-300, 1e90]),
        ],
    )
    def test_keeps_the_order(self, values: Array) -> None:
        found = normal(values)

        assert found is not None
        assert found.mean() == pytest.approx(0, abs=1e-9)
        assert found.std() == pytest.approx(1)
        for (a, x), (b, y) in itertools.combinations(zip(values, found, strict=True), 2):
            assert (x <= y) if a < b else (x >= y)

    def test_lets_no_outlier_hide_the_others(self) -> None:
        good = np.array([0.50, 0.40, 0.45, 0.41, 0.38, 0.60, 0.55])

        found = normal(np.append(good, [1e12, 1e300]))

        assert found is not None
        assert np.ptp(found[:7]) > 1

    @pytest.mark.parametrize("value", [0.0, 3.0, -1e300])
    def test_cannot_be_had_of_the_same_value(self, value: float) -> None:
        assert normal(np.full(5, value)) is None


class TestPropose:
    def test_goes_to_the_lowest_point_of_a_bowl(self) -> None:
        points = _points(15)

        first = _proposed(_seen(points, _bowl(points)))[0]

        assert first == pytest.approx([0.3, 0.7], abs=0.05)

    def test_is_the_same_for_the_same_seed(self) -> None:
        points = _points(12)
        seen = _seen(points, np.sin(9 * points[:, 0]) + points[:, 1])

        assert (_proposed(seen) == _proposed(seen)).all()

    def test_stays_away_from_what_is_pending(self) -> None:
        points = _points(15)
        values = np.sin(8 * points[:, 0]) + points[:, 1]
        first = _proposed(_seen(points, values))[:1]

        second = _proposed(_seen(points, values, pending=first))[:1]

        assert np.abs(first - second).max() > 0.005

    def test_finds_the_best_of_discrete_values(self) -> None:
        levels = (np.arange(5) + 0.5) / 5
        dimensions = [Dimension(), Dimension(levels), Dimension(levels, unordered=True)]
        rng = np.random.default_rng(0)
        points = np.column_stack([rng.random(50), rng.choice(levels, 50), rng.choice(levels, 50)])
        lost = (points[:, 0] - 0.3) ** 2 + (points[:, 1] - 0.7) ** 2
        lost += points[:, 2] != levels[1]
        seen = Observations(points, lost, np.empty((50, 0)), np.empty((0, 3)))

        found = propose(dimensions, seen, rng)

        assert found[0] == pytest.approx([0.3, 0.7, levels[1]], abs=0.05)
        assert set(found[:, 1]) <= set(levels)
        assert set(found[:, 2]) <= set(levels)

    def test_of_many_values_looks_at_some(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(acquisition, "_MOST_LEVELS", 4)
        levels = (np.arange(30) + 0.5) / 30
        points = np.column_stack([_points(20)[:, 0], np.resize(levels, 20)])

        found = _proposed(
            _seen(points, _bowl(points)), [Dimension(), Dimension(levels, unordered=True)]
        )

        assert set(found[:, 1]) <= set(levels)

    def test_chooses_among_given_points(self) -> None:
        points, among = _points(15), _points(8, seed=4)

        found = propose(_PLANE, _seen(points, _bowl(points)), np.random.default_rng(0), among)

        assert sorted(map(tuple, found)) == sorted(map(tuple, among))
        assert tuple(found[0]) == tuple(among[_bowl(among).argmin()])

    def test_learns_nothing_from_the_same_value(self) -> None:
        assert len(_proposed(_seen(_points(9), np.ones(9)))) == 0

    def test_learns_from_the_best_and_the_newest_of_many(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(acquisition, "_MOST_POINTS", 6)
        values = np.array([1.0, 9, 9, 0.5, 9, 9, 8, 7, 6, 5])

        kept = acquisition._select_informative(_seen(_points(10), values))

        assert kept.values.tolist() == [1.0, 0.5, 8, 7, 6, 5]
        assert len(kept.points) == len(kept.violations) == 6

    def test_has_the_right_gradient(self) -> None:
        points, asked = _points(15), _points(5, seed=2)
        ordered = np.zeros(2, dtype=np.bool_)
        constraint = acquisition._constraint(points, points[:, 0] - 0.4, ordered)
        assert constraint is not None
        values = normal(_bowl(points))
        assert values is not None
        process = GaussianProcess(points, values, ordered)
        promise = acquisition._AcquisitionFunction(process, float(values.min()), [constraint])

        value, gradient = promise.gradient(asked)

        assert value == pytest.approx(promise(asked), rel=1e-6)
        for place in range(2):
            step = np.zeros(2)
            step[place] = 1e-6
            slope = (promise(asked + step) - promise(asked - step)) / 2e-6
            assert gradient[:, place] == pytest.approx(slope, rel=1e-3, abs=1e-2)


class TestConstraints:
    def test_move_the_proposal_to_where_they_hold(self) -> None:
        points = _points(25)
        violations = np.column_stack([0.5 - points[:, 0], np.full(25, -1.0)])

        first = _proposed(_seen(points, _bowl(points), violations=violations))[0]

        assert first == pytest.approx([0.5, 0.7], abs=0.06)

    def test_come_first_while_none_holds(self) -> None:
        points = _points(25)
        points = points[points[:, 0] < 0.8]
        violations = 0.9 - points[:, :1]

        first = _proposed(_seen(points, _bowl(points), violations=violations))[0]

        assert first[0] > 0.85

    @pytest.mark.parametrize("violation", [1.0, np.inf])
    def test_that_tell_nothing_do_not_count(self, violation: float) -> None:
        points = _points(15)

        first = _proposed(_seen(points, _bowl(points), violations=np.full((15, 1), violation)))

        assert first[0] == pytest.approx([0.3, 0.7], abs=0.05)

    def test_may_be_violated_beyond_all_measure(self) -> None:
        points = _points(25)
        violations = np.where(points[:, :1] < 0.5, 1e308, -1e-300)

        first = _proposed(_seen(points, _bowl(points), violations=violations))[0]

        assert first == pytest.approx([0.5, 0.7], abs=0.15)
