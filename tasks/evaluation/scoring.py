"""An evaluation's metrics, of records beside their predictions, in constant memory."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from modelyard_runtime.frames import Array

from infra.errors import RunFailedError
from registry.flow_kinds import EVALUATE
from tasks.evaluation import (
    answers,
    bootstrap,
    calibration,
    class_labels,
    classification_metrics,
    error_curves,
    row_sample,
)
from tasks.evaluation.answers import ClassReader
from tasks.evaluation.class_labels import MISSING, UNKNOWN, ClassLabels
from tasks.evaluation.classification_metrics import ClassificationResult, ClassificationSums
from tasks.evaluation.evaluation_request import Evaluation
from tasks.evaluation.figures import CheckOver
from tasks.evaluation.joined_records import JoinedBatch
from tasks.evaluation.regression_metrics import RegressionSums
from tasks.evaluation.row_counts import RowCounts, shown
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
        curves: Curves of the ``classes`` by name, ``micro``, and their ``calibration``; of a
            regression, of its ``errors``.
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

    def __init__(
        self, request: Evaluation, folder: Path, check_over: CheckOver, rows: int = 0
    ) -> None:
        """Score as ``request`` asks, with files in ``folder``, about ``rows`` records."""
        self._request = request
        self._labels = ClassLabels(request.class_names)
        self._reader = ClassReader(self._labels)
        self._slices = SliceNumbers(request.slice_field)
        most = MOST_SLICES + 1 if request.slice_field else 1
        self._counts = RowCounts()
        self._targets = hashlib.sha256()
        self._sample = RowSample(row_sample.most_rows(len(self._labels)))
        self._is_classification = request.task == "classification"
        self._classes = ClassificationSums(request.class_names, most, folder, check_over, rows)
        self._numbers = [RegressionSums() for _ in range(most + 1)]
        self._check_over = check_over
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Scorer:
        self._closing.enter_context(self._classes)
        # A figure that overflows is undefined, for a reason.
        self._closing.enter_context(np.errstate(all="ignore"))
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def add(
        self, name: str, batches: Iterable[JoinedBatch], report: Callable[[int], object] = int
    ) -> None:
        """Add the records of the file ``name``, in its order.

        Args:
            name: The file's name.
            batches: Its records.
            report: Called often, with how many records were added so far.

        Raises:
            RunFailedError: ``SlicesTooMany`` or ``ClassNamesMismatch``.
        """
        self._targets.update(f"{name}\n".encode())
        for batch in batches:
            report(self._counts.records)
            self._counts.records += len(batch.rows)
            if batch.fault:
                self._count_unreadable(name, batch)
                continue
            texts = class_labels.texts(batch.targets)
            self._targets.update("\0".join(map(str, texts.tolist())).encode() + b"\n")
            if self._is_classification:
                self._add_classes(name, batch)
            else:
                self._add_numbers(name, batch)

    def _add_classes(self, name: str, batch: JoinedBatch) -> None:
        targets = self._labels.indices(batch.targets)
        is_unseen, known = targets == UNKNOWN, targets >= 0
        values = batch.targets
        self._counts.add(
            "unseen_targets", name, batch.rows, is_unseen,
            lambda at: f"Its true value {shown(values[at])} is no class.",
        )  # fmt: skip
        self._counts.add_unseen(values[is_unseen].tolist())
        self._count_lost(name, batch, targets == MISSING, known)
        chosen = known & batch.is_predicted
        if not chosen.any():
            return
        among = known[batch.is_predicted]
        said = batch.predictions[among]
        probabilities = None if batch.probabilities is None else batch.probabilities[among]
        predicted, scores = self._reader.read(said, probabilities)
        targets, rows = targets[chosen], batch.rows[chosen]
        self._counts.evaluated += len(rows)
        self._counts.add(
            "unknown_predictions", name, rows, predicted < 0,
            lambda at: f"Its prediction {shown(said[at])} is no class.",
        )  # fmt: skip
        self._count_scores(name, rows, predicted, scores)
        self._classes.add(targets, predicted, scores, self._sliced(batch, chosen))
        columns = {"target": targets, "prediction": predicted}
        if scores is not None:
            columns["probabilities"] = scores
        self._sample.add(row_sample.hashes(name, rows), columns)

    def _count_unreadable(self, name: str, batch: JoinedBatch) -> None:
        every = np.full(len(batch.rows), True)
        self._counts.add("unreadable", name, batch.rows, every, lambda _: batch.fault)

    def _count_lost(
        self, name: str, batch: JoinedBatch, is_missing: Array, is_known: Array
    ) -> None:
        """Count records without a true value, and those that were not predicted."""
        self._counts.add(
            "missing_targets", name, batch.rows, is_missing, lambda _: "It has no true value."
        )
        self._counts.add(
            "failed", name, batch.rows, is_known & ~batch.is_predicted,
            lambda _: "The model did not predict it; errors.jsonl of the predictions says why.",
        )  # fmt: skip

    def _count_scores(
        self, name: str, rows: Array, predicted: Array, scores: Array | None
    ) -> None:
        """Count records whose probabilities are odd."""
        if scores is None:
            is_whole = np.zeros(len(rows), bool)
        else:
            is_whole = answers.is_whole(scores)
            sums = scores.sum(axis=1)
            self._counts.add(
                "off_sums", name, rows, is_whole & classification_metrics.are_off(scores),
                lambda at: f"Its probabilities have the sum {sums[at]:.6g}, the lowest is "
                f"{scores[at].min():.6g}.",
            )  # fmt: skip
            likeliest = scores[is_whole].argmax(axis=1)
            self._counts.contradictions += int(np.count_nonzero(predicted[is_whole] != likeliest))
        self._counts.add(
            "missing_probabilities", name, rows, ~is_whole,
            lambda _: "It has no finite number as the probability of each class.",
        )  # fmt: skip

    def _add_numbers(self, name: str, batch: JoinedBatch) -> None:
        values = batch.targets
        targets = answers.numbers(values)
        texts = class_labels.texts(values)
        is_missing = np.array([text is None for text in texts.tolist()], bool)
        known = np.isfinite(targets)
        is_unseen = ~known & ~is_missing
        self._counts.add(
            "unseen_targets", name, batch.rows, is_unseen,
            lambda at: _not_finite("true value", values[at], targets[at]),
        )  # fmt: skip
        self._counts.add_unseen(values[is_unseen].tolist())
        self._count_lost(name, batch, is_missing, known)
        chosen = known & batch.is_predicted
        said = batch.predictions[known[batch.is_predicted]]
        predicted, rows = answers.numbers(answers.flat(said)), batch.rows[chosen]
        is_number = np.isfinite(predicted)
        self._counts.add(
            "missing_predictions", name, rows, ~is_number,
            lambda at: _not_finite("prediction", said[at], predicted[at]),
        )  # fmt: skip
        chosen[chosen] = is_number
        targets, predicted, rows = targets[chosen], predicted[is_number], rows[is_number]
        self._counts.evaluated += len(targets)
        slices = self._sliced(batch, chosen)
        for number in np.unique(slices).tolist():
            own = slices == number
            self._numbers[number].add(targets[own], predicted[own])
        self._numbers[-1].add(targets, predicted)
        columns = {"target": targets, "prediction": predicted}
        self._sample.add(row_sample.hashes(name, rows), columns)

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
            self._reader.check()
            if not self._classes.has_scores:
                counts.clear("missing_probabilities")
            results = self._classes.results()
            found = [one.as_json(names) for one in results]
            curves = _curves(results[-1], names)
            if curves:
                curves["calibration"] = calibration.of(sample, names)
            rows = [int(one.matrix.sum()) for one in results]
        else:
            found = [one.figures().as_json() for one in self._numbers]
            rows = [one.rows for one in self._numbers]
            errors = error_curves.of(sample)
            curves = {"errors": errors} if errors else {}
        parts = [{"records": many, **one} for many, one in zip(rows, found, strict=True)]
        slices = dict(zip(values, parts, strict=False))
        intervals = bootstrap.intervals(
            parts[-1]["metrics"], sample, counts.evaluated, names, self._check_over
        )
        targets = self._targets.hexdigest()
        return Scores(counts, parts[-1], slices, intervals, curves, sample, targets)


def _curves(result: ClassificationResult, names: list[str]) -> dict[str, Any]:
    found = {name: one.as_json() for name, one in zip(names, result.curves, strict=False)}
    if result.micro is not None:
        return {"classes": found, "micro": result.micro.as_json()}
    return {}


def _not_finite(what: str, value: Any, number: float) -> str:
    """Why a value is not a finite number."""
    if np.isnan(number):
        return f"Its {what} {shown(value)} is not a number."
    return f"Its {what} {shown(value)} is not finite: beyond 1.8e308, the largest float."
