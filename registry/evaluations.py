"""Evaluations of models: the runs of their batch inferences, and what was found for a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.exceptions import ObjectNotFound

from infra import identity
from infra.mlflow import MlflowException
from infra.prefect_client import prefect_client
from registry import batch_inference_results, flow_kinds, tracking
from registry.blockers import Blocker
from registry.evaluation_results import inference_tag
from registry.models import evaluation_tags, model_aliases, model_versions
from registry.runs import labels as run_labels
from registry.runs import runs, statuses
from registry.runs.run_views import RunView
from registry.tunings import tuning_removal
from registry.views import Instant, JsonObject, View

KIND = flow_kinds.EVALUATE.name
_CHILD = flow_kinds.BATCH_INFERENCE.name


class EvaluationView(View):
    """An evaluation, as lists show it.

    Attributes:
        id: Its flow run.
        name: The run's name.
        model: The version that is evaluated, or an alias.
        task: What the model predicts.
        state: The reference's word for the run's state.
        started: When its first attempt started.
    """

    id: str
    name: str
    model: str
    task: str
    state: str
    started: Instant | None


@dataclass(frozen=True)
class InferenceStatus:
    """What an evaluation's batch inference has come to.

    Attributes:
        word: The reference's word for its state.
        is_final: Whether it has ended.
        error_code: The code of the error that its last attempt failed with; "" for none.
        message: What its state says.
    """

    word: str
    is_final: bool
    error_code: str
    message: str

    @property
    def is_complete(self) -> bool:
        """Whether everything was predicted."""
        return self.word == statuses.COMPLETE

    @property
    def is_stopping(self) -> bool:
        """Whether it was asked to end, and has not."""
        return self.word == statuses.STOP_IN_PROGRESS


def submit_inference(evaluation: str, name: str, parameters: Mapping[str, object]) -> str:
    """Create the batch inference of an evaluation, once; its run's id.

    Args:
        evaluation: The flow run of the evaluation.
        name: Its name.
        parameters: Of ``batch-inference``; they have been checked.
    """
    return runs.submit(
        _CHILD,
        dict(parameters),
        f"{name} batch inference",
        identity.caller(),
        {run_labels.EVALUATION: evaluation},
        once=f"{evaluation} batch-inference",
        tags=[inference_tag(evaluation)],  # Prefect filters by tags, not by labels
    )


def inference_status(run_id: str) -> InferenceStatus | None:
    """What a batch inference has come to; None if its run was deleted."""
    with prefect_client() as client:
        try:
            run = client.read_flow_run(UUID(run_id))
        except ObjectNotFound:
            return None
    state = run.state
    return InferenceStatus(
        statuses.word(_CHILD, state),
        bool(state and state.is_final()),
        statuses.error_code(run.labels or {}, run.run_count),
        statuses.message(state),
    )


def predicted_outputs(run_id: str) -> list[str]:
    """The names of the outputs of a batch inference's model; none before it has results."""
    with prefect_client() as client:
        try:
            found = run_labels.mlflow_run_id(client.read_flow_run(UUID(run_id)).labels or {})
        except ObjectNotFound:
            return []
    try:
        tags = tracking.client().get_run(found).data.tags if found else {}
    except MlflowException:  # deleted
        return []
    return batch_inference_results.outputs(tags)


def _inferences(evaluation: str) -> list[RunView]:
    """The batch inferences of a run; none of one that is no evaluation."""
    tags = FlowRunFilterTags(all_=[inference_tag(evaluation)])
    return runs.matching(FlowRunFilter(tags=tags))


def inference_blockers(run_id: str) -> list[Blocker]:
    """Return why a run may not be deleted: its batch inference is active."""
    return [
        Blocker(f"Its batch inference {run.name} ({run.id}) is {run.state}.",
                ("runs", "stop", run.id))
        for run in _inferences(run_id)
        if not run.is_final
    ]  # fmt: skip


def owner_blockers(run_id: str) -> list[Blocker]:
    """Return why a run may not be deleted: the evaluation that it predicts for is active."""
    evaluation = runs.label(run_id, run_labels.EVALUATION)
    there = runs.with_ids([evaluation]) if evaluation else []
    return [
        Blocker(f"The evaluation {run.name} ({run.id}), which it predicts for, is {run.state}.",
                ("runs", "stop", run.id))
        for run in there
        if not run.is_final
    ]  # fmt: skip


def remove(run_id: str) -> JsonObject:
    """Remove a run with its batch inference, if it has one, and with its trials, unchecked."""
    runs.remove_existing([run.id for run in _inferences(run_id)])
    return tuning_removal.remove(run_id)


def of_model(name: str, version: int) -> list[str]:
    """MLflow runs of the evaluations of a version that are complete, the newest first.

    Evaluations of an earlier version of the same name and number, which was deleted, are left out.

    Raises:
        NotFoundError: If there is no such version.
    """
    model_aliases.settle(name)
    found = model_versions.find(name, version)
    made = found.creation_timestamp or 0
    evaluated = evaluation_tags.of_version(model_versions.uri(found))
    return [run.info.run_id for run in evaluated if (run.info.start_time or 0) >= made]
