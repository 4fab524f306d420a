"""Model evaluation: predict a data set, and compare the predictions with the true values."""

from __future__ import annotations

import math
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from prefect.artifacts import create_table_artifact

from flows.flow_results import EvaluationResult
from flows.lifecycle import FlowSpec, lifecycle_flow
from flows.run_context import RunContext, RunResult, disk_full_reported
from flows.steps import step
from infra import home as homes
from infra import settings, storage
from infra.controllers import EventNotifier
from infra.errors import RunFailedError
from infra.prefect_events import RUNS, EventSubscription
from registry import evaluations, flow_kinds, metric_names, tracking
from registry.evaluation_results import (
    EVALUATED_TAG,
    FOLDER,
    RESULT,
    RESULT_TAG,
    EvaluationSummaryView,
)
from registry.evaluations import InferenceStatus
from registry.mlflow_writer import MlflowWriter
from registry.models.models import ResolvedVersion
from registry.runs import publish_targets, run_requests
from registry.tracking import Tracked
from tasks import outputs
from tasks.batch_inference import inference_request, predicting, publication
from tasks.batch_inference.input_files import InputFile
from tasks.evaluation import evaluating, evaluation_request, output_fields
from tasks.evaluation.evaluating import EvaluationFolders
from tasks.evaluation.evaluation_request import Evaluation

_RESYNC_SECONDS = 30.0
_POLL_SECONDS = 1.0
_OUTPUTS_SECONDS = 2.0
_CHECK_SECONDS = 0.5
_METRICS_SECONDS = 30.0
_PROGRESS_SECONDS = 10.0
_SHOWN = 40
_LONGEST_NAME = 200


def check(request: Evaluation, _: str) -> None:
    """Refuse an evaluation that cannot work, before any resource is allocated.

    Raises:
        ModelyardError: With a code of its own for each fault.
    """
    evaluation_request.check(request, homes.current(), settings.load())
    output_fields.check_signature(request)
    outputs.check_unused(request.output_uri, publish_targets.is_known, overwrite=request.overwrite)


@step("predict")
def _predict(context: RunContext, request: Evaluation) -> str:
    """Run the batch inference to its end, and stop it with this run; its flow run."""
    inference = request.inference().model_dump(mode="json")
    run_id = evaluations.submit_inference(context.flow_run_id, context.name, inference)
    context.logger.info("The batch inference is the run %s.", run_id)
    status = evaluations.inference_status(run_id)
    if status and status.is_stopping:  # with an earlier attempt, so its end is not this one's
        status = _followed(context, request, run_id)
    if context.attempt > 1 and status and status.is_final and not status.is_complete:
        context.logger.info("It is resumed.")
        run_requests.resume(run_id)
    try:
        status = _followed(context, request, run_id)
    except BaseException:
        run_requests.request_stop(run_id)
        raise
    if status is None or not status.is_complete:
        raise _unpredicted(run_id, status)
    return run_id


def _followed(context: RunContext, request: Evaluation, run_id: str) -> InferenceStatus | None:
    """The status of a batch inference that has ended; None if it was deleted.

    Raises:
        BadInputError: If its first results lack a field that the evaluation reads.
    """
    outputs: list[str] = []
    asked = time.monotonic()
    changed = threading.Event()
    changed.set()
    notifier = EventNotifier(
        "batch inference", changed.set, [EventSubscription(RUNS)],
        resync_seconds=_RESYNC_SECONDS, poll_seconds=_POLL_SECONDS,
    )  # fmt: skip
    try:
        while True:
            if changed.wait(_CHECK_SECONDS):
                changed.clear()
                status = evaluations.inference_status(run_id)
                if status is None or status.is_final:
                    return status
            if not outputs and time.monotonic() - asked > _OUTPUTS_SECONDS:
                outputs = evaluations.predicted_outputs(run_id)
                asked = time.monotonic()
                if outputs:
                    output_fields.check(request, outputs, "its first result")
            context.raise_if_ended()
    finally:
        notifier.close()


# What to do where a retry alone resumes nothing, by the code of the batch inference's error.
_ANEW = "A retry cannot resume it: start a new evaluation, as with modelyard runs copy."
_REMEDIES = {
    predicting.TOO_MANY_FAILED: "To allow more: modelyard runs update {} -p max_failed=N; a retry "
    "of the evaluation resumes it then.",
    publication.FILES_EXIST: "Move the files, or allow them to be replaced: modelyard runs update "
    "{} -p overwrite=true; a retry of the evaluation resumes it then.",
    **dict.fromkeys(
        ("InputChanged", "InputEmpty", "InputMalformed", "FieldMissing", "RunDeleted"), _ANEW
    ),
}


def _unpredicted(run_id: str, status: InferenceStatus | None) -> RunFailedError:
    if status is None:
        reason, code = f"its run {run_id} was deleted", "RunDeleted"
    else:
        code = status.error_code or "BatchInferenceFailed"
        said = status.message.removeprefix(f"{code}: ")
        reason = f"{status.word}: {said or 'no reason'}"
    remedy = _REMEDIES.get(code, "A retry of the evaluation resumes it.").format(run_id)
    return RunFailedError(
        f"The batch inference {run_id} did not predict everything: {reason}",
        f"Its log has more: modelyard runs logs {run_id}. {remedy}",
        state=flow_kinds.EVALUATE.failure,
        code=code,
    )


