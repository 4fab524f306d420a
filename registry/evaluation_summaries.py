"""The result of an evaluation, as its run shows it."""

from __future__ import annotations

from registry import evaluation_results, tracking
from registry.evaluation_results import FOLDER, RESULT, RESULT_TAG, EvaluationSummaryView


def read(_: str, mlflow_run_id: str, __: bool) -> EvaluationSummaryView:
    """The result of an evaluation; without metrics before it is published.

    Args:
        mlflow_run_id: Its MLflow run.

    Raises:
        MlflowException: If there is no such run.
    """
    mlflow = tracking.client()
    run = mlflow.get_run(mlflow_run_id)
    uri = run.data.tags.get(RESULT_TAG)
    if uri is None and run.info.status != "FINISHED":  # earlier versions set no tag
        return EvaluationSummaryView(mlflow_run_id=mlflow_run_id)
    content = b"".join(mlflow.repository(mlflow_run_id).read(f"{FOLDER}/{RESULT}"))
    found = evaluation_results.result(content)
    return EvaluationSummaryView(
        mlflow_run_id=mlflow_run_id, metrics=found.metrics, undefined=found.undefined,
        counts=found.counts, result_uri=uri,
    )  # fmt: skip
