"""Settings, errors, storage, database, work pools, the worker and the local stack."""

import os

# Before Prefect or MLflow is imported anywhere: both report their use to their makers otherwise.
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
