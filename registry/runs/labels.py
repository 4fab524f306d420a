"""Labels of runs in Prefect, read without importing Prefect or MLflow."""

from __future__ import annotations

from collections.abc import Mapping

MLFLOW_RUN = "modelyard.mlflow_run_id"
PARENT = "modelyard.parent_mlflow_run_id"  # on a trial's run: the MLflow run of its tuning


def mlflow_run_id(labels: Mapping[str, object]) -> str | None:
    """Return the run's MLflow run; None if it has none yet."""
    value = labels.get(MLFLOW_RUN)
    return str(value) if value else None