@step("evaluate")
def _evaluate(
    context: RunContext,
    request: Evaluation,
    described: dict[str, Any],
    files: Sequence[InputFile],
    folders: EvaluationFolders,
) -> dict[str, Any]:
    """Compute the metrics, and write them to the run's folder; the result."""
    shutil.rmtree(folders.sorting, ignore_errors=True)
    predictions = evaluating.predicted(request, described["batch_inference"])
    report = _progress(context, predictions.rows)
    scores, data = evaluating.score(
        request, files, folders, predictions, context.raise_if_ended, report
    )
    evaluating.check_unchanged(request, evaluating.select(request), folders)
    described |= {"data": {"uri": request.input_uri, "format": request.input_format, **data}}
    result = evaluating.write(scores, described, request, folders.output)
    for line in result["remarks"]:
        context.logger.warning("%s", line)
    return result


def _progress(context: RunContext, records: int) -> Callable[[int], None]:
    """Logs how many of so many records were scored, and how long the others take."""
    began = said = time.monotonic()

    def report(done: int) -> None:
        nonlocal said
        now = time.monotonic()
        if done and now - said >= _PROGRESS_SECONDS:
            said = now
            left = predicting.duration((now - began) / done * max(0, records - done))
            context.logger.info(
                "%s of %s records: about %s left", f"{done:,}", f"{records:,}", left
            )

    return report


@step("publish")
def _publish(
    context: RunContext,
    request: Evaluation,
    folders: EvaluationFolders,
    result: dict[str, Any],
    tracked: Tracked,
) -> None:
    """Publish the results, and record them in the run's MLflow run."""
    storage.store(request.place(FOLDER)).publish(folders.output)
    tracking.log_files(tracked.run_id, folders.output, FOLDER)
    tracking.client().set_tag(tracked.run_id, RESULT_TAG, _result_uri(request))
    writer = MlflowWriter(context.logger.warning)
    writer.track(tracked)
    for name, value in _metrics(result).items():
        writer.log_metric(tracked.run_id, name, math.nan if value is None else value)
    writer.close(_METRICS_SECONDS)
    undefined = result["undefined"]
    rows = [
        {"metric": name, "value": undefined.get(name) if value is None else f"{value:.6g}"}
        for name, value in result["metrics"].items()
    ]
    create_table_artifact(key="evaluation", table=rows[:_SHOWN])


def _result_uri(request: Evaluation) -> str:
    return f"{request.place(FOLDER)}/{RESULT}"


def _metrics(result: dict[str, Any]) -> dict[str, float | None]:
    """Metrics by names that MLflow takes: of all records, and what became of those."""
    found: dict[str, float | None] = {}
    for name, value in result["metrics"].items():
        shown = "/".join(map(metric_names.part, name.split("/")))[:_LONGEST_NAME]
        found[metric_names.unique(shown, found)] = value
    return found | {f"records/{name}": float(many) for name, many in result["counts"].items()}


def _resolve(request: Evaluation) -> ResolvedVersion:
    return inference_request.resolve(request.inference())


@lifecycle_flow(
    FlowSpec(
        kind=flow_kinds.EVALUATE,
        request=Evaluation,
        check=check,
        pin=inference_request.pin,
        changeable_at_retry=evaluation_request.CHANGEABLE_AT_RETRY,
        check_changed=evaluation_request.check_classes,
        pool="cpu",
        result=EvaluationResult,
        tags=("modelyard", "evaluation"),
    )
)
def evaluate(context: RunContext, request: Evaluation) -> RunResult:
    """Measure a model: predict a data set, and compare the predictions with the true values.

    Returns:
        ``{"mlflow_run_id", "metrics", "undefined", "counts", "result_uri"}``.
    """
    model = _resolve(request)
    folders = EvaluationFolders(context.home.runs / context.flow_run_id)
    folders.root.mkdir(parents=True, exist_ok=True)
    files = evaluating.select(request)
    evaluating.check_first_file(request, files, folders)
    evaluating.check_unchanged(request, files, folders)
    tracked = context.open(
        request,
        {"model": model.uri, "task": request.task, "target_field": request.target_field},
        "Metrics, curves and the confusion matrix in MLflow",
    )
    tracking.client().set_tag(tracked.run_id, EVALUATED_TAG, model.uri)
    publish_targets.record(tracked.run_id, outputs.canonical(request.output_uri))
    inference = _predict(context, request)
    described = {
        "model": model.uri,
        "flow_run_id": context.flow_run_id,
        "mlflow_run_id": tracked.run_id,
        "batch_inference": inference,
    }
    with disk_full_reported(folders.root):
        result = _evaluate(context, request, described, files, folders)
        context.conclude(failed=False)
        _publish(context, request, folders, result, tracked)
    for folder in (folders.input, folders.predictions, folders.sorting, folders.output):
        shutil.rmtree(folder, ignore_errors=True)
    summary = EvaluationSummaryView(
        mlflow_run_id=tracked.run_id, metrics=result["metrics"], undefined=result["undefined"],
        counts=result["counts"], result_uri=_result_uri(request),
    )  # fmt: skip
    return RunResult(summary.to_json(), _summary(result))


def _summary(result: dict[str, Any]) -> str:
    """The result in a sentence."""
    names = ("accuracy", "roc_auc", "f1") if result["class_names"] else ("mae", "rmse", "r2")
    found = result["metrics"]
    shown = ", ".join(f"{name} {found[name]:.4g}" for name in names if found.get(name) is not None)
    counts = result["counts"]
    return f"{counts['evaluated']:,} of {counts['records']:,} records were evaluated: {shown}."
