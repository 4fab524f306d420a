"""Request models of the flows by the flows' names, without the imports of the flows.

A request is imported when it is asked for: those of tunings and pipelines import Optuna, SciPy and
KFP.
"""

from __future__ import annotations

import pkgutil

from infra.errors import NotFoundError
from infra.suggestions import did_you_mean
from registry import flow_kinds
from tasks.parameters import FlowRequest

_REQUESTS = {
    flow_kinds.TRAIN.name: "tasks.training.training_request:Training",
    flow_kinds.TUNE.name: "tasks.tuning.tuning_request:Tuning",
    flow_kinds.PIPELINE_RUN.name: "tasks.pipelines.request:PipelineRun",
    flow_kinds.BATCH_INFERENCE.name: "tasks.batch_inference.inference_request:BatchInference",
    flow_kinds.EVALUATE.name: "tasks.evaluation.evaluation_request:Evaluation",
    flow_kinds.PIPELINE_CLEANUP.name: "tasks.pipelines.cleanup:Cleanup",
}


def names() -> list[str]:
    """The names of all flows."""
    return list(_REQUESTS)


def find(flow: str) -> type[FlowRequest]:
    """Return the request model of a flow.

    Raises:
        NotFoundError: If there is no such flow.
    """
    if flow not in _REQUESTS:
        raise NotFoundError(
            f"Unknown flow {flow!r}.",
            f"{did_you_mean(flow, _REQUESTS)} Known are: {', '.join(sorted(_REQUESTS))}.".lstrip(),
        )
    found: type[FlowRequest] = pkgutil.resolve_name(_REQUESTS[flow])
    return found
