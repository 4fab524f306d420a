"""Paired bootstrap: how far figures, also those of the same rows, differ by chance.

Every replicate gives the rows weights, the same ones for all models, as the Bayesian bootstrap of
Rubin (1981) does. Where the sample has fewer rows than were evaluated, the weights are those of as
many as were evaluated, so that intervals are as wide as those of all rows.

Rows that a model has all right say nothing of how often it is wrong, so a plain bootstrap is sure
of what 30 rows cannot show. Each replicate is therefore weighed with one row more that the model
gets wrong, for the lower bound, and with one that it gets right, for the upper one. For the share
of rows that are right this is the exact interval of Clopper and Pearson (1934), for the difference
of two models the exact test of McNemar, and for means the bound of Gaffke (2005).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from modelyard_runtime.frames import Array

from tasks.evaluation import classification_metrics
from tasks.evaluation.figures import CheckOver

REPLICATES = 1000
_OWN_REPLICATES = 400  # of one model, for people to see and not for a gate
_SEED = 20_260_101
# Scores of a sample, over its classes, that each replicate ranks.
_MOST_SCORES = 150_000

# A model's figures of weighted rows by name; NaN where one is undefined. The first weights are for
# figures of one class, the second for those of all classes together.
Weigh = Callable[[Array, Array], dict[str, float]]


@dataclass(frozen=True)
class PairedSample:
    """Rows that several models have predicted.

    Attributes:
        targets: True values: numbers of classes, or numbers.
        predictions: Of each model its predictions.
        probabilities: Of each model its probabilities; None if it has none.
        rows: How many rows were evaluated.
    """

    targets: Array
    predictions: Sequence[Array]
    probabilities: Sequence[Array | None]
    rows: int


def pair(samples: Sequence[Mapping[str, Array]], rows: int) -> PairedSample:
    """The rows that all samples have, in one order.

    Args:
        samples: Columns ``id``, ``target``, ``prediction`` and maybe ``probabilities``.
        rows: How many rows were evaluated.
    """
    shared = samples[0]["id"]
    for sample in samples[1:]:
        shared = np.intersect1d(shared, sample["id"])
    chosen = [np.searchsorted(sample["id"], shared) for sample in samples]
    columns = list(zip(samples, chosen, strict=True))
    return PairedSample(
        samples[0]["target"][chosen[0]],
        [sample["prediction"][at] for sample, at in columns],
        [sample["probabilities"][at] if "probabilities" in sample else None
         for sample, at in columns],
        max(rows, len(shared)),
    )  # fmt: skip


def replicates(
    sample: PairedSample,
    names: Sequence[str] | None,
    count: int = REPLICATES,
    check_over: CheckOver = lambda: None,
) -> list[dict[str, Array]]:
    """How figures deviate from those of the sample, by name, for each model.

    Args:
        sample: The rows.
        names: Names of the classes; None for a regression.
        count: How many replicates are drawn.
        check_over: Called before each of them; raises to end it.

    Returns:
        Deviations of the figures in each replicate, which is the same one for all models: of the
        shape (2, replicates), with one row more that the model gets wrong, and that it gets right.
    """
    with np.errstate(all="ignore"):  # a figure that overflows is undefined
        return _replicates(sample, names, count, check_over)


def _replicates(
    sample: PairedSample, names: Sequence[str] | None, count: int, check_over: CheckOver
) -> list[dict[str, Array]]:
    rows = _rows_drawn(len(sample.targets), names)
    models = range(len(sample.predictions))
    if not rows:
        return [{} for _ in models]
    weighers = [
        [_weigher(sample, at, rows, names, is_right=right) for right in (False, True)]
        for at in models
    ]
    more = 1 if names is None else len(names)
    plain = np.append(np.ones(rows), np.zeros(more))
    whole = [wrong(plain, plain) for wrong, _ in weighers]
    drawn = [{name: np.empty((2, count)) for name in one} for one in whole]
    random = np.random.default_rng(_SEED)
    for at in range(count):
        check_over()
        weights, overall = _draw(random, rows, max(rows, sample.rows), more)
        for own, both in zip(drawn, weighers, strict=True):
            for side, weigh in enumerate(both):
                for name, value in weigh(weights, overall).items():
                    own[name][side, at] = value
    return [
        {name: _finite(values - first[name]) for name, values in own.items()}
        for own, first in zip(drawn, whole, strict=True)
    ]


def _finite(deviations: Array) -> Array:
    """Deviations with NaN for what has overflowed, so that their differences are no infinities."""
    return np.where(np.isfinite(deviations), deviations, np.nan)


def intervals(
    values: Mapping[str, float | None],
    sample: Mapping[str, Array],
    rows: int,
    names: Sequence[str] | None,
    check_over: CheckOver,
) -> dict[str, tuple[float, float]]:
    """The 95 % intervals of one model's figures, of those that have one.

    As many rows are drawn as the sample has, which is quick; where more were evaluated, the
    deviations are scaled down by the root of their ratio.

    Args:
        values: Its figures of all rows.
        sample: Columns of its sampled rows, as of :func:`pair`.
        rows: How many rows were evaluated.
        names: Names of the classes; None for a regression.
        check_over: Called often; raises to end it.
    """
    chosen = _rows_drawn(len(sample["id"]), names)
    paired = pair([{name: column[:chosen] for name, column in sample.items()}], chosen)
    (drawn,) = replicates(paired, names, _OWN_REPLICATES, check_over)
    scale = (chosen / max(chosen, rows)) ** 0.5 if chosen else 1.0
    found = {}
    for name, value in values.items():
        apart = interval(drawn[name] * scale) if name in drawn else None
        if value is not None and apart is not None:
            low, high = value + apart[0], value + apart[1]
            if math.isfinite(low) and math.isfinite(high):
                found[name] = (low, high)
    return found


def _rows_drawn(rows: int, names: Sequence[str] | None) -> int:
    """Of how many rows of a sample replicates are drawn: of fewer with many classes."""
    return rows if names is None else min(rows, max(1000, _MOST_SCORES // len(names)))


def _draw(random: np.random.Generator, rows: int, total: int, more: int) -> tuple[Array, Array]:
    """Weights of ``rows``, about ``total`` in all, and of ``more`` others.

    A figure of one class has its own row more, one of all classes together, a mean too, a row of
    any of them: the second weights.
    """
    weights = random.standard_gamma(total / rows, rows)
    each = random.standard_exponential(more)
    one = np.where(np.arange(more) == random.integers(more), each, 0.0)
    return np.append(weights, each), np.append(weights, one)


def interval(deviations: Array, level: float = 0.95) -> tuple[float, float] | None:
    """The interval of ``level`` around 0 in which figures deviate by chance; None if unknown.

    Of deviations of the shape (2, replicates) it has both sides' quantiles. It is unknown where a
    figure is undefined in more than a twentieth of the replicates.
    """
    bounds = []
    for side in np.atleast_2d(deviations):
        known = side[np.isfinite(side)]
        if not len(side) or len(known) < 0.95 * len(side):
            return None
        bounds.append(np.quantile(known, [(1 - level) / 2, (1 + level) / 2]))
    lows, highs = zip(*bounds, strict=True)
    return float(min(lows)), float(max(highs))


def _weigher(
    sample: PairedSample, model: int, rows: int, names: Sequence[str] | None, *, is_right: bool
) -> Weigh:
    """Weigh the rows, and behind them those that the model gets right, or wrong.

    In a regression that is the row with its smallest error, or its largest one; else a row of each
    class, in the order of the classes.
    """
    targets, predictions = sample.targets[:rows], sample.predictions[model][:rows]
    if names is None:
        errors = np.abs(targets - predictions)
        more = errors.argmin() if is_right else errors.argmax()
        return _numbers(np.append(targets, targets[more]),
                        np.append(predictions, predictions[more]))  # fmt: skip
    classes = np.arange(len(names))
    guessed = classes if is_right else (classes + 1) % len(names)
    scores = sample.probabilities[model]
    if scores is not None:
        scores = np.concatenate([scores[:rows], np.eye(len(names))[guessed]])
    return _classes(
        np.append(targets, classes), np.append(predictions, guessed), scores, names, rows
    )


def _dot(one: Array, other: Array) -> Any:
    """The sum of products, in this thread.

    BLAS shares it among threads, which spin while they wait for each other: on a busy machine that
    took three times the processor time of all the rest.
    """
    return np.einsum("i,i->", one, other)


def _numbers(targets: Array, predictions: Array) -> Weigh:
    errors = np.abs(targets - predictions)
    squares = np.square(errors)
    centred = targets - targets.mean() if len(targets) else targets
    relative = errors / np.abs(targets)
    logs = np.square(np.log1p(targets) - np.log1p(predictions))
    logs[(targets < 0) | (predictions < 0)] = np.nan

    def weigh(weights: Array, _: Array) -> dict[str, float]:
        total = weights.sum()
        spread = _dot(weights, np.square(centred)) - _dot(weights, centred) ** 2 / total
        found = {
            "mae": _dot(weights, errors) / total,
            "mape": _dot(weights, relative) / total,
            "r2": 1 - _dot(weights, squares) / spread if spread else np.nan,
            "rmse": np.sqrt(_dot(weights, squares) / total),
            "rmsle": np.sqrt(_dot(weights, logs) / total),
        }
        return {name: float(value) for name, value in found.items()}

    return weigh


def _classes(
    targets: Array, predictions: Array, scores: Array | None, names: Sequence[str], rows: int
) -> Weigh:
    """Weigh rows of classes; those behind the first ``rows`` lose no more than these do."""
    count = len(names)
    cells = targets * (count + 1) + np.where(predictions < 0, count, predictions)
    rankers = []
    micro = losses = None
    if scores is not None and np.isfinite(scores).all():
        is_class = targets[:, None] == np.arange(count)
        rankers = [_Ranker(scores[:, [at]], is_class[:, [at]]) for at in range(count)]
        micro = _Ranker(scores, is_class)
        if (np.abs(scores.sum(axis=1) - 1) <= classification_metrics.SUM_TOLERANCE).all():
            losses = classification_metrics.row_losses(targets, scores)
            losses = np.clip(losses, losses[:rows].min(), losses[:rows].max())

    def matrix_of(weights: Array) -> Array:
        return np.bincount(cells, weights, count * (count + 1)).reshape(count, count + 1)

    def weigh(weights: Array, overall: Array) -> dict[str, float]:
        matrix = matrix_of(overall)
        found = _of_all(matrix)
        for metric, values in _of_classes(matrix_of(weights)).items():
            found |= _each(metric, values, names)
        for metric, values in _of_classes(matrix, or_0=True).items():
            found |= _means(metric, values, matrix.sum(axis=1))
        if losses is not None:
            found["log_loss"] = float(_dot(overall, losses) / overall.sum())
        if rankers:
            own = np.array([ranker.areas(weights) for ranker in rankers])
            pooled = np.array([ranker.areas(overall) for ranker in rankers])
            for at, metric in enumerate(classification_metrics.RANKING):
                found |= _each(metric, own[:, at], names)
                found |= _means(metric, pooled[:, at], matrix.sum(axis=1))
        if micro is not None:
            areas = zip(classification_metrics.RANKING, micro.areas(overall), strict=True)
            found |= {f"{metric}_micro": area for metric, area in areas}
        return found

    return weigh


def _of_all(matrix: Array) -> dict[str, float]:
    right, guessed, total = np.trace(matrix), matrix[:, :-1].sum(), matrix.sum()
    return {
        "accuracy": float(right / total),
        "precision_micro": float(right / guessed) if guessed else np.nan,
        "recall_micro": float(right / total),
        "f1_micro": float(2 * right / (guessed + total)),
    }


def _of_classes(matrix: Array, *, or_0: bool = False) -> dict[str, Array]:
    """Figures of each class; ``or_0``, as means count a class that occurs and is not predicted."""
    hits, predicted, support = np.diagonal(matrix), matrix[:, :-1].sum(axis=0), matrix.sum(axis=1)
    precision = hits / predicted
    if or_0:  # as in confusion.add_figures
        precision = np.where((support > 0) & (predicted == 0), 0.0, precision)
    return {
        "precision": precision,
        "recall": hits / support,
        "f1": 2 * hits / (predicted + support),
    }


def _each(metric: str, values: Array, names: Sequence[str]) -> dict[str, float]:
    return {f"{metric}/{name}": float(one) for name, one in zip(names, values, strict=True)}


def _means(metric: str, values: Array, support: Array) -> dict[str, float]:
    """Means over the classes for which a figure is defined."""
    known = np.isfinite(values)
    weights = support[known]
    total = weights.sum()
    return {
        metric: float(values[known].mean()) if known.any() else np.nan,
        f"{metric}_weighted": float(weights @ values[known] / total) if total else np.nan,
    }


class _Ranker:
    """Areas below the curves of one class, or of several together, of weighted rows.

    The scores are sorted once.

    Only where rows of the class are, a curve goes up, so all but the running total of the weights
    is computed there.
    """

    def __init__(self, scores: Array, is_positive: Array) -> None:
        """Sort scores, which are of their class or not; both of the shape (rows, classes)."""
        order = np.argsort(-scores, axis=None, kind="stable")
        ordered = scores.reshape(-1)[order]
        self._rows = order // scores.shape[1]
        ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
        self._positive = np.flatnonzero(is_positive.reshape(-1)[order])
        # Rows of the same score are one step; those without a row of the class do not count.
        steps, self._first = np.unique(np.searchsorted(ends, self._positive), return_index=True)
        self._until = ends[steps] + 1
        self._from = np.where(steps > 0, ends[steps - 1] + 1, 0)
        # Of each replicate, in the same memory: to get it anew takes as long as to compute.
        self._weights = np.empty(len(ordered))
        self._total = np.zeros(len(ordered) + 1)

    def areas(self, weights: Array) -> tuple[float, float]:
        """The area below the ROC curve, and the average precision; NaN if undefined."""
        if not len(self._positive):
            return np.nan, np.nan
        own, total = self._weights, self._total
        np.take(weights, self._rows, out=own, mode="clip")  # other modes copy it
        np.cumsum(own, out=total[1:])
        until = total[self._until]
        gained = np.add.reduceat(own[self._positive], self._first)
        hits = np.cumsum(gained)
        positives, negatives = hits[-1], total[-1] - hits[-1]
        if not positives:
            return np.nan, np.nan
        area = np.nan
        if negatives:
            # Of the others at the same score, half count as ranked below.
            alarms = until - hits
            same = until - total[self._from] - gained
            ranked = _dot(gained, negatives - alarms + same / 2)
            area = ranked / (positives * negatives)
        precision = np.divide(hits, until, out=np.zeros_like(hits), where=until > 0)
        return float(area), float(_dot(gained, precision) / positives)
