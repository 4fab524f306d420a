"""MLflow's tracking server, by its REST interface.

MLflow's own client takes a second of processor to import (pandas, numpy, FastAPI and its GenAI
part come along), which every pod and every command would pay. The names are MLflow's own.
"""

from infra.mlflow.client import MlflowClient
from infra.mlflow.entities import (
    Experiment,
    FileInfo,
    Metric,
    MlflowRun,
    ModelVersion,
    Page,
    RegisteredModel,
    ViewType,
)
from infra.mlflow.errors import MlflowException

__all__ = [
    "Experiment",
    "FileInfo",
    "Metric",
    "MlflowClient",
    "MlflowException",
    "MlflowRun",
    "ModelVersion",
    "Page",
    "RegisteredModel",
    "ViewType",
]
