"""Results of runs, as callers in Python get them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Generic, overload

from typing_extensions import TypeVar

T = TypeVar("T")


class ResultItem(Generic[T]):
    """An item of a result that is an attribute of the same name, too."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, result: None, owner: type) -> ResultItem[T]: ...

    @overload
    def __get__(self, result: FlowResult, owner: type) -> T: ...

    def __get__(self, result: FlowResult | None, owner: type) -> ResultItem[T] | T:
        if result is None:
            return self
        item: T = result[self._name]
        return item


class FlowResult(dict[str, Any]):
    """The result of a run: a dict of its items, which knows its run.

    Attributes:
        flow_run_id: Prefect's id of the run.
        url: The run's page in Prefect's UI.
    """

    def __init__(
        self,
        items: Mapping[str, Any] | Iterable[tuple[str, Any]] = (),
        *,
        flow_run_id: str = "",
        url: str = "",
    ) -> None:
        """Make the result of the run ``flow_run_id`` of its items."""
        super().__init__(items)
        self.flow_run_id = flow_run_id
        self.url = url


class TrainingResult(FlowResult):
    """Result of ``train``.

    Attributes:
        mlflow_run_id: The MLflow run.
        model_uri: The model version, as ``models:/NAME/VERSION``; None without a model.
        metrics: The last value of each metric; None where it was not a finite number.
    """

    mlflow_run_id = ResultItem[str]()
    model_uri = ResultItem[str | None]()
    metrics = ResultItem[dict[str, float | None]]()


class TuningResult(FlowResult):
    """Result of ``tune``.

    Attributes:
        mlflow_run_id: The tuning's MLflow run.
        best: The best trial: ``number``, ``parameters``, ``value``, ``mlflow_run_id``; None
            without one, or with several objectives, which have a ``front`` instead.
        model_uri: The version that was made of the best trial, as ``models:/NAME/VERSION``; None
            if none was.
        trials: Every trial: ``number``, ``state``, ``parameters``, ``value`` and more.
    """

    mlflow_run_id = ResultItem[str]()
    best = ResultItem[dict[str, Any] | None]()
    model_uri = ResultItem[str | None]()
    trials = ResultItem[list[dict[str, Any]]]()


class PipelineRunResult(FlowResult):
    """Result of ``pipeline_run``.

    Attributes:
        mlflow_run_id: The MLflow run.
        outputs: The pipeline's output parameters, by name.
        tasks: Each task: ``name``, ``title``, ``state``, ``reason``.
    """

    mlflow_run_id = ResultItem[str]()
    outputs = ResultItem[dict[str, Any]]()
    tasks = ResultItem[list[dict[str, Any]]]()


class EvaluationResult(FlowResult):
    """Result of ``evaluate``.

    Attributes:
        mlflow_run_id: The MLflow run.
        metrics: The metrics; None where one is undefined.
        undefined: Why each undefined metric has no value.
        counts: What became of the records, such as ``evaluated`` and ``failed``.
        result_uri: All of it, with the metrics by class and slice.
    """

    mlflow_run_id = ResultItem[str]()
    metrics = ResultItem[dict[str, float | None]]()
    undefined = ResultItem[dict[str, str]]()
    counts = ResultItem[dict[str, int]]()
    result_uri = ResultItem[str]()


class BatchInferenceResult(FlowResult):
    """Result of ``batch_inference``.

    Attributes:
        mlflow_run_id: The MLflow run.
        records: All records of the input.
        failed: Those that have no prediction.
        failure_reasons: The most frequent reasons of these: ``reason``, ``count``, and the first
            one's ``file`` and ``row``.
        manifest_uri: What was read and written: counts and checksums.
    """

    mlflow_run_id = ResultItem[str]()
    records = ResultItem[int]()
    failed = ResultItem[int]()
    failure_reasons = ResultItem[list[dict[str, Any]]]()
    manifest_uri = ResultItem[str]()
