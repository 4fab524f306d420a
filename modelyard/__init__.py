"""Modelyard in Python: flows to call or to start, models of their parameters, and a client.

A name is imported when it is first used: the command, which imports this package, uses none.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from modelyard import packages

if TYPE_CHECKING:
    from flows.batch_inference import batch_inference as batch_inference
    from flows.evaluation import evaluate as evaluate
    from flows.flow_results import BatchInferenceResult as BatchInferenceResult
    from flows.flow_results import EvaluationResult as EvaluationResult
    from flows.flow_results import FlowResult as FlowResult
    from flows.flow_results import PipelineRunResult as PipelineRunResult
    from flows.flow_results import TrainingResult as TrainingResult
    from flows.flow_results import TuningResult as TuningResult
    from flows.pipeline_run import pipeline_run as pipeline_run
    from flows.run_handle import Run as Run
    from flows.training import train as train
    from flows.tuning import tune as tune
    from infra.errors import BadInputError as BadInputError
    from infra.errors import ConflictError as ConflictError
    from infra.errors import ModelyardError as ModelyardError
    from infra.errors import NotFoundError as NotFoundError
    from infra.errors import RunFailedError as RunFailedError
    from infra.errors import StackError as StackError
    from modelyard.api.client import Client as Client
    from tasks.batch_inference.inference_request import BatchInference as BatchInference
    from tasks.batch_inference.inference_request import InferenceResources as InferenceResources
    from tasks.evaluation.evaluation_request import Evaluation as Evaluation
    from tasks.evaluation.evaluation_request import EvaluationInference as EvaluationInference
    from tasks.evaluation.evaluation_request import EvaluationResources as EvaluationResources
    from tasks.logs import Logs as Logs
    from tasks.pipelines.request import NasMount as NasMount
    from tasks.pipelines.request import PipelineRun as PipelineRun
    from tasks.resources import PipelineResources as PipelineResources
    from tasks.resources import Resources as Resources
    from tasks.training.training_request import Algorithm as Algorithm
    from tasks.training.training_request import Dataset as Dataset
    from tasks.training.training_request import ModelRegistration as ModelRegistration
    from tasks.training.training_request import Training as Training
    from tasks.tuning.tuning_request import Tuning as Tuning
    from tuning.early_stopping import EarlyStopping as EarlyStopping
    from tuning.metrics import MetricPattern as MetricPattern
    from tuning.objectives import Constraint as Constraint
    from tuning.objectives import Objective as Objective
    from tuning.space import Parameter as Parameter

# Modules of the names, as above.
_MODULES = {
    "flows.pipeline_run": ("pipeline_run",),
    "flows.batch_inference": ("batch_inference",),
    "flows.evaluation": ("evaluate",),
    "flows.flow_results": (
        "BatchInferenceResult", "EvaluationResult", "FlowResult", "PipelineRunResult",
        "TrainingResult", "TuningResult",
    ),
    "flows.run_handle": ("Run",),
    "flows.training": ("train",),
    "flows.tuning": ("tune",),
    "infra.errors": (
        "BadInputError", "ConflictError", "ModelyardError", "NotFoundError", "RunFailedError",
        "StackError",
    ),
    "modelyard.api.client": ("Client",),
    "tasks.batch_inference.inference_request": ("BatchInference", "InferenceResources"),
    "tasks.evaluation.evaluation_request": (
        "Evaluation", "EvaluationInference", "EvaluationResources",
    ),
    "tasks.logs": ("Logs",),
    "tasks.pipelines.request": ("NasMount", "PipelineRun"),
    "tasks.resources": ("PipelineResources", "Resources"),
    "tasks.training.training_request": (
        "Algorithm", "Dataset", "ModelRegistration", "Training",
    ),
    "tasks.tuning.tuning_request": ("Tuning",),
    "tuning.early_stopping": ("EarlyStopping",),
    "tuning.metrics": ("MetricPattern",),
    "tuning.objectives": ("Constraint", "Objective"),
    "tuning.space": ("Parameter",),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    packages.claim()
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
