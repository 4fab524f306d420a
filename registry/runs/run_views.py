"""Views of runs, made of Prefect's flow runs.

Pages make them of what Prefect's REST API answers, so nothing here imports Prefect or MLflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import not_
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from registry.batch_inference_results import BatchInferenceResultView
from registry.evaluation_results import EvaluationSummaryView
from registry.pipelines.pipeline_views import PipelineResultView
from registry.runs import labels, statuses
from registry.tunings.tuning_views import TuningResultView, TuningSummaryView
from registry.views import Instant, JsonObject, View

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun


class _RestState(NamedTuple):
    """A state in the JSON of Prefect's REST API."""

    type: str
    name: str | None
    message: str | None


class RunView(View):
    """A run of a flow, as lists and pages show it.

    Attributes:
        id: The flow run's id.
        name: Its name.
        flow: Its flow's name.
        state: The reference's word for its state.
        detail: The reference's bracketed word; empty without one.
        created: When Prefect created it.
        started: When its first attempt started.
        ended: When it ended.
        seconds: Run time of its attempts so far, without the time between them.
        waiting: What it waits for; empty if it does not wait.
        tuning: Its trials, where a list shows a tuning.
        message: The message of its state.
        parameters: Its parameters.
        tags: Its tags in Prefect.
        is_final: Whether it has ended.
        mlflow_run_id: Its MLflow run; None if it has none yet.
        error_code: The code of the error that it failed with; empty without one.
        schedule_id: The schedule that made it; empty without one.
        tuning_id: The run of the tuning that it is a trial of; empty if it is none.
        evaluation_id: The run of the evaluation that it predicts for; empty if it does not.
    """

    id: str
    name: str
    flow: str
    state: str
    detail: str = ""
    created: Instant | None = None
    started: Instant | None = None
    ended: Instant | None = None
    seconds: float = 0.0
    waiting: str = Field("", exclude_if=not_)
    tuning: TuningSummaryView | None = Field(None, exclude=True)
    message: str = Field("", exclude=True)
    parameters: JsonObject = Field(default_factory=dict, exclude=True)
    tags: tuple[str, ...] = Field((), exclude=True)
    is_final: bool = Field(False, exclude=True)
    mlflow_run_id: str | None = Field(None, exclude=True)
    error_code: str = Field("", exclude=True)
    schedule_id: str = Field("", exclude=True)
    tuning_id: str = Field("", exclude=True)
    evaluation_id: str = Field("", exclude=True)

    @model_serializer(mode="wrap")
    def _serialize(self, handler: SerializerFunctionWrapHandler) -> JsonObject:
        return {**handler(self), **(self.tuning.to_json() if self.tuning else {})}

    @classmethod
    def from_flow_run(cls, run: FlowRun, flow: str, waiting: str = "", **more: Any) -> Self:
        """Return the view of a flow run as Prefect's client has it.

        Args:
            run: The flow run.
            flow: Its flow's name.
            waiting: What it waits for.
            more: Further fields, which take precedence.
        """
        seconds = run.estimated_run_time.total_seconds()
        derived = _derived(flow, run.state, run.labels or {}, run.run_count)
        facts = {
            "id": str(run.id), "name": run.name, "created": run.created,
            "started": run.start_time, "ended": run.end_time, "seconds": round(seconds, 1),
            "parameters": run.parameters, "tags": run.tags, "waiting": waiting, **derived, **more,
        }  # fmt: skip
        return cls(**facts)

    @classmethod
    def from_rest(cls, found: Mapping[str, Any], flow: str, waiting: str = "") -> Self:
        """Return the view of a flow run as Prefect's REST API has it."""
        of = found.get("state") or {}
        state = _RestState(of["type"], of.get("name"), of.get("message")) if of else None
        derived = _derived(
            flow, state, found.get("labels") or {}, int(found.get("run_count") or 0)
        )
        return cls(
            id=str(found["id"]), name=str(found["name"]), created=found.get("created"),
            started=found.get("start_time"), ended=found.get("end_time"),
            seconds=round(found.get("estimated_run_time") or 0.0, 1),
            parameters=found.get("parameters") or {}, tags=found.get("tags") or (),
            waiting=waiting, **derived,
        )  # fmt: skip


