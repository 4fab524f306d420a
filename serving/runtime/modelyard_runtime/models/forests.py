"""Forests of scikit-learn, which predict without what costs more than their trees.

For each tree scikit-learn restores its own configuration and all filters of warnings: 8 ms for a
hundred trees, however few rows there are. Here the same numbers are added in the same order.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from modelyard_runtime.frames import Array

_MODULE = "sklearn.ensemble._forest"
_FEW_ROWS = 256
_TRIED_ROWS = 32


def quicken(estimator: Any) -> None:
    """Let a forest predict quicker, also one that is the last step of a pipeline.

    A forest stays as it is where its numbers would not be those of its own method, in whichever
    version of scikit-learn.
    """
    kind = type(estimator)
    if f"{kind.__module__}.{kind.__name__}" == "sklearn.pipeline.Pipeline":
        quicken(estimator.steps[-1][1])
    elif kind.__module__ == _MODULE and getattr(estimator, "n_outputs_", 0) == 1:
        method = "predict_proba" if hasattr(estimator, "predict_proba") else "predict"
        means = _TreeMeans(estimator, getattr(estimator, method))
        if means.are_the_forest_s():
            setattr(estimator, method, means)


class _TreeMeans:
    """The method of a forest that returns the means of what its trees predict."""

    def __init__(self, forest: Any, own: Any) -> None:
        self._forest = forest
        self._own = own
        self._trees = [one.tree_ for one in forest.estimators_]
        self._is_flat = not hasattr(forest, "classes_")

    def __call__(self, X: Any) -> Any:
        """What the forest's own method returns, or raises."""
        rows = self._rows(X)
        return self._own(X) if rows is None else self._mean(rows)

    def are_the_forest_s(self) -> bool:
        """Whether the means are what the forest's own method returns."""
        tried = np.random.default_rng(0).normal(size=(_TRIED_ROWS, self._forest.n_features_in_))
        rows = tried.astype(np.float32)
        jobs, self._forest.n_jobs = self._forest.n_jobs, 1  # else they add in any order
        try:
            with warnings.catch_warnings(action="ignore"):  # that the columns have no names
                return np.array_equal(self._own(rows), self._mean(rows))
        except Exception:  # noqa: BLE001 (one of another version: it fails when it is asked)
            return False
        finally:
            self._forest.n_jobs = jobs

    def _rows(self, X: Any) -> Array | None:
        """The rows as trees take them; None where the forest is to look at them itself."""
        kinds = {X.dtype} if isinstance(X, np.ndarray) else set(getattr(X, "dtypes", ()))
        names = list(getattr(self._forest, "feature_names_in_", ()))
        if (
            not kinds
            or not all(isinstance(kind, np.dtype) and kind.kind in "biuf" for kind in kinds)
            or list(getattr(X, "columns", ())) != names
            or np.shape(X)[1:] != (self._forest.n_features_in_,)
        ):
            return None
        # Jobs share the trees of many rows, and are worth what they cost.
        if not len(X) or (len(X) > _FEW_ROWS and self._forest.n_jobs not in {None, 1}):
            return None
        with np.errstate(over="ignore"):
            rows = np.asarray(X, np.float32)
        return rows if np.isfinite(rows).all() else None

    def _mean(self, rows: Array) -> Array:
        total = np.zeros((len(rows), self._trees[0].value.shape[-1]))
        for tree in self._trees:
            total += tree.predict(rows)
        total /= len(self._trees)
        return total[:, 0] if self._is_flat else total
