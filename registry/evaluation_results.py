"""What an evaluation has to show, of the files among the artifacts of its MLflow run.

Pages read it as well, so nothing here imports Prefect, a client of MLflow, or NumPy.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, FiniteFloat, model_validator

from registry.views import View

FOLDER = "evaluation"  # of the run's artifacts, and below the output's URI
MOST_COMPARED = 10  # evaluations with each other
RESULT, CURVES, SAMPLE = "result.json", "curves.json", "sample.npz"
ROC = "roc.html"  # one of the interactive plots

# Tag of an evaluation's MLflow run: the version that was evaluated.
EVALUATED_TAG = "modelyard.evaluated_model"
# Likewise: the URI of its result, once that is published.
RESULT_TAG = "modelyard.evaluation_result_uri"

Count = Annotated[int, Field(ge=0, le=2**53)]


def inference_tag(evaluation: str) -> str:
    """Return the tag, in Prefect, of the batch inference of an evaluation's run."""
    return f"evaluation:{evaluation}"


class EvaluatedFileView(View):
    """A file of the data that a model was evaluated with.

    Attributes:
        name: Its name.
        bytes: Its size.
        sha256: Checksum of its content.
    """

    name: str
    bytes: Count
    sha256: str = ""


class EvaluatedDataView(View):
    """The data that a model was evaluated with.

    Attributes:
        uri: Where they were.
        format: ``csv`` or ``jsonl``.
        files: Their files.
        sha256: Checksum of their names and contents.
    """

    uri: str
    format: str = ""
    files: list[EvaluatedFileView]
    sha256: str


class ConfusionMatrixView(View):
    """Records by class and by predicted class.

    Attributes:
        classes: Names of the classes.
        counts: A row for each class, a column for each predicted one; the last column is of
            predictions of no class.
    """

    classes: list[str]
    counts: list[list[Count]]

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        size = len(self.classes)
        if len(self.counts) != size or any(len(row) != size + 1 for row in self.counts):
            raise ValueError("the matrix does not fit its classes")
        return self


class CountedRecordView(View):
    """A record that is left out, or odd.

    Attributes:
        count: The count that it is one of, such as ``missing_targets``.
        file: The name of its file.
        row: Its number in the file, from 0.
        reason: What is wrong with it.
    """

    count: str
    file: str
    row: Count
    reason: str


class EvaluatedRecordsView(View):
    """The metrics of a slice of the records, or of all.

    Attributes:
        records: How many there are.
        metrics: Metrics by name; ``NAME/CLASS`` of a class; None where undefined.
        undefined: Why metrics are undefined.
        notes: What is left out of metrics.
        confusion_matrix: The confusion matrix; None for a regression.
    """

    records: Count
    metrics: dict[str, FiniteFloat | None]
    undefined: dict[str, str] = {}
    notes: dict[str, str] = {}
    confusion_matrix: ConfusionMatrixView | None = Field(None, exclude_if=lambda one: one is None)


class EvaluationResultView(View):
    """The content of ``result.json``.

    Attributes:
        model: URI of the version that was evaluated.
        flow_run_id: The evaluation's run.
        mlflow_run_id: Its MLflow run.
        batch_inference: The run that has predicted the data.
        data: The data.
        task: ``classification`` or ``regression``.
        class_names: Names of the classes; empty for a regression.
        target_field: The field with the true values.
        targets_sha256: Checksum of all true values in their order.
        counts: What became of the records.
        examples: The first records of each count; earlier versions had none.
        unseen_targets: How often true values occur that are no class; the first ones.
        remarks: What became of the records in sentences.
        records: How many were evaluated.
        metrics: Metrics by name; ``NAME/CLASS`` of a class; None where undefined.
        undefined: Why metrics are undefined.
        notes: What is left out of metrics.
        confusion_matrix: The confusion matrix; None for a regression.
        intervals: 95 % intervals of metrics, lower and upper bound; earlier versions had none.
        slice_field: The field by which the records were sliced; None without one.
        slices: Metrics by the values of that field.
    """

    model: str
    flow_run_id: str = ""
    mlflow_run_id: str = ""
    batch_inference: str = ""
    data: EvaluatedDataView
    task: str
    class_names: list[str]
    target_field: str
    targets_sha256: str = ""
    counts: dict[str, Count]
    examples: list[CountedRecordView] = []
    unseen_targets: dict[str, Count] = {}
    remarks: list[str] = []
    records: Count
    metrics: dict[str, FiniteFloat | None]
    undefined: dict[str, str] = {}
    notes: dict[str, str] = {}
    confusion_matrix: ConfusionMatrixView | None = Field(None, exclude_if=lambda one: one is None)
    intervals: dict[str, tuple[FiniteFloat, FiniteFloat]] = {}
    slice_field: str | None = None
    slices: dict[str, EvaluatedRecordsView] = {}


