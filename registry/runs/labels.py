"""Labels of runs in Prefect, and tags that lead from MLflow to runs; neither is imported here."""

from __future__ import annotations

from collections.abc import Mapping

MLFLOW_RUN = "modelyard.mlflow_run_id"
PARENT = "modelyard.parent_mlflow_run_id"  # on a trial's run: the MLflow run of its tuning
TUNING = "modelyard.tuning"  # the same: the flow run of its tuning
EVALUATION = "modelyard.evaluation"  # on a batch inference: the evaluation that it predicts for
SCHEDULE = "modelyard.schedule"  # the id of the schedule that made it
SLOT = "modelyard.slot"  # the slot that it was made for

# Tags in MLflow: of a run and of a model version, the flow run; of a run, the version made of it.
FLOW_RUN_TAG = "modelyard.flow_run_id"
MODEL_TAG = "modelyard.model_uri"


def mlflow_run_id(labels: Mapping[str, object]) -> str | None:
    """Return the run's MLflow run; None if it has none yet."""
    value = labels.get(MLFLOW_RUN)
    return str(value) if value else None
