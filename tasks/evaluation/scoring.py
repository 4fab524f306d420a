"""An evaluation's metrics, of records beside their predictions, in constant memory."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from modelyard_runtime.frames import Array

from infra.errors import RunFailedError
from registry.flow_kinds import EVALUATE
from tasks.evaluation import bootstrap, class_labels, error_curves, row_sample
from tasks.evaluation.class_labels import MISSING, UNKNOWN, ClassLabels
from tasks.evaluation.classification_metrics import ClassificationResult, ClassificationSums
from tasks.evaluation.evaluation_request import Evaluation
from tasks.evaluation.figures import CheckOver
from tasks.evaluation.joined_records import JoinedBatch
from tasks.evaluation.regression_metrics import RegressionSums
from tasks.evaluation.row_counts import RowCounts
from tasks.evaluation.row_sample import RowSample
from tasks.evaluation.slicing import MOST_SLICES, SliceNumbers


@dataclass(frozen=True)
class Scores:
    """The outcome of an evaluation.

    Attributes:
        counts: What became of the records.
        overall: Metrics, undefined ones, notes, and of a classification the confusion matrix.
        slices: The same by the values of the field to slice by.
        intervals: 95 % intervals of the metrics of all records.
        curves: Curves of the classes by name, and ``micro``; of a regression, of its ``errors``.
        sample: Columns of sampled rows.
        targets_sha256: Checksum of all true values in their order.
    """

    counts: RowCounts
    overall: dict[str, Any]
    slices: dict[str, dict[str, Any]]
    intervals: dict[str, tuple[float, float]]
    curves: dict[str, Any]
    sample: dict[str, Array]
    targets_sha256: str


class Scorer:
    """Scores records batch by batch."""

    def __init__(self, request: Evaluation, folder: Path, check_over: CheckOver) -> None:
        """Score as ``request`` asks, with files in ``folder``."""
        self._request = request
        self._labels = ClassLabels(request.class_names)
        self._slices = SliceNumbers(request.slice_field)
        most = MOST_SLICES + 1 if request.slice_field else 1
        self._counts = RowCounts()
        self._targets = hashlib.sha256()
        self._sample = RowSample(row_sample.most_rows(len(self._labels)))
        self._is_classification = request.task == "classification"
        self._classes = ClassificationSums(request.class_names, most, folder, check_over)
        self._numbers = [RegressionSums() for _ in range(most + 1)]
        self._check_over = check_over
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Scorer:
        self._closing.enter_context(self._classes)
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def add(self, name: str, batches: Iterable[JoinedBatch]) -> None:
        """Add the records of the file ``name``, in its order.

        Raises:
            RunFailedError: ``SlicesTooMany`` or ``ClassNamesMismatch``.
        """
        self._targets.update(f"{name}\n".encode())
        for batch in batches:
            self._counts.records += len(batch.rows)
            if not batch.is_readable:
                self._counts.unreadable += len(batch.rows)
                continue
            texts = class_labels.texts(batch.targets)
            self._targets.update("\0".join(map(str, texts.tolist())).encode() + b"\n")
            if self._is_classification:
                self._add_classes(name, batch)
            else:
                self._add_numbers(name, batch)

    def _add_classes(self, name: str, batch: JoinedBatch) -> None:
        targets = self._labels.indices(batch.targets)
        self._counts.missing_targets += int(np.count_nonzero(targets == MISSING))
        self._counts.add_unseen(batch.targets[targets == UNKNOWN].tolist())
        known = targets >= 0
        self._counts.failed += int(np.count_nonzero(known & ~batch.is_predicted))
        chosen = known & batch.is_predicted
        if not chosen.any():
            return
        among = known[batch.is_predicted]
        answers, probabilities = self._answers(batch, among)
        targets, rows = targets[chosen], batch.rows[chosen]
        self._counts.evaluated += len(rows)
        self._counts.unknown_predictions += int(np.count_nonzero(answers < 0))
        if probabilities is not None:
            likeliest = np.where(np.isnan(probabilities), -np.inf, probabilities).argmax(axis=1)
            self._counts.contradictions += int(np.count_nonzero(answers != likeliest))
        self._classes.add(targets, answers, probabilities, self._sliced(batch, chosen))
        columns = {"target": targets, "prediction": answers}
        if probabilities is not None:
            columns["probabilities"] = probabilities
        self._sample.add(row_sample.hashes(name, rows), columns)

    def _answers(self, batch: JoinedBatch, among: Array) -> tuple[Array, Array | None]:
        """Predicted classes and probabilities, of ``among`` the predicted records."""
        classes = len(self._labels)
        found, probabilities = batch.predictions, batch.probabilities
        if probabilities is None and found.ndim == 2 and found.shape[1] == classes:
            found, probabilities = found[:, 0], found  # an answer that is the probabilities
            likeliest = True
        else:
            likeliest = bool(found.dtype == object and all(one is None for one in found.tolist()))
        scores = None if probabilities is None else self._probabilities(probabilities[among])
        if likeliest and scores is not None:
            return np.where(np.isnan(scores), -np.inf, scores).argmax(axis=1), scores
        return self._labels.indices(_flat(found)[among]), scores

    def _probabilities(self, found: Array) -> Array:
        """Probabilities of the shape (rows, classes); NaN where one is missing.

        Raises:
            RunFailedError: With the code ``ClassNamesMismatch``.
        """
        classes = len(self._labels)
        if found.dtype == object:
            found = np.array([_numbers(one, classes) for one in found.tolist()]).reshape(
                len(found), -1
            )
        found = found.astype(np.float64).reshape(len(found), -1)
        if classes == 2 and found.shape[1] == 1:  # of the second class alone
            found = np.hstack([1 - found, found])
        if found.shape[1] != classes:
            raise RunFailedError(
                f"The model gives {found.shape[1]} probabilities, and class_names has {classes} "
                "names.",
                "Name every class of the model, in the order of its probabilities.",
                state=EVALUATE.failure,
                code="ClassNamesMismatch",
            )
        return found

    def _add_numbers(self, name: str, batch: JoinedBatch) -> None:
        targets = _floats(batch.targets)
        texts = class_labels.texts(batch.targets)
        is_missing = np.array([text is None for text in texts.tolist()], bool)
        known = np.isfinite(targets)
        self._counts.missing_targets += int(np.count_nonzero(is_missing))
        self._counts.add_unseen(batch.targets[~known & ~is_missing].tolist())
        self._counts.failed += int(np.count_nonzero(known & ~batch.is_predicted))
        answers = np.full(len(targets), np.nan)
        answers[batch.is_predicted] = _floats(_flat(batch.predictions))
        chosen = known & batch.is_predicted & np.isfinite(answers)
        self._counts.missing_predictions += int(
            np.count_nonzero(known & batch.is_predicted & ~np.isfinite(answers))
        )
        targets, answers = targets[chosen], answers[chosen]
        self._counts.evaluated += len(targets)
        slices = self._sliced(batch, chosen)
        for number in np.unique(slices).tolist():
            own = slices == number
            self._numbers[number].add(targets[own], answers[own])
        self._numbers[-1].add(targets, answers)
        ids = row_sample.hashes(name, batch.rows[chosen])
        self._sample.add(ids, {"target": targets, "prediction": answers})

    def _sliced(self, batch: JoinedBatch, chosen: Array) -> Array:
        values = None if batch.slices is None else batch.slices[chosen]
        return self._slices.numbers(values, int(np.count_nonzero(chosen)))

    def scores(self) -> Scores:
        """The outcome of all records.

        Raises:
            RunFailedError: With the code ``NothingToEvaluate``.
        """
        counts = self._counts
        if not counts.evaluated:
            raise RunFailedError(
                f"None of {counts.records:,} records can be evaluated. "
                f"{' '.join(counts.sentences())}",
                "Check target_field and class_names, and the errors of the batch inference.",
                state=EVALUATE.failure,
                code="NothingToEvaluate",
            )
        values = self._slices.values
        sample = self._sample.columns()
        names = self._request.class_names if self._is_classification else None
        if names is not None:
            counts.off_sums = self._classes.off_sums
            counts.missing_probabilities = self._classes.unscored
            results = self._classes.results()
            found = [one.as_json(names) for one in results]
            curves = _curves(results[-1], names)
            rows = [int(one.matrix.sum()) for one in results]
        else:
            found = [one.figures().as_json() for one in self._numbers]
            rows = [one.rows for one in self._numbers]
            errors = error_curves.of(sample)
            curves = {"errors": errors} if errors else {}
        shown = [{"records": many, **one} for many, one in zip(rows, found, strict=True)]
        slices = dict(zip(values, shown, strict=False))
        intervals = bootstrap.intervals(
            shown[-1]["metrics"], sample, counts.evaluated, names, self._check_over
        )
        targets = self._targets.hexdigest()
        return Scores(counts, shown[-1], slices, intervals, curves, sample, targets)


def _curves(result: ClassificationResult, names: list[str]) -> dict[str, Any]:
    found = {name: one.as_json() for name, one in zip(names, result.curves, strict=False)}
    if result.micro is not None:
        return {"classes": found, "micro": result.micro.as_json()}
    return {}


def _flat(values: Array) -> Array:
    """Values of records; a list of one value is that value."""
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else (
        values if values.ndim == 1 else np.array([str(one) for one in values.tolist()], object)
    )  # fmt: skip


def _floats(values: Array) -> Array:
    if values.dtype.kind in "biuf":
        return values.astype(np.float64)
    return np.array([_number(one) for one in values.tolist()], np.float64)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def _numbers(value: Any, count: int) -> list[float]:
    """Probabilities of a record; NaN for each where it has none."""
    if not isinstance(value, list):
        return [float("nan")] * count
    return [_number(one) for one in value]
