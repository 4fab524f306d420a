"""Labels of runs in Prefect, for those who ask Prefect without importing it or MLflow."""

from infra.kubernetes import labels

MLFLOW_RUN = "modelyard.mlflow_run_id"
WAITING = labels.WAITING
