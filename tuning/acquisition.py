"""Where to look next: the points that promise most, given what was observed.

The promise is the logarithm of the expected improvement over the least mean so far, after Ament
et al., "Unexpected Improvements to Expected Improvement for Bayesian Optimization" (2023), times
the probability that every constraint holds. Points that are being tried already are believed to
give what the model expects of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special
from scipy.optimize import minimize

from tuning.gaussian_process import Array, GaussianProcess, Mask

_FAR = -1e4  # deviations
_LOG_ROOT_2_PI = 0.5 * math.log(2 * math.pi)
_CANDIDATES = 1024
_NEAREST = 5  # of the best points so far, candidates are drawn near to these,
_DISTANCES = (0.1, 0.01, 0.001)  # so far away,
_NEAR = 34  # and so many at each distance
_CLIMBERS = 8  # from candidates anywhere,
_NEAR_CLIMBERS = 2  # and near to the best points
_CLIMB_STEPS = 50
_CLIMB_ROUNDS = 3
_MOST_LEVELS = 256  # of a dimension, looked at in one round
_OFFERED = 60
_MOST_POINTS = 300  # more are not learned from: the cost grows with the cube

_HUGE = 1e100
_CURVATURES = (1000.0, 3.0, 1.0)
_FARTHEST = 1e6  # in units of what is usual
_REACH = 3.0


@dataclass(frozen=True)
class Dimension:
    """A dimension of the unit cube.

    Attributes:
        levels: The coordinates of its values; None if they are too many to list.
        unordered: Whether its values have no order; they have levels then.
    """

    levels: Array | None = None
    unordered: bool = False


@dataclass(frozen=True)
class Observations:
    """Observed and pending points.

    Attributes:
        points: The observed points: n by dimensions.
        values: The objective at each, to be minimized; finite.
        violations: Of each constraint at each: n by constraints; infinite where unknown.
        pending: The points of running trials.
    """

    points: Array
    values: Array
    violations: Array
    pending: Array


def propose(
    dimensions: Sequence[Dimension],
    seen: Observations,
    rng: np.random.Generator,
    among: Array | None = None,
) -> Array:
    """Propose points to try next, the best first; none if nothing can be learned.

    Args:
        dimensions: The unit cube's.
        seen: What is known, of one point at least.
        rng: What is drawn from.
        among: The points to choose from; None for all that the dimensions allow.

    Raises:
        IndistinguishableError: If the model cannot be computed.
    """
    seen = _select_informative(seen)
    unordered = np.array([dimension.unordered for dimension in dimensions])
    values = normal(seen.values)
    if values is None:
        return np.empty((0, len(dimensions)))
    objective = GaussianProcess(seen.points, values, unordered)
    constraints = [
        constraint
        for column in seen.violations.T
        if (constraint := _constraint(seen.points, column, unordered)) is not None
    ]
    if len(seen.pending):
        for process in (objective, *(each.process for each in constraints)):
            process.believe(seen.pending)
    means = objective.means()
    feasible = np.append(
        (seen.violations <= 0).all(axis=1),
        np.full(len(seen.pending), seen.violations.shape[1] == 0),
    )
    if feasible.any() or not constraints:
        least: float | None = float(means[feasible].min() if feasible.any() else means.min())
    else:
        least = None  # first of all, find a point that keeps the constraints
    promise = _AcquisitionFunction(objective, least, constraints)
    order = np.argsort(np.where(feasible, means, means + 1e3), kind="stable")
    best = np.concatenate([seen.points, seen.pending])[order[:_NEAREST]]
    if among is None:
        found, promised = _search(promise, dimensions, best, rng)
    else:
        found, promised = among, promise(among)
    usable = np.isfinite(promised)
    ranked: Array = found[usable][np.argsort(-promised[usable], kind="stable")]
    return ranked


def _select_informative(seen: Observations) -> Observations:
    """Select the best third and the newest of many points."""
    count = len(seen.values)
    if count <= _MOST_POINTS:
        return seen
    kept = np.zeros(count, dtype=np.bool_)
    kept[np.argsort(seen.values, kind="stable")[: _MOST_POINTS // 3]] = True
    others = np.flatnonzero(~kept)
    kept[others[len(others) - (_MOST_POINTS - _MOST_POINTS // 3) :]] = True
    return Observations(seen.points[kept], seen.values[kept], seen.violations[kept], seen.pending)


def normal(values: Array) -> Array | None:
    """``values`` with mean 0 and variance 1, in the same order; None if all are the same.

    The more the large ones lie apart, the more they are drawn together: of a few curves log(1 +
    x), that one counts under which the values are most like a normal distribution's (by the
    likelihood of Box and Cox), and what is still far out comes no further. So a training that
    diverged counts as bad, and does not blur the differences of the good ones.
    """
    values = np.clip(values, -_HUGE, _HUGE)
    above = values - values.min()
    unit = float(np.median(above)) or float(above.mean())
    if unit <= 0:
        return None
    with np.errstate(over="ignore"):
        above = np.minimum(above / unit, _FARTHEST)
    curved, likelihood = above, -math.inf
    for curvature in _CURVATURES:
        tried = np.log1p(above / curvature) * curvature
        spread = float(tried.var())
        if spread <= 0:
            continue
        tried_likelihood = -0.5 * len(values) * math.log(spread)
        tried_likelihood -= float(np.log1p(above / curvature).sum())
        if tried_likelihood > likelihood:
            curved, likelihood = tried, tried_likelihood
    middle = float(np.median(curved))
    if middle > 0:
        curved = np.minimum(curved, (1 + _REACH) * middle)
    spread = float(curved.std())
    found: Array = (curved - curved.mean()) / spread
    return found


@dataclass(frozen=True)
class _ConstraintModel:
    """Gaussian process of a constraint's violation, and its upper bound."""

    process: GaussianProcess
    threshold: float


