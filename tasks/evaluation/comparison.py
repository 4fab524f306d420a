"""Comparison of evaluations of the same data: figures side by side, and what is beyond chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from modelyard_runtime.frames import Array

from infra.errors import BadInputError, ConflictError
from registry.evaluation_results import (
    MOST_COMPARED,
    ComparedEvaluationView,
    ComparedMetricView,
    EvaluationComparisonView,
    MetricDifferenceView,
)
from tasks.evaluation import bootstrap
from tasks.evaluation.class_labels import label_text
from tasks.evaluation.gate import GateSide

LOWER_IS_BETTER = frozenset({"log_loss", "mae", "mape", "rmse", "rmsle"})


@dataclass(frozen=True)
class EvaluationRecord:
    """An evaluation that is complete, as its run has kept it.

    Attributes:
        run_id: The flow run.
        name: Its name.
        result: The content of ``result.json``.
        curves: The content of ``curves.json``; empty without curves.
        sample: Columns of sampled rows.
    """

    run_id: str
    name: str
    result: Mapping[str, Any]
    curves: Mapping[str, Any]
    sample: Mapping[str, Array]

    @property
    def model(self) -> str:
        """The version that was evaluated."""
        return str(self.result["model"])


def differences(records: Sequence[EvaluationRecord]) -> list[str]:
    """Why evaluations cannot be compared; empty if they can."""
    first, found = records[0].result, []
    for record in records[1:]:
        other = record.result
        pairs = {
            "the task": (first["task"], other["task"]),
            "the target field": (first["target_field"], other["target_field"]),
            "the classes": (_classes(first), _classes(other)),
            "the data": (first["data"]["sha256"][:12], other["data"]["sha256"][:12]),
            "the true values": (first["targets_sha256"][:12], other["targets_sha256"][:12]),
        }
        found += [
            f"{what} of {records[0].name} and {record.name} differ: {one} and {another}"
            for what, (one, another) in pairs.items()
            if one != another
        ]
    return found


def _classes(result: Mapping[str, Any]) -> list[str]:
    return sorted(label_text(name) or "" for name in result["class_names"])


def check_comparable(records: Sequence[EvaluationRecord]) -> None:
    """Refuse evaluations that did not measure the same thing on the same data.

    Raises:
        BadInputError: With the code ``EvaluationsNotComparable``, for fewer than two or too many.
        ConflictError: With the same code, if they differ; the message says in what.
    """
    if not 2 <= len(records) <= MOST_COMPARED:
        raise BadInputError(
            f"A comparison is of 2 to {MOST_COMPARED} evaluations, and {len(records)} are given.",
            f"Give 2 to {MOST_COMPARED}.",
            code="EvaluationsNotComparable",
        )
    if found := differences(records):
        raise ConflictError(
            f"The evaluations cannot be compared: {'; '.join(found)}.",
            "Evaluate each model with the same files and the same target_field.",
            code="EvaluationsNotComparable",
        )


def sides(records: Sequence[EvaluationRecord]) -> list[GateSide]:
    """The figures of comparable evaluations, and how they deviate by chance on the same rows."""
    first = records[0].result
    names = None if first["task"] == "regression" else list(first["class_names"])
    samples = [_in_order(record, names) for record in records]
    rows = min(int(record.result["counts"]["evaluated"]) for record in records)
    drawn = bootstrap.replicates(bootstrap.pair(samples, rows), names)
    return [
        GateSide(_renamed(record, records[0]), deviations)
        for record, deviations in zip(records, drawn, strict=True)
    ]


def _in_order(record: EvaluationRecord, names: list[str] | None) -> dict[str, Array]:
    """A sample whose classes are numbered as those of the first evaluation."""
    found = dict(record.sample)
    own = record.result["class_names"]
    if names is None or own == names:
        return found
    texts = [label_text(name) for name in names]
    places = np.array([texts.index(label_text(name)) for name in own])
    found["target"] = places[found["target"]]
    known = found["prediction"] >= 0
    found["prediction"] = np.where(known, places[found["prediction"]], found["prediction"])
    if "probabilities" in found:
        found["probabilities"] = found["probabilities"][:, np.argsort(places)]
    return found


def class_names(record: EvaluationRecord, first: EvaluationRecord) -> dict[str, str]:
    """How an evaluation calls the classes, by the names of a comparable one."""
    own = {label_text(name): name for name in record.result["class_names"]}
    return {name: own[label_text(name)] for name in first.result["class_names"]}


def _renamed(record: EvaluationRecord, first: EvaluationRecord) -> dict[str, float | None]:
    """Metrics of classes by the names of the first evaluation."""
    shown = {own: name for name, own in class_names(record, first).items()}
    found = {}
    for metric, value in record.result["metrics"].items():
        name, slash, of = metric.partition("/")
        found[f"{name}{slash}{shown.get(of, of)}"] = value
    return found


def compare(records: Sequence[EvaluationRecord]) -> EvaluationComparisonView:
    """Compare evaluations with the first of them.

    Raises:
        ModelyardError: As :func:`check_comparable`.
    """
    check_comparable(records)
    found = sides(records)
    shared = [name for name in found[0].values if all(name in side.values for side in found)]
    # Metrics of other records say nothing of which model is better.
    has_verdicts = len(_evaluated(records)) == 1
    return EvaluationComparisonView(
        evaluations=[
            ComparedEvaluationView(
                id=record.run_id,
                name=record.name,
                model=record.model,
                evaluated=record.result["counts"]["evaluated"],
                remarks=record.result["remarks"],
            )
            for record in records
        ],
        metrics={
            name: ComparedMetricView(
                values=[side.values[name] for side in found],
                differences=[
                    _difference(name, found[0], side, has_verdict=has_verdicts)
                    for side in found[1:]
                ],
            )
            for name in shared
        },
        remarks=_remarks(records),
    )


def _evaluated(records: Sequence[EvaluationRecord]) -> set[int]:
    return {int(record.result["counts"]["evaluated"]) for record in records}


def _difference(
    name: str, first: GateSide, other: GateSide, *, has_verdict: bool
) -> MetricDifferenceView:
    before, value = first.values[name], other.values[name]
    difference = None if before is None or value is None else value - before
    apart = None
    if difference is not None and name in first.deviations and name in other.deviations:
        apart = bootstrap.interval(other.deviations[name] - first.deviations[name][::-1])
    if difference is None or apart is None:
        return MetricDifferenceView(difference=difference, low=None, high=None, verdict="unknown")
    low, high = difference + apart[0], difference + apart[1]
    verdict = "by chance"
    if low > 0 or high < 0:
        is_better = (low > 0) != (name.partition("/")[0] in LOWER_IS_BETTER)
        verdict = "better" if is_better else "worse"
    return MetricDifferenceView(
        difference=difference, low=low, high=high, verdict=verdict if has_verdict else "unknown"
    )


def _remarks(records: Sequence[EvaluationRecord]) -> list[str]:
    if len(_evaluated(records)) == 1:
        return []
    return [
        "They were computed of differently many records, since some were not predicted by all "
        "models; intervals are of the records that all have predicted."
    ]
