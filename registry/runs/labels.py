"""Labels of runs in Prefect, for those who ask Prefect without importing it or MLflow."""

MLFLOW_RUN = "modelyard.mlflow_run_id"
