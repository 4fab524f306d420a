"""Models of scikit-learn, and others that predict as they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelyard_runtime.frames import Array, Columns
from modelyard_runtime.models.base import (
    INPUT,
    PREDICTION,
    PROBABILITIES,
    Model,
    ModelError,
    features,
    outputs,
)


class Estimator(Model):
    """An estimator with ``predict``, and ``predict_proba`` where it has probabilities."""

    def __init__(self, estimator: Any) -> None:
        if not callable(getattr(estimator, "predict", None)):
            raise ModelError(
                f"The file holds a {type(estimator).__name__}, which has no predict()."
            )
        self._estimator = estimator
        self._names = [str(name) for name in getattr(estimator, "feature_names_in_", ())]
        self._width = int(getattr(estimator, "n_features_in_", 0))

    @property
    def platform(self) -> str:
        """The package that the estimator is of."""
        return type(self._estimator).__module__.partition(".")[0]

    @property
    def inputs(self) -> Sequence[tuple[str, str, tuple[int, ...]]]:
        """One tensor of features; unknown where they have names, and may be texts."""
        return [(INPUT, "FP64", (-1, self._width))] if self._width and not self._names else []

    def infer(self, inputs: Columns) -> Columns:
        """``prediction``, and ``probabilities`` in the order of the estimator's ``classes_``."""
        data = self._documents(inputs)
        if data is None:
            data = self._table(features(inputs, self._names, self._width))
        probabilities = self._probabilities(data)
        if probabilities is None:
            return outputs(self._estimator.predict(data))
        if _is_forest(self._estimator):  # whose predict() would ask every tree once more
            prediction = self._estimator.classes_.take(np.argmax(probabilities, axis=1))
        else:
            prediction = self._estimator.predict(data)
        return outputs({PREDICTION: prediction, PROBABILITIES: probabilities})

    def _documents(self, inputs: Columns) -> Array | None:
        """The texts that a pipeline takes which begins with a vectorizer; None of another."""
        if len(inputs) != 1 or self._names or self._width:
            return None
        (column,) = inputs.values()
        return column if column.dtype == object and isinstance(column[0], str) else None

    def _table(self, found: Array | Mapping[str, Array]) -> Any:
        """What the estimator was fitted with: a data frame where it knows names."""
        if self._names or (isinstance(found, Mapping) and _has_texts(found)):
            import pandas as pd  # noqa: PLC0415 (not every model's environment has it)

            if isinstance(found, Mapping):
                return pd.DataFrame(found, copy=False)
            return pd.DataFrame(found, columns=self._names, copy=False)
        return found if isinstance(found, np.ndarray) else np.column_stack(list(found.values()))

    def _probabilities(self, data: Any) -> Array | None:
        if not hasattr(self._estimator, "predict_proba"):
            return None
        found = self._estimator.predict_proba(data)
        # Of several targets there is a list, one array for each.
        return found if isinstance(found, np.ndarray) and found.ndim == 2 else None


def _is_forest(estimator: Any) -> bool:
    """Whether ``predict`` is the likeliest class by definition, and costs all of it once more."""
    kind = type(estimator)
    return kind.__module__ == "sklearn.ensemble._forest" and np.ndim(estimator.classes_[0]) == 0


def _has_texts(columns: Mapping[str, Array]) -> bool:
    return any(column.dtype == object for column in columns.values())
