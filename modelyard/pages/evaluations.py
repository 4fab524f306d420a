"""The results of an evaluation on its page, as its MLflow run has them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from infra import connection
from infra.errors import StackError
from modelyard.pages import evaluation_curves, evaluation_tables, listing
from modelyard.pages.evaluation_curves import CurvesView
from modelyard.pages.evaluation_tables import MatrixTable, MetricRow, ValuesTable
from modelyard.pages.listing import Ref
from modelyard.pages.servers import TrackedRun
from pipelines.drawing import text
from registry import evaluation_results
from registry.evaluation_results import (
    CURVES,
    EVALUATED_TAG,
    FOLDER,
    RESULT,
    EvaluationCurvesView,
    EvaluationResultView,
)
from registry.runs import statuses
from registry.runs.run_views import RunView

_logger = logging.getLogger(__name__)
MOST_BYTES = 32 * 2**20
_MOST_REMARKS = 10
_MOST_EXAMPLES = 40


class EvaluationSource(Protocol):
    """Prefect and MLflow: see ``servers.Servers``."""

    def runs(self, limit: int, flow: str = "", *, tag: str = "") -> list[RunView]:
        """The newest runs."""

    def tracked(self, mlflow_run_id: str) -> TrackedRun | None:
        """A run as MLflow has it; None if it does not answer."""

    def artifact(self, mlflow_run_id: str, path: str, most: int) -> bytes | None:
        """An artifact of a run, of at most so many bytes."""


@dataclass(frozen=True)
class EvaluationPageView:
    """The results of an evaluation.

    Attributes:
        facts: What was evaluated with what: label and text.
        model: The model version; None before it is known.
        inference: The batch inference; None before there is one.
        progress: How many records it has predicted, and how long the others take; empty before
            that is known, and when it has ended.
        notice: Why the results are not shown; empty if they are, or are not there yet.
        metrics: The metrics of all records.
        has_means: Whether metrics have means of classes.
        remarks: What became of records that were left out.
        examples: The first of these records: file, row and reason.
        classes: The classes; None for a regression.
        slices: The slices; None without any.
        slice_field: The field that they are of.
        matrix: The confusion matrix; None for a regression.
        curves: The curves; None without any.
        plots: The page of the interactive plots; empty without any.
    """

    facts: Sequence[tuple[str, str]] = ()
    model: Ref | None = None
    inference: RunView | None = None
    progress: str = ""
    notice: str = ""
    metrics: Sequence[MetricRow] = ()
    has_means: bool = False
    remarks: Sequence[str] = ()
    examples: Sequence[tuple[str, int, str]] = ()
    classes: ValuesTable | None = None
    slices: ValuesTable | None = None
    slice_field: str = ""
    matrix: MatrixTable | None = None
    curves: CurvesView | None = None
    plots: str = ""


def of(
    run: RunView, tracked: TrackedRun | None, source: EvaluationSource, chosen: str = ""
) -> EvaluationPageView:
    """Return the results of an evaluation.

    Args:
        run: Its run.
        tracked: The same as MLflow has it; None before that, or where MLflow does not answer.
        source: Prefect and MLflow.
        chosen: The class whose curves are shown; empty for the first ones.
    """
    inference = _inference(run, source)
    progress = _progress(inference, source) if inference else ""
    begun = EvaluationPageView(model=model(run, tracked), inference=inference, progress=progress)
    if run.mlflow_run_id is None:
        return begun
    try:
        result = read_result(source, run.mlflow_run_id)
        curves = read_curves(source, run.mlflow_run_id) if result else None
    except (StackError, ValueError) as error:
        _logger.warning("The results of %s cannot be shown: %s", run.id, error)
        why = error.message if isinstance(error, StackError) else "MLflow has other files there."
        return replace(begun, notice=f"The results are not shown. {why}")
    if result is None:
        notice = (
            "MLflow has no results, or too large ones." if run.state == statuses.COMPLETE else ""
        )
        return replace(begun, notice=notice)
    page = f"/runs/{run.id}"
    rows = evaluation_tables.metrics(result)
    matrix = result.confusion_matrix
    return replace(
        begun,
        facts=_facts(result),
        metrics=rows,
        has_means=any(row.weighted or row.micro for row in rows),
        remarks=[listing.shortened(one) for one in result.remarks[:_MOST_REMARKS]],
        examples=[
            (listing.shortened(one.file), one.row, listing.shortened(one.reason))
            for one in result.examples[:_MOST_EXAMPLES]
        ],
        classes=evaluation_tables.classes(result, page, chosen) if result.class_names else None,
        slices=evaluation_tables.slices(result) if result.slices else None,
        slice_field=listing.shortened(result.slice_field or ""),
        matrix=evaluation_tables.matrix(matrix) if matrix else None,
        curves=evaluation_curves.of(result, curves, page, chosen) if curves else None,
        plots=_plots(tracked, run.mlflow_run_id) if curves and curves.classes else "",
    )


def read_result(source: EvaluationSource, mlflow_run_id: str) -> EvaluationResultView | None:
    """Return the result of an evaluation; None before it has one, or where it is too large.

    Raises:
        StackError: If MLflow does not answer.
        ValueError: If it is not a result.
    """
    found = source.artifact(mlflow_run_id, f"{FOLDER}/{RESULT}", MOST_BYTES)
    return evaluation_results.result(found) if found is not None else None


def read_curves(source: EvaluationSource, mlflow_run_id: str) -> EvaluationCurvesView | None:
    """Return the curves of an evaluation; None where it has none, or they are too large.

    Raises:
        StackError: If MLflow does not answer.
        ValueError: If they are not curves.
    """
    found = source.artifact(mlflow_run_id, f"{FOLDER}/{CURVES}", MOST_BYTES)
    return evaluation_results.curves(found) if found is not None else None


def model(run: RunView, tracked: TrackedRun | None) -> Ref | None:
    """Return the model version that a run evaluates; None before it is known."""
    evaluated = tracked.tags.get(EVALUATED_TAG, "") if tracked else ""
    return listing.model_ref(evaluated or str(run.parameters.get("model") or ""))


def _inference(run: RunView, source: EvaluationSource) -> RunView | None:
    try:
        found = source.runs(1, tag=evaluation_results.inference_tag(run.id))
    except StackError:
        return None
    return found[0] if found else None


def _progress(inference: RunView, source: EvaluationSource) -> str:
    """How far a batch inference is, by the metrics that it records while it predicts."""
    if inference.is_final or inference.mlflow_run_id is None:
        return ""
    tracked = source.tracked(inference.mlflow_run_id)
    metrics = tracked.metrics if tracked else {}
    if not {"records", "records_left"} <= metrics.keys():
        return ""
    done, left = metrics["records"], metrics["records_left"]
    speed = metrics.get("records_per_second", 0)
    time_left = f", about {text.duration(left / speed)} left" if left and speed else ""
    return f"{done:,.0f} of {done + left:,.0f} records{time_left}"


def _plots(tracked: TrackedRun | None, mlflow_run_id: str) -> str:
    if tracked is None:
        return ""
    path = f"{FOLDER}/{evaluation_results.ROC}"
    return connection.mlflow_artifact_page(tracked.experiment_id, mlflow_run_id, path)


def _facts(result: EvaluationResultView) -> list[tuple[str, str]]:
    data, counts = result.data, result.counts
    files = f"{len(data.files)} file{'s' if len(data.files) != 1 else ''}"
    size = sum(file.bytes for file in data.files)
    return [
        ("Data", f"{listing.shortened(data.uri)} ({files}, {size:,} bytes)"),
        ("Target", listing.shortened(result.target_field)),
        ("Records", f"{counts.get('evaluated', 0):,} of {counts.get('records', 0):,} evaluated"),
    ]
