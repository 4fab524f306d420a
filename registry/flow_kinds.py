"""The flows that Modelyard has: the part of their declarations that every layer reads.

Plain data, so that a page or a worker knows a run's words without importing Prefect, MLflow or
the flows. The rest of a declaration is the flow's ``FlowSpec`` in ``flows``, which refers to it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FlowKind:
    """A kind of flow.

    Attributes:
        name: The flow's name in Prefect, which is its deployment's as well.
        failure: The reference's status word of a run whose own work failed.
    """

    name: str
    failure: str


TRAIN = FlowKind("train", "FAIL TRAIN")
TUNE = FlowKind("tune", "FAIL HYPERPARAMETER TUNING")
PIPELINE_RUN = FlowKind("pipeline-run", "FAIL PIPELINE RUN")
BATCH_INFERENCE = FlowKind("batch-inference", "FAIL BATCH INFERENCE")
EVALUATE = FlowKind("evaluate", "FAIL MODEL EVALUATION")
PIPELINE_CLEANUP = FlowKind("pipeline-artifacts-cleanup", "FAIL CLEANUP")

ALL = (TRAIN, TUNE, PIPELINE_RUN, BATCH_INFERENCE, EVALUATE, PIPELINE_CLEANUP)
