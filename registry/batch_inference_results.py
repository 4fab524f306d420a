"""What a batch inference has to show, of the tags and metrics of its MLflow run.

Pages read it as well, so nothing here imports Prefect or a client of MLflow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from operator import not_

from pydantic import Field, TypeAdapter

from registry.views import JsonObject, View

REASONS_TAG = "modelyard.failure_reasons"  # a JSON list: reason, count, file and row
MANIFEST_TAG = "modelyard.manifest_uri"
OUTPUTS_TAG = "modelyard.model_outputs"  # a JSON list of names, as soon as there are results
FOLDER = "results"  # of the run's artifacts
PLOT = f"{FOLDER}/statistics.png"
_LONGEST_TAG = 8000  # of MLflow


class FailureReasonView(View):
    """A reason for which records failed.

    Attributes:
        count: How many records failed for it.
        reason: What the first one's reason is.
        file: The file with the first one.
        row: Number of the first one in its file, from 0.
    """

    count: int
    reason: str
    file: str
    row: int


class BatchInferenceResultView(View):
    """The result of a batch inference, also while it runs.

    Attributes:
        mlflow_run_id: Its MLflow run.
        records: How many records are predicted or have failed.
        failed: How many of them have no prediction.
        manifest_uri: What was read and written; None before it is published.
        failure_reasons: The most frequent reasons for which records failed.
        metrics: The last value of each metric; None where it was not a finite number.
    """

    mlflow_run_id: str
    records: int
    failed: int
    manifest_uri: str | None
    failure_reasons: list[FailureReasonView] = Field([], exclude_if=not_)
    metrics: dict[str, float | None]


def of(
    mlflow_run_id: str, tags: Mapping[str, str], metrics: Mapping[str, float | None]
) -> BatchInferenceResultView:
    """The result of a batch inference.

    Args:
        mlflow_run_id: Its MLflow run.
        tags: The run's tags.
        metrics: The last value of each of the run's metrics.
    """
    return BatchInferenceResultView(
        mlflow_run_id=mlflow_run_id,
        records=int(metrics.get("records") or 0),
        failed=int(metrics.get("failed") or 0),
        manifest_uri=tags.get(MANIFEST_TAG),
        failure_reasons=failure_reasons(tags),
        metrics={**metrics},
    )


def failure_reasons(tags: Mapping[str, str]) -> list[FailureReasonView]:
    """The reasons for which records failed, the most frequent one first."""
    found = tags.get(REASONS_TAG, "[]")
    return TypeAdapter(list[FailureReasonView]).validate_json(found)


def outputs_tag(names: Sequence[str]) -> str:
    """The value of the tag for the names of a model's outputs: of many the first ones."""
    return _fitting_json(names)


def outputs(tags: Mapping[str, str]) -> list[str]:
    """The names of the model's outputs; none before there are results."""
    return TypeAdapter(list[str]).validate_json(tags.get(OUTPUTS_TAG, "[]"))


def reasons_tag(reasons: Sequence[JsonObject]) -> str:
    """The value of the tag for reasons, the most frequent one first: those that fit in it."""
    return _fitting_json(reasons)


def _fitting_json(items: Sequence[object]) -> str:
    """The first items that fit in a tag, as JSON."""
    shown = list(items)
    while len(text := json.dumps(shown, ensure_ascii=False)) > _LONGEST_TAG:
        shown.pop()
    return text