def _derived(
    flow: str, state: statuses.State | None, of_run: Mapping[str, object], attempt: int
) -> dict[str, Any]:
    """Fields that follow from a run's state and labels."""
    return {
        "flow": flow,
        "state": statuses.word(flow, state, of_run, attempt),
        "detail": statuses.detail(state),
        "message": statuses.message(state),
        "is_final": statuses.is_final(state),
        "mlflow_run_id": labels.mlflow_run_id(of_run),
        "error_code": statuses.error_code(of_run, attempt),
        "schedule_id": str(of_run.get(labels.SCHEDULE, "")),
        "tuning_id": str(of_run.get(labels.TUNING, "")),
        "evaluation_id": str(of_run.get(labels.EVALUATION, "")),
    }


class RunResultView(View):
    """The result of a run that has an MLflow run of its own, and nothing more.

    Attributes:
        mlflow_run_id: Its MLflow run.
        model_uri: The model version that was made of it; None if none was.
        metrics: The last value of each metric; None where it was not a finite number.
    """

    mlflow_run_id: str
    model_uri: str | None
    metrics: dict[str, float | None]


# The result of a run by its flow; None without an MLflow run.
ResultView = (
    RunResultView
    | TuningResultView
    | PipelineResultView
    | BatchInferenceResultView
    | EvaluationSummaryView
    | None
)


class RunNodeView(View):
    """A node of a run: the machine, or the pod, that runs its processes.

    Attributes:
        rank: Its number, from 0; the first one executes the run.
        state: RUNNING, COMPLETE, STOPPED, FAILED, or LOST if it never reported its end.
        machine: Name of the machine, on a cluster of the Kubernetes node.
        pod: Name of its pod; omitted outside a cluster.
        started: When its processes could start; None if an older version ran it.
        ended: When it reported its end.
        exit_code: Exit status of its script, or minus a signal's number; omitted without one.
    """

    rank: int
    state: str
    machine: str
    pod: str = Field("", exclude_if=not_)
    started: Instant | None
    ended: Instant | None
    exit_code: int | None = Field(None, exclude_if=lambda code: code is None)


class RunDetailView(RunView):
    """A run with everything that is known of it.

    Attributes:
        user: Who started it.
        schedule: Name of the schedule that made it.
        slot: The schedule's slot that it was made for.
        attempts: How many attempts there were.
        retried: Why earlier attempts were given up.
        nodes: Where its last attempt ran, by rank.
        result: What it has to show; None without an MLflow run.
        links: Its pages, by the UI.
        history: What users did to it.
    """

    waiting: str = ""
    message: str = ""
    parameters: JsonObject
    user: str | None
    schedule: str | None
    slot: str | None
    attempts: int
    retried: list[str] = Field([], exclude_if=not_)
    nodes: list[RunNodeView] = Field([], exclude_if=not_)
    result: ResultView
    links: dict[str, str]
    history: list[JsonObject]

    @model_serializer(mode="wrap")
    def _serialize(self, handler: SerializerFunctionWrapHandler) -> JsonObject:
        shown: JsonObject = handler(self)
        # Inherited parameters would precede the short fields, which people read first.
        for name in ("parameters", "nodes", "result", "links", "history"):
            if name in shown:
                shown[name] = shown.pop(name)
        return shown


class RunStatusView(View):
    """A run's state and pages, which its verbs answer with."""

    flow_run_id: str
    name: str
    state: str
    links: dict[str, str]


class RunOutcomeView(View):
    """A run that was waited for, with its result."""

    flow_run_id: str
    state: str
    detail: str
    message: str
    result: ResultView
    links: dict[str, str]

    @classmethod
    def from_run(cls, run: RunDetailView) -> Self:
        """Return the outcome of a run."""
        names = ("state", "detail", "message", "result", "links")
        return cls(flow_run_id=run.id, **{name: getattr(run, name) for name in names})
