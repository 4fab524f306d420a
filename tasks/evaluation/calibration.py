"""How far probabilities can be believed, of a sample of the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from modelyard_runtime.frames import Array

_BINS = 10  # of equal width


def of(sample: Mapping[str, Array], names: Sequence[str]) -> dict[str, Any]:
    """The reliability curve of each class by its name; empty without probabilities.

    Rows are put together whose probabilities of the class are alike, as scikit-learn's
    ``calibration_curve`` does with its strategy ``uniform``.

    Args:
        sample: Columns ``target`` and ``probabilities`` of rows in random order.
        names: Names of the classes.

    Returns:
        Of each class, for the bins that have rows: ``probabilities``, which are their means,
        ``shares`` of rows that are of the class, and ``records``, how many rows there are.
    """
    if "probabilities" not in sample:
        return {}
    scored = np.isfinite(sample["probabilities"]).all(axis=1)
    scores, targets = sample["probabilities"][scored], sample["target"][scored]
    return {name: _curve(scores[:, at], targets == at) for at, name in enumerate(names)}


def _curve(scores: Array, is_class: Array) -> dict[str, Any]:
    inner = np.linspace(0, 1, _BINS + 1)[1:-1]
    bins = np.searchsorted(inner, scores)
    records = np.bincount(bins, minlength=_BINS)
    has_rows = records > 0
    found = {
        "probabilities": np.bincount(bins, scores, _BINS)[has_rows] / records[has_rows],
        "shares": np.bincount(bins, is_class, _BINS)[has_rows] / records[has_rows],
        "records": records[has_rows],
    }
    return {name: values.tolist() for name, values in found.items()}
