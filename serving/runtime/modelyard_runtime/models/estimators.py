"""Models of scikit-learn, and others that predict as they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import Any

import numpy as np

from modelyard_runtime.frames import Array, Columns
from modelyard_runtime.models import forests
from modelyard_runtime.models.base import (
    INPUT,
    PREDICTION,
    PROBABILITIES,
    Model,
    ModelError,
    features,
    outputs,
)


class _Likeliest(Enum):
    """Whether an estimator's ``predict`` is the class of the greatest probability.

    It would then compute once more what the probabilities have cost.

    Attributes:
        ALWAYS: By definition.
        BUT_TIES: It is that of the greatest score, with which probabilities rise; rounding may
            have made equals of them.
        UNKNOWN: It may be another, as that of a support vector machine, whose probabilities are
            fitted apart from its scores.
    """

    ALWAYS = auto()
    BUT_TIES = auto()
    UNKNOWN = auto()

    def is_predicted(self, probabilities: Array) -> bool:
        """Whether it is, for all of these rows."""
        if self is not _Likeliest.BUT_TIES:
            return self is _Likeliest.ALWAYS
        two = np.partition(probabilities, -2, axis=1)[:, -2:]
        return bool((two[:, 1] - two[:, 0] > _NEAR).all())


_NEAR = 1e-9
_OF_MODULES = {
    "sklearn.ensemble._forest": _Likeliest.ALWAYS,
    "sklearn.tree._classes": _Likeliest.ALWAYS,
    "sklearn.ensemble._gb": _Likeliest.BUT_TIES,
    "sklearn.ensemble._hist_gradient_boosting.gradient_boosting": _Likeliest.BUT_TIES,
    "sklearn.linear_model._logistic": _Likeliest.BUT_TIES,
    "sklearn.naive_bayes": _Likeliest.BUT_TIES,
    "sklearn.neural_network._multilayer_perceptron": _Likeliest.BUT_TIES,
}


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
        self._likeliest = _likeliest(estimator)
        forests.quicken(estimator)

    @property
    def platform(self) -> str:
        """The package that the estimator is of."""
        return type(self._estimator).__module__.partition(".")[0]

    @property
    def inputs(self) -> Sequence[tuple[str, str, tuple[int, ...]]]:
        """One tensor of features; unknown where they have names, and may be texts."""
        return [(INPUT, "FP64", (-1, self._width))] if self._width and not self._names else []

    def is_refusal(self, error: Exception) -> bool:
        """Also what vectorizers raise of values that are no texts."""
        return isinstance(error, AttributeError) or super().is_refusal(error)

    def infer(self, inputs: Columns) -> Columns:
        """``prediction``, and ``probabilities`` in the order of the estimator's ``classes_``."""
        data = self._documents(inputs)
        if data is None:
            data = self._table(features(inputs, self._names, self._width))
        probabilities = self._probabilities(data)
        if probabilities is None:
            return outputs(self._estimator.predict(data))
        if self._likeliest.is_predicted(probabilities):
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
                columns = list(found.values())
                if {(one.dtype, one.ndim) for one in columns} == {(columns[0].dtype, 1)}:
                    # One block of memory, which estimators take as it is.
                    return pd.DataFrame(np.stack(columns).T, columns=list(found), copy=False)
                return pd.DataFrame(found, copy=False)
            return pd.DataFrame(found, columns=self._names, copy=False)
        return found if isinstance(found, np.ndarray) else np.column_stack(list(found.values()))

    def _probabilities(self, data: Any) -> Array | None:
        if not hasattr(self._estimator, "predict_proba"):
            return None
        found = self._estimator.predict_proba(data)
        # Of several targets there is a list, one array for each.
        return found if isinstance(found, np.ndarray) and found.ndim == 2 else None


def _likeliest(estimator: Any) -> _Likeliest:
    kind = type(estimator)
    if f"{kind.__module__}.{kind.__name__}" == "sklearn.pipeline.Pipeline":
        return _likeliest(estimator.steps[-1][1])
    classes = getattr(estimator, "classes_", None)
    if not isinstance(classes, np.ndarray) or len(classes) < 2:  # several targets, or none
        return _Likeliest.UNKNOWN
    if getattr(estimator, "out_activation_", "") == "logistic" and estimator.n_outputs_ > 1:
        return _Likeliest.UNKNOWN  # a network of several labels, each with a probability
    return _OF_MODULES.get(kind.__module__, _Likeliest.UNKNOWN)


def _has_texts(columns: Mapping[str, Array]) -> bool:
    return any(column.dtype == object for column in columns.values())
