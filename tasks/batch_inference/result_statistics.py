"""Statistics of what a model predicted, small and of any number of records.

A part's are kept with it; those of all parts are added up in the order of the parts, so that they
do not depend on which shard predicted what.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from modelyard_runtime import predictions
from modelyard_runtime.frames import Array, Columns
from modelyard_runtime.models.base import PREDICTION

from registry import metric_names

_MOST_CLASSES = 1000
_SAMPLE = 2000
_MOST_SHARES = 50


class ResultStatistics:
    """Counts, sums and samples of the output ``prediction`` and of its probabilities."""

    def __init__(self) -> None:
        self._outputs: list[str] = []
        self._rows = 0
        self._missing = 0
        self._classes: collections.Counter[str] = collections.Counter()
        self._numbers = _Sample()
        self._confidence = 0.0
        self._confident = 0
        self._seconds = _Sample()

    def add(self, outputs: Columns, seconds: float) -> None:
        """Add a batch, which took ``seconds``."""
        self._outputs = self._outputs or list(outputs)
        self._rows += len(next(iter(outputs.values())))
        self._seconds.add(np.array([seconds]))
        confidences = predictions.confidences(outputs)
        if confidences is not None:
            self._confidence += float(np.nansum(confidences))
            self._confident += len(confidences)
        if PREDICTION in outputs:
            self._add_predictions(outputs[PREDICTION], predictions.classes(outputs))

    def _add_predictions(self, found: Array, classes: list[str] | None) -> None:
        if found.dtype.kind == "f" and found.ndim > 0:
            missing = ~np.isfinite(found.reshape(len(found), -1)).all(axis=1)
            self._missing += int(np.count_nonzero(missing))
        elif found.dtype == object:
            self._missing += sum(map(_is_missing, found.tolist()))
        if classes is not None:
            for value, count in collections.Counter(classes).items():
                name = predictions.class_name(value)
                if name in self._classes or len(self._classes) < _MOST_CLASSES:
                    self._classes[name] += count
        elif found.ndim == 1 and found.dtype.kind in "iuf":
            self._numbers.add(found[np.isfinite(found)])

    def summary(self) -> Mapping[str, Any]:
        """The statistics as plain data; see :func:`combined`."""
        return {
            "outputs": self._outputs,
            "rows": self._rows,
            "missing": self._missing,
            "classes": dict(self._classes),
            "confidence": self._confidence,
            "confident": self._confident,
            "numbers": self._numbers.values,
            "number_count": self._numbers.count,
            "seconds": self._seconds.values,
        }


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not np.isfinite(value))


class _Sample:
    """A uniform sample of numbers that come one after another (reservoir sampling)."""

    def __init__(self) -> None:
        self.count = 0
        self.values: list[float] = []
        self._random = np.random.default_rng(0)

    def add(self, numbers: Array) -> None:
        free = min(_SAMPLE - len(self.values), len(numbers))
        self.values += numbers[:free].tolist()
        self.count += free
        rest = numbers[free:]
        # The n-th number takes a random place of n, and counts if it is one of the sample's.
        places = self._random.integers(0, self.count + 1 + np.arange(len(rest)))
        for at in np.flatnonzero(places < _SAMPLE):
            self.values[places[at]] = float(rest[at])
        self.count += len(rest)


@dataclass(frozen=True)
class CombinedStatistics:
    """Statistics of all parts.

    Attributes:
        metrics: Values by the names of metrics.
        classes: How often each class was predicted.
        numbers: A sample of the numbers that were predicted.
        seconds: A sample of what batches took.
    """

    metrics: Mapping[str, float]
    classes: Mapping[str, int] = field(default_factory=dict)
    numbers: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


_QUANTILES = {"p05": 0.05, "p50": 0.5, "p95": 0.95}


def combined(parts: Iterable[Mapping[str, Any]]) -> CombinedStatistics:
    """The statistics of parts, in their order, as metrics and as what plots show.

    Shares of classes are of all predictions, the mean confidence is of the likeliest class, and
    quantiles are of a sample of the predictions: of each part as many as it has of all.
    """
    found = list(parts)
    classes: collections.Counter[str] = collections.Counter()
    for part in found:
        classes.update(part["classes"])
    numbers = _merged([(part["numbers"], part["number_count"]) for part in found])
    seconds = _merged([(part["seconds"], len(part["seconds"])) for part in found])
    rows = sum(classes.values())
    metrics = {"missing_predictions": float(sum(part["missing"] for part in found))}
    if 0 < len(classes) <= _MOST_SHARES:
        for name, count in classes.items():
            share = f"share/{metric_names.part(name)}"
            metrics[metric_names.unique(share, metrics)] = count / rows
    if confident := sum(part["confident"] for part in found):
        metrics["mean_confidence"] = sum(part["confidence"] for part in found) / confident
    for what, sample in (("prediction", numbers), ("batch_seconds", seconds)):
        if sample:
            values = np.quantile(sample, list(_QUANTILES.values()))
            named = zip(_QUANTILES, values.tolist(), strict=True)
            metrics |= {f"{what}/{name}": value for name, value in named}
    return CombinedStatistics(metrics, dict(classes.most_common()), numbers, seconds)


def _merged(samples: list[tuple[list[float], int]]) -> list[float]:
    """One sample of several, each of which stands for its count."""
    total = sum(count for _, count in samples)
    if total == 0:
        return []
    rate = min(len(values) / count for values, count in samples if count)
    chosen = np.random.default_rng(0)
    return [
        value
        for values, count in samples
        if count
        for value in chosen.choice(values, max(1, round(count * rate)), replace=False).tolist()
    ]
