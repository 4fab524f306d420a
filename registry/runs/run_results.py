"""What a run has to show: its result, and its pages."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from infra import connection
from infra.mlflow import MlflowException
from registry import batch_inference_results, evaluation_summaries, flow_kinds, tracking
from registry.pipelines import pipeline_nodes
from registry.runs.run_views import ResultView, RunView
from registry.tunings import tunings


def _of_batch_inference(_: str, mlflow_run_id: str, __: bool) -> ResultView:
    run = tracking.client().get_run(mlflow_run_id)
    metrics = tracking.last_metrics(run)
    return batch_inference_results.of(mlflow_run_id, run.data.tags, metrics)


# Results of flows whose runs have more to show than their own MLflow run. They are given the flow
# run, the MLflow run, and whether it has ended.
_RESULTS: dict[str, Callable[[str, str, bool], ResultView]] = {
    flow_kinds.TUNE.name: tunings.result,
    flow_kinds.PIPELINE_RUN.name: pipeline_nodes.result,
    flow_kinds.BATCH_INFERENCE.name: _of_batch_inference,
    flow_kinds.EVALUATE.name: evaluation_summaries.read,
}


def result(run: RunView) -> ResultView:
    """Return the result of a run, also while it runs; None without an MLflow run."""
    if run.mlflow_run_id is None:
        return None
    read = _RESULTS.get(run.flow)
    try:
        if read is None:
            return tracking.result(run.mlflow_run_id)
        return read(run.id, run.mlflow_run_id, run.is_final)
    except MlflowException:  # deleted in MLflow
        return None


def links(run: RunView) -> dict[str, str]:
    """Return the run's pages, by the UI that shows them."""
    found = {"prefect": connection.prefect_page(f"/runs/flow-run/{run.id}")}
    if run.flow == flow_kinds.PIPELINE_RUN.name and (graph := connection.page(f"/runs/{run.id}")):
        found["graph"] = graph
    if run.mlflow_run_id:
        with contextlib.suppress(MlflowException):
            found["mlflow"] = tracking.run_url(run.mlflow_run_id)
    return found