def _constraint(points: Array, violations: Array, unordered: Mask) -> _ConstraintModel | None:
    """Model one constraint; None if its violation is constant."""
    known = np.isfinite(violations)
    told = violations[known]
    if not len(told) or told.min() == told.max():
        return None
    unit = float(np.median(np.abs(told))) or float(np.abs(told).max())
    with np.errstate(over="ignore"):
        curved = np.arcsinh(np.clip(told / unit, -_FARTHEST, _FARTHEST))
    if np.ptp(curved) == 0:
        return None
    middle, spread = float(curved.mean()), float(curved.std())
    process = GaussianProcess(points[known], (curved - middle) / spread, unordered)
    return _ConstraintModel(process, -middle / spread)


class _AcquisitionFunction:
    """Logarithmic acquisition function of points; larger is better."""

    def __init__(
        self,
        objective: GaussianProcess,
        least: float | None,
        constraints: Sequence[_ConstraintModel],
    ) -> None:
        """Improve on ``least``, unless it is None, within the constraints."""
        self.objective = objective
        self._least = least
        self._constraints = constraints

    def __call__(self, points: Array) -> Array:
        """Evaluate points."""
        total = np.zeros(len(points))
        if self._least is not None:
            mean, variance = self.objective.predict(points)
            deviation = np.sqrt(variance)
            total += np.log(deviation) + log_improvement((self._least - mean) / deviation)[0]
        for each in self._constraints:
            mean, variance = each.process.predict(points)
            total += special.log_ndtr((each.threshold - mean) / np.sqrt(variance))
        return total

    def gradient(self, points: Array) -> tuple[Array, Array]:
        """Evaluate points, with gradients."""
        total, gradient = np.zeros(len(points)), np.zeros_like(points)
        if self._least is not None:
            z, by_z, deviation, by_deviation = _standardized_margin(
                self.objective, points, self._least
            )
            value, slope = log_improvement(z)
            total += value + np.log(deviation)
            gradient += slope[:, None] * by_z + by_deviation / deviation[:, None]
        for each in self._constraints:
            z, by_z, _, _ = _standardized_margin(each.process, points, each.threshold)
            value = special.log_ndtr(z)
            total += value
            gradient += _hazard(z)[:, None] * by_z
        return total, gradient


def _standardized_margin(
    process: GaussianProcess, points: Array, level: float
) -> tuple[Array, Array, Array, Array]:
    """By how many deviations the mean is below ``level``, and the deviation; with gradients."""
    seen = process.posterior(points)
    deviation = np.sqrt(seen.variance)
    by_deviation = seen.variance_gradient / (2 * deviation)[:, None]
    z = (level - seen.mean) / deviation
    by_z = -(seen.mean_gradient + z[:, None] * by_deviation) / deviation[:, None]
    return z, by_z, deviation, by_deviation


def _hazard(z: Array) -> Array:
    """The derivative of log Phi(z)."""
    near = np.maximum(z, _FAR)
    found = np.exp(-0.5 * near * near - _LOG_ROOT_2_PI - special.log_ndtr(near))
    return np.where(z < _FAR, -z, found)