class EvaluationSummaryView(View):
    """The result of an evaluation, as its run shows it and Python returns it.

    Attributes:
        mlflow_run_id: Its MLflow run.
        metrics: Metrics of all records by name; None where undefined.
        undefined: Why metrics are undefined.
        counts: What became of the records.
        result_uri: The whole result; None before it is published.
    """

    mlflow_run_id: str
    metrics: dict[str, FiniteFloat | None] = {}
    undefined: dict[str, str] = {}
    counts: dict[str, Count] = {}
    result_uri: str | None = None


class ComparedEvaluationView(View):
    """An evaluation that is compared.

    Attributes:
        id: Its run.
        name: The run's name.
        model: The version that was evaluated.
        evaluated: How many records the metrics are of.
        remarks: What became of the others.
    """

    id: str
    name: str
    model: str
    evaluated: Count
    remarks: list[str]


class MetricDifferenceView(View):
    """How much a metric differs from that of the first evaluation.

    Attributes:
        difference: The difference; None where one of both is undefined.
        low: The lower bound of its 95 % interval; None if that is unknown.
        high: The upper bound.
        verdict: ``better``, ``worse``, ``by chance`` or ``unknown``.
    """

    difference: float | None
    low: float | None
    high: float | None
    verdict: str


class ComparedMetricView(View):
    """A metric of evaluations that are compared.

    Attributes:
        values: Its values in the order of the evaluations; None where undefined.
        differences: Of each but the first one.
    """

    values: list[float | None]
    differences: list[MetricDifferenceView]


class EvaluationComparisonView(View):
    """Evaluations compared with the first of them.

    Attributes:
        evaluations: The evaluations.
        metrics: Their metrics by name.
        remarks: What to know of the comparison.
    """

    evaluations: list[ComparedEvaluationView]
    metrics: dict[str, ComparedMetricView]
    remarks: list[str]


class RankingCurveView(View):
    """Points of the ROC and the precision-recall curve of a class against the rest.

    Attributes:
        positives: Records of the class.
        negatives: Other records.
        thresholds: Scores, descending, from which on the class is predicted.
        true_positives: Records of the class with at least that score.
        false_positives: Other records with at least that score.
    """

    positives: Count
    negatives: Count
    thresholds: list[FiniteFloat]
    true_positives: list[Count]
    false_positives: list[Count]

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        lengths = {len(self.thresholds), len(self.true_positives), len(self.false_positives)}
        if len(lengths) != 1:
            raise ValueError("a curve's columns are not equally long")
        return self


class CalibrationView(View):
    """How often records are of a class, by the probability that the model gives it.

    Attributes:
        probabilities: Mean probabilities of records that are put together.
        shares: Shares of them that are of the class.
        records: How many there are.
    """

    probabilities: list[FiniteFloat]
    shares: list[FiniteFloat]
    records: list[Count]

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        if len({len(self.probabilities), len(self.shares), len(self.records)}) != 1:
            raise ValueError("a calibration's columns are not equally long")
        return self


class ErrorCurvesView(View):
    """How the errors of a regression are distributed.

    Attributes:
        quantiles: Absolute errors, at equal shares of the records from 0 to 1.
        edges: Edges of the histogram of residuals, which are the prediction minus the true value.
        counts: How many residuals lie between them; the outermost have all that lie beyond.
        targets: True values of some records.
        predictions: Their predictions.
    """

    quantiles: list[FiniteFloat]
    edges: list[FiniteFloat]
    counts: list[Count]
    targets: list[FiniteFloat]
    predictions: list[FiniteFloat]

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        if len(self.edges) != len(self.counts) + 1 or len(self.targets) != len(self.predictions):
            raise ValueError("the errors' columns do not fit each other")
        return self


class EvaluationCurvesView(View):
    """The content of ``curves.json``.

    Attributes:
        classes: The curve of each class by its name; none without probabilities.
        micro: The curve of all classes' scores together; None without probabilities.
        calibration: The calibration of each class by its name; none of earlier versions.
        errors: The errors of a regression; None for a classification, and of earlier versions.
    """

    classes: dict[str, RankingCurveView] = {}
    micro: RankingCurveView | None = None
    calibration: dict[str, CalibrationView] = {}
    errors: ErrorCurvesView | None = None


def result(content: bytes) -> EvaluationResultView:
    """Read ``result.json``.

    Raises:
        ValueError: If it is not that.
    """
    return EvaluationResultView.model_validate_json(content)


def curves(content: bytes) -> EvaluationCurvesView:
    """Read ``curves.json``.

    Raises:
        ValueError: If it is not that.
    """
    return EvaluationCurvesView.model_validate_json(content)
