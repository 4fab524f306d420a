"""How the errors of a regression are distributed, of a sample of its rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from modelyard_runtime.frames import Array

_STEPS = 100  # between quantiles
_MOST_BINS = 40  # fewer where they would hold few rows
_CENTRE = 0.99  # share of the residuals between the histogram's ends
_MOST_POINTS = 500
_LARGEST = 1e300  # beyond it a range may be no number


def of(sample: Mapping[str, Array]) -> dict[str, Any]:
    """The distribution of errors as plain data; empty without rows.

    Args:
        sample: Columns ``target`` and ``prediction`` of rows in random order.

    Returns:
        ``quantiles`` of absolute errors, at equal shares of the rows from 0 to 1; the histogram of
        residuals, the prediction minus the true value: its ``edges`` and ``counts``, the outermost
        of which have all that lie beyond; ``targets`` and ``predictions`` of some rows.
    """
    if "target" not in sample:
        return {}
    with np.errstate(over="ignore"):
        residuals = sample["prediction"] - sample["target"]
    is_known = np.abs(residuals) < _LARGEST
    residuals = residuals[is_known]
    if not len(residuals):
        return {}
    tail = (1 - _CENTRE) / 2
    low, high = np.quantile(residuals, [tail, 1 - tail])
    bins = min(_MOST_BINS, math.isqrt(len(residuals) - 1) + 1)
    counts, edges = np.histogram(np.clip(residuals, low, high), bins, _widened(low, high))
    return {
        "quantiles": np.quantile(np.abs(residuals), np.linspace(0, 1, _STEPS + 1)).tolist(),
        "edges": edges.tolist(),
        "counts": counts.tolist(),
        "targets": sample["target"][is_known][:_MOST_POINTS].tolist(),
        "predictions": sample["prediction"][is_known][:_MOST_POINTS].tolist(),
    }


def _widened(low: float, high: float) -> tuple[float, float]:
    """A range that bins fit into, also where all residuals are the same."""
    least = 1e-9 * max(abs(low), abs(high), 1e-9)
    return (
        (low, high)
        if high - low > least
        else (low - least * _MOST_BINS, high + least * _MOST_BINS)
    )