def log_improvement(z: Array) -> tuple[Array, Array]:
    """log(phi(z) + z Phi(z)) of the standard normal distribution, and its derivative."""
    value = np.empty_like(z)
    near = z > -1
    value[near] = np.log(
        np.exp(-0.5 * z[near] ** 2 - _LOG_ROOT_2_PI) + z[near] * special.ndtr(z[near])
    )
    far = -z[~near]
    # There the sum loses its digits, and from _FAR on the difference, which tends to -2 log.
    mild = np.minimum(far, -_FAR)
    rest = np.log1p(-math.sqrt(math.pi / 2) * mild * special.erfcx(mild / math.sqrt(2)))
    rest = np.where(far < mild + 1, rest, -2 * np.log(far))
    value[~near] = -0.5 * far**2 - _LOG_ROOT_2_PI + rest
    slope = np.exp(special.log_ndtr(np.maximum(z, _FAR)) - np.where(z < _FAR, 0, value))
    return value, np.where(z < _FAR, -z, slope)


def _search(
    promise: _AcquisitionFunction,
    dimensions: Sequence[Dimension],
    best: Array,
    rng: np.random.Generator,
) -> tuple[Array, Array]:
    """Search points with large values of the acquisition function, and return both."""
    candidates = _candidates(dimensions, best, rng)
    promised = promise(candidates)
    order = np.argsort(-promised, kind="stable")
    anywhere, near = order[order < _CANDIDATES], order[order >= _CANDIDATES]
    starts = np.concatenate(
        [candidates[anywhere[:_CLIMBERS]], candidates[near[:_NEAR_CLIMBERS]], best[:1]]
    )
    found, found_promised = _maximize(promise, dimensions, starts, rng)
    rest = order[:_OFFERED]
    return (
        np.concatenate([found, candidates[rest]]),
        np.concatenate([found_promised, promised[rest]]),
    )


def _candidates(dimensions: Sequence[Dimension], best: Array, rng: np.random.Generator) -> Array:
    """Generate points of the whole space, then some near the best ones."""
    near = np.repeat(best, _NEAR * len(_DISTANCES), axis=0)
    distances = np.tile(np.repeat(_DISTANCES, _NEAR), len(best))
    moved = near + rng.normal(size=near.shape) * distances[:, None]
    if len(dimensions) > 4:  # else too few would stay near in any of them
        moved = np.where(rng.random(near.shape) < 0.5, moved, near)
    points = np.concatenate([rng.random((_CANDIDATES, len(dimensions))), np.clip(moved, 0, 1)])
    for place, dimension in enumerate(dimensions):
        if dimension.levels is not None:
            column = dimension.levels[rng.integers(len(dimension.levels), size=len(points))]
            kept = rng.random(len(near)) < 0.7
            column[_CANDIDATES:] = np.where(kept, near[:, place], column[_CANDIDATES:])
            points[:, place] = column
    return points


def _maximize(
    promise: _AcquisitionFunction,
    dimensions: Sequence[Dimension],
    starts: Array,
    rng: np.random.Generator,
) -> tuple[Array, Array]:
    """Maximize from ``starts``, alternating between gradients and levels."""
    continuous = np.array([dimension.levels is None for dimension in dimensions])
    points, promised = starts.copy(), promise(starts)
    for _ in range(_CLIMB_ROUNDS):
        before = promised.copy()
        if continuous.any():
            _keep_better(points, promised, *_ascend(promise, points, continuous))
        for place, dimension in enumerate(dimensions):
            levels = dimension.levels
            if levels is None:
                continue
            if len(levels) > _MOST_LEVELS:
                levels = rng.choice(levels, _MOST_LEVELS, replace=False)
            tried = np.repeat(points, len(levels), axis=0)
            tried[:, place] = np.tile(levels, len(points))
            shape = len(points), len(levels)
            found = promise(tried).reshape(shape)
            top = np.arange(len(points)), found.argmax(axis=1)
            _keep_better(points, promised, tried.reshape(*shape, -1)[top], found[top])
        if continuous.all() or (promised <= before + 1e-6).all():
            break
    return points, promised


def _keep_better(points: Array, promised: Array, tried: Array, found: Array) -> None:
    better = found > promised
    points[better], promised[better] = tried[better], found[better]


def _ascend(promise: _AcquisitionFunction, points: Array, continuous: Mask) -> tuple[Array, Array]:
    """Follow the gradients from ``points``: one search for the sum of all values."""
    # In units of its length scale every dimension is about as steep.
    lengths = np.minimum(1.0, promise.objective.weights[continuous] ** -0.5)

    def placed(scaled: Array) -> Array:
        found = points.copy()
        found[:, continuous] = np.clip(scaled.reshape(len(points), -1) * lengths, 0, 1)
        return found

    def loss(scaled: Array) -> tuple[float, Array]:
        value, gradient = promise.gradient(placed(scaled))
        return -float(value.sum()), -(gradient[:, continuous] * lengths).ravel()

    found = minimize(
        loss,
        (points[:, continuous] / lengths).ravel(),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, 1 / length) for length in lengths] * len(points),
        options={"maxiter": _CLIMB_STEPS},
    )
    top = placed(found.x)
    return top, promise(top)
