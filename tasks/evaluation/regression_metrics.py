"""Errors of predicted numbers, added up in batches."""

from __future__ import annotations

import math

import numpy as np
from modelyard_runtime.frames import Array

from tasks.evaluation.figures import Figures

NAMES = ("mae", "mape", "r2", "rmse", "rmsle")
_EMPTY = "There are no rows."
_OVERFLOW = "It cannot be computed of numbers this large: a sum is beyond 1.8e308."


class RegressionSums:
    """Sums over rows from which the figures follow; batches are added in constant memory."""

    def __init__(self) -> None:
        self.rows = 0
        self.zero_targets = 0
        self.negative_targets = 0
        self.negative_predictions = 0
        self._absolute: list[float] = []
        self._relative: list[float] = []
        self._squares: list[float] = []
        self._log_squares: list[float] = []
        self._mean = self._spread = 0.0  # of targets: the mean, and the squares around it
        self._lowest, self._highest = math.inf, -math.inf  # likewise

    def add(self, targets: Array, predictions: Array) -> None:
        """Add rows; all values are finite numbers."""
        if not len(targets):
            return
        errors = np.abs(targets - predictions)
        _add(self._absolute, errors.sum())
        _add(self._squares, np.square(errors).sum())
        nonzero = targets != 0
        self.zero_targets += int(np.count_nonzero(~nonzero))
        _add(self._relative, (errors[nonzero] / np.abs(targets[nonzero])).sum())
        self.negative_targets += int(np.count_nonzero(targets < 0))
        self.negative_predictions += int(np.count_nonzero(predictions < 0))
        known = (targets >= 0) & (predictions >= 0)
        logs = np.log1p(targets[known]) - np.log1p(predictions[known])
        _add(self._log_squares, np.square(logs).sum())
        self._add_spread(targets)

    def _add_spread(self, targets: Array) -> None:
        """Merge a batch's mean and spread (Chan, Golub and LeVeque, 1979)."""
        count, mean = len(targets), float(targets.mean())
        self._lowest = min(self._lowest, float(targets.min()))
        self._highest = max(self._highest, float(targets.max()))
        total = self.rows + count
        apart = mean - self._mean
        self._spread += float(np.square(targets - mean).sum())
        self._spread += apart * apart * self.rows * count / total
        self._mean += apart * count / total
        self.rows = total

    def figures(self) -> Figures:
        """MAE, MAPE, R², RMSE and RMSLE."""
        found, rows = Figures(), self.rows
        if not rows:
            found.undefine(NAMES, _EMPTY)
            return found
        squares = math.fsum(self._squares)
        found.put("mae", math.fsum(self._absolute) / rows, _OVERFLOW)
        if self.zero_targets:
            found.put("mape", None, f"{self.zero_targets} targets are 0.")
        else:
            found.put("mape", math.fsum(self._relative) / rows, _OVERFLOW)
        self._put_explained(found, squares)
        found.put("rmse", math.sqrt(squares / rows), _OVERFLOW)
        negative = {"targets": self.negative_targets, "predictions": self.negative_predictions}
        reasons = [f"{many} {what} are below 0" for what, many in negative.items() if many]
        logs = None if reasons else math.sqrt(math.fsum(self._log_squares) / rows)
        found.put("rmsle", logs, f"{', and '.join(reasons)}.")
        return found

    def _put_explained(self, found: Figures, squares: float) -> None:
        """R², if the targets have a variance, which a float can hold."""
        if self.rows == 1:
            found.put("r2", None, "There is one row alone.")
        elif self._lowest == self._highest:
            found.put("r2", None, "All targets are the same.")
        elif not self._spread:
            found.put("r2", None, "The targets differ too little: the squares are 0.")
        else:
            is_known = math.isfinite(self._spread)
            found.put("r2", 1 - squares / self._spread if is_known else None, _OVERFLOW)


def _add(sums: list[float], value: float) -> None:
    """Add to a sum that is kept without rounding (Shewchuk's partials, as in ``math.fsum``).

    A sum that overflows is infinite from then on.
    """
    x = float(value)
    if not math.isfinite(x + sum(sums)):
        sums[:] = [math.inf]
        return
    kept = 0
    for y in sums:
        high = x + y
        low = (y - (high - x)) if abs(x) >= abs(y) else (x - (high - y))
        if low:
            sums[kept] = low
            kept += 1
        x = high
    sums[kept:] = [x]
