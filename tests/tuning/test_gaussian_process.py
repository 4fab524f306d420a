"""The Gaussian process: its formulas, and what it makes of little and of much."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from tuning import gaussian_process
from tuning.gaussian_process import Array, GaussianProcess

_ORDERED = np.zeros(2, dtype=np.bool_)
_MIXED = np.array([False, True])


def _wave(points: Array) -> Array:
    found: Array = np.sin(6 * points[:, 0]) + points[:, 1] ** 2
    return found


def _points(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).random((count, 2))


def _mixed(count: int) -> Array:
    points = _points(count)
    points[:, 1] = np.floor(points[:, 1] * 3) / 3
    return points


@pytest.mark.parametrize("unordered", [_ORDERED, _MIXED], ids=["ordered", "mixed"])
def test_the_gradient_of_the_fit_is_right(unordered: gaussian_process.Mask) -> None:
    points = _mixed(15)
    differences = gaussian_process._squared_differences(points, points, unordered)
    flat, values = differences.reshape(2, -1), _wave(points)
    theta = np.array([0.3, -1.0, 0.5, -4.0])

    found = gaussian_process._loss(theta, flat, values)[1]
    expected = approx_fprime(theta, lambda at: gaussian_process._loss(at, flat, values)[0], 1e-7)

    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("unordered", [_ORDERED, _MIXED], ids=["ordered", "mixed"])
def test_mean_and_variance_have_the_right_gradients(unordered: gaussian_process.Mask) -> None:
    known, asked = _mixed(20), _mixed(6) + np.array([0.01, 0])
    process = GaussianProcess(known, _wave(known), unordered)

    seen = process.posterior(asked)
    mean, variance = process.predict(asked)

    assert seen.mean == pytest.approx(mean)
    assert seen.variance == pytest.approx(variance, abs=1e-9)
    for place in np.flatnonzero(~unordered):
        step = np.zeros(2)
        step[place] = 1e-5
        above, below = process.predict(asked + step), process.predict(asked - step)
        assert seen.mean_gradient[:, place] == pytest.approx(
            (above[0] - below[0]) / 2e-5, rel=1e-3, abs=1e-5
        )
        assert seen.variance_gradient[:, place] == pytest.approx(
            (above[1] - below[1]) / 2e-5, rel=1e-3, abs=1e-4
        )
    assert (seen.mean_gradient[:, unordered] == 0).all()


def test_a_smooth_function_is_known_from_some_points() -> None:
    known, others = _points(40), _points(30, seed=1)
    process = GaussianProcess(known, _wave(known), _ORDERED)

    assert process.noise < 1e-3
    assert process.means() == pytest.approx(_wave(known), abs=0.02)
    mean, variance = process.predict(others)
    assert mean == pytest.approx(_wave(others), abs=0.1)
    assert (np.abs(mean - _wave(others)) < 5 * np.sqrt(variance) + 0.01).mean() > 0.9


def test_what_does_not_matter_gets_a_small_weight() -> None:
    points = _points(40)
    values = np.sin(6 * points[:, 0])

    process = GaussianProcess(points, values, _ORDERED)

    assert process.weights[1] < process.weights[0] / 10


def test_noise_is_taken_for_noise() -> None:
    points = _points(120)
    noise = np.random.default_rng(3).normal(scale=0.5, size=120)

    process = GaussianProcess(points, _wave(points) + noise, _ORDERED)

    assert 0.1 < process.noise < 0.5
    assert np.abs(process.means() - _wave(points)).mean() < np.abs(noise).mean() / 1.5


def test_values_without_an_order_are_all_alike_far_apart() -> None:
    points = np.array([[0.5, 0.1], [0.5, 0.2], [0.5, 0.9]])
    process = GaussianProcess(points, np.array([1.0, 0.0, -1.0]), _MIXED)

    _, variance = process.predict(np.array([[0.5, 0.11], [0.5, 0.5], [0.5, 0.2]]))

    assert variance[0] == pytest.approx(variance[1])
    assert variance[2] < variance[0]


def test_a_belief_makes_sure_and_changes_no_mean() -> None:
    known, asked = _points(12), np.array([[0.5, 0.5]])
    process = GaussianProcess(known, _wave(known), _ORDERED)
    mean, variance = process.predict(asked)

    process.believe(asked)

    assert process.predict(asked)[0] == pytest.approx(mean, abs=1e-3)
    assert process.predict(asked)[1] < variance / 2
    assert len(process.means()) == 13


@pytest.mark.parametrize(
    "points",
    [np.full((12, 2), 0.5), np.repeat(_points(3), 4, axis=0), 0.5 + 1e-12 * _points(12)],
    ids=["one point", "three points", "next to each other"],
)
def test_points_that_are_alike_are_no_trouble(points: Array) -> None:
    values = np.random.default_rng(1).normal(size=12)

    process = GaussianProcess(points, values, _ORDERED)

    assert np.isfinite(process.predict(_points(4))).all()


def test_what_cannot_be_computed_is_told() -> None:
    with pytest.raises(gaussian_process.IndistinguishableError):
        gaussian_process._inverse(np.array([[1.0, 2.0], [2.0, 1.0]]))
