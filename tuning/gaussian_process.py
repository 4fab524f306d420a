"""Gaussian process regression of a function from noisy values at some points.

On numpy and scipy alone. The kernel is Matern 5/2 with a length scale for each dimension; two
values of an unordered dimension are at distance 1, or 0 where they are the same. Length scales,
the signal's variance and the noise's are those of the greatest posterior density, under the
priors that Optuna's sampler uses. Everything is computed anew from what is given, so that there
is nothing that could be lost. See Rasmussen and Williams, "Gaussian Processes for Machine
Learning" (2006), chapters 2 and 5, for the formulas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack, solve_triangular
from scipy.optimize import minimize

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_ROOT_5 = math.sqrt(5)
_FIT_STEPS = 60
_STARTS = (1.0, 0.3)  # length scales that the fit begins with; the better end counts
_LEAST_NOISE = 1e-7
_JITTER = 1e-10  # of the signal's variance
_LEAST_VARIANCE = 1e-18  # likewise

# Weights and variances are fitted as logarithms, between these.
_WEIGHTS = (-14.0, 14.0)
_SCALE = (-7.0, 7.0)
_NOISE = (math.log(_LEAST_NOISE), 2.0)

_WEIGHT_PRIOR = 0.1  # density exp(-0.1 (w + 1/w)): length scales from a third to three
_SCALE_PRIOR = (2.0, 1.0)  # a gamma density's shape and rate
_NOISE_PRIOR = (1.1, 30.0)


class IndistinguishableError(ArithmeticError):
    """The points are too similar to be distinguished."""


@dataclass(frozen=True)
class Posterior:
    """Mean and variance of the function at m points, and their gradients (m by dimensions)."""

    mean: Array
    variance: Array
    mean_gradient: Array
    variance_gradient: Array


class GaussianProcess:
    """The posterior of a function that was observed, with noise, at n points of the unit cube.

    Attributes:
        weights: For each dimension, of its squared differences: 1 / length scale².
        scale: The signal's variance.
        noise: The noise's variance.
    """

    def __init__(self, points: Array, values: Array, unordered: Mask) -> None:
        """Fit to what was observed.

        Args:
            points: n by dimensions, in the unit cube.
            values: One for each point, with a mean of about 0 and a variance of about 1.
            unordered: Which dimensions have values without an order.

        Raises:
            IndistinguishableError: If that cannot be computed.
        """
        self._unordered = unordered
        self._points, self._values = points, values
        theta = self._fit()
        self.weights = np.exp(theta[:-2])
        self.scale, self.noise = math.exp(theta[-2]), math.exp(theta[-1])
        self._condition()

    def _fit(self) -> Array:
        differences = _squared_differences(self._points, self._points, self._unordered)
        dimensions = len(differences)
        best: tuple[float, Array] | None = None
        for length in _STARTS:
            start = np.zeros(dimensions + 2)
            start[:-2] = -2 * math.log(length)
            start[-1] = math.log(1e-3)
            found = minimize(
                _loss,
                start,
                args=(differences.reshape(dimensions, -1), self._values),
                jac=True,
                method="L-BFGS-B",
                bounds=[_WEIGHTS] * dimensions + [_SCALE, _NOISE],
                options={"maxiter": _FIT_STEPS},
            )
            if best is None or found.fun < best[0]:
                best = float(found.fun), found.x
        assert best is not None
        return best[1]

    def _condition(self) -> None:
        squared = np.tensordot(
            self.weights, _squared_differences(self._points, self._points, self._unordered), 1
        )
        covariance = self.scale * _matern(squared)[0]
        covariance[np.diag_indices_from(covariance)] += self.noise + _JITTER * self.scale
        self._factor, inverse = _inverse(covariance)
        self._dual = inverse @ self._values

    def believe(self, points: Array) -> None:
        """Condition on the mean at ``points``, whose values are pending."""
        means, _ = self.predict(points)
        self._points = np.concatenate([self._points, points])
        self._values = np.concatenate([self._values, means])
        self._condition()

    def means(self) -> Array:
        """Mean at each observed and each believed point."""
        return self.predict(self._points)[0]

    def predict(self, points: Array) -> tuple[Array, Array]:
        """Mean and variance of the function, without its noise, at m ``points``."""
        lengths = np.sqrt(self.weights) * ~self._unordered
        a, b = points * lengths, self._points * lengths
        squared = (a * a).sum(1)[:, None] + (b * b).sum(1)[None, :] - 2 * (a @ b.T)
        np.maximum(squared, 0, out=squared)
        for place in np.flatnonzero(self._unordered):
            differ = points[:, place, None] != self._points[None, :, place]
            squared += self.weights[place] * differ
        cross = self.scale * _matern(squared)[0]
        half = solve_triangular(self._factor, cross.T, lower=True, check_finite=False)
        return cross @ self._dual, self._variance(half)

    def posterior(self, points: Array) -> Posterior:
        """As :meth:`predict`, with gradients, which are 0 along unordered dimensions."""
        differences = points[:, None, :] - self._points[None, :, :]
        distances = differences**2
        distances[..., self._unordered] = distances[..., self._unordered] > 0
        correlation, slope = _matern(distances @ self.weights)
        cross = self.scale * correlation
        half = solve_triangular(self._factor, cross.T, lower=True, check_finite=False)
        back = solve_triangular(self._factor, half, lower=True, trans=1, check_finite=False)
        by_point = 2 * self.scale * slope[..., None] * differences * self.weights
        by_point[..., self._unordered] = 0
        return Posterior(
            mean=cross @ self._dual,
            variance=self._variance(half),
            mean_gradient=np.einsum("mnd,n->md", by_point, self._dual),
            variance_gradient=-2 * np.einsum("mnd,nm->md", by_point, back),
        )

    def _variance(self, half: Array) -> Array:
        explained = (half * half).sum(0)
        found: Array = np.maximum(self.scale - explained, _LEAST_VARIANCE * self.scale)
        return found


def _squared_differences(a: Array, b: Array, unordered: Mask) -> Array:
    """By dimension: the squared difference of each of ``a`` to each of ``b``."""
    found: Array = (a.T[:, :, None] - b.T[:, None, :]) ** 2
    found[unordered] = found[unordered] > 0
    return found


def _matern(squared: Array) -> tuple[Array, Array]:
    """The correlation at squared distances, and its derivative by the squared distance."""
    root = _ROOT_5 * np.sqrt(squared)
    decay = np.exp(-root)
    return (1 + root + root * root / 3) * decay, (-5 / 6) * (1 + root) * decay


def _inverse(covariance: Array) -> tuple[Array, Array]:
    """The lower Cholesky factor, and the inverse."""
    factor, failed = lapack.dpotrf(covariance, lower=1, clean=1)
    if failed:
        raise IndistinguishableError
    inverse, failed = lapack.dpotri(factor, lower=1)
    if failed:
        raise IndistinguishableError
    return factor, inverse + np.tril(inverse, -1).T


def _loss(theta: Array, differences: Array, values: Array) -> tuple[float, Array]:
    """The negative logarithm of the posterior density, and its gradient.

    Args:
        theta: Logarithms of the weights, of the signal's variance and of the noise's.
        differences: Squared ones, dimensions by n².
        values: n.
    """
    weights, scale, noise = np.exp(theta[:-2]), math.exp(theta[-2]), math.exp(theta[-1])
    count = len(values)
    correlation, slope = _matern((weights @ differences).reshape(count, count))
    covariance = scale * correlation
    covariance[np.diag_indices(count)] += noise + _JITTER * scale
    factor, inverse = _inverse(covariance)
    dual = inverse @ values
    loss = 0.5 * float(values @ dual) + float(np.log(np.diag(factor)).sum())
    by_covariance = 0.5 * (inverse - np.outer(dual, dual))
    gradient = np.empty_like(theta)
    gradient[:-2] = scale * weights * (differences @ (by_covariance * slope).ravel())
    gradient[-2] = scale * float((by_covariance * (correlation + _JITTER * np.eye(count))).sum())
    gradient[-1] = noise * float(np.trace(by_covariance))

    loss += _WEIGHT_PRIOR * float((weights + 1 / weights).sum())
    gradient[:-2] += _WEIGHT_PRIOR * (weights - 1 / weights)
    for place, value, (shape, rate) in ((-2, scale, _SCALE_PRIOR), (-1, noise, _NOISE_PRIOR)):
        loss += rate * value - (shape - 1) * float(theta[place])
        gradient[place] += rate * value - (shape - 1)
    return loss, gradient
