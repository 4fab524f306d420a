"""Batch inference: predict a data set with a registered model."""

from __future__ import annotations

import contextlib
import functools
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from flows import batch_inference_pods, batch_inference_server
from flows.flow_results import BatchInferenceResult
from flows.lifecycle import FlowSpec, lifecycle_flow
from flows.run_context import RunContext, RunResult, disk_full_reported
from flows.steps import StopRequestedError, step
from infra import gpus, settings, storage
from infra import home as homes
from infra.stack import orphans
from infra.workloads.environments import EnvironmentCache
from infra.workloads.exit_status import ExitCause, ExitStatus
from infra.workloads.installer import InstallCancelledError
from infra.workloads.process import ProcessBackend
from infra.workloads.process_group import RateLimitedLog
from registry import batch_inference_results, flow_kinds, tracking
from registry.mlflow_writer import MlflowWriter
from registry.models.models import ResolvedVersion
from registry.runs import publish_targets, run_monitor, run_nodes
from registry.tracking import Tracked
from tasks import outputs, resources
from tasks.batch_inference import (
    choice,
    failure_reasons,
    inference_request,
    input_files,
    model_environment,
    output_files,
    planning,
    predicting,
    publication,
    result_plots,
    result_statistics,
)
from tasks.batch_inference.failure_reasons import FailureReason
from tasks.batch_inference.inference_request import BatchInference
from tasks.batch_inference.output_files import JoinedOutput
from tasks.batch_inference.planning import Plan
from tasks.batch_inference.predicting import Folders, ProgressRecorder
from tasks.batch_inference.record_fields import InputFields
from tasks.batch_inference.shard import ShardStatus
from tasks.logs import publish as publish_log

_PROGRESS_SECONDS = 10.0
_CHECK_SECONDS = 1.0
_METRICS_SECONDS = 30.0


def check(request: BatchInference, _: str) -> None:
    """Refuse a batch inference that cannot work, before any resource is allocated.

    Raises:
        ModelyardError: With a code of its own for each fault.
    """
    inference_request.check(request, homes.current(), settings.load())


@step("prepare")
def _prepare(
    context: RunContext, request: BatchInference, model: ResolvedVersion, folders: Folders
) -> tuple[Path, Plan]:
    """Fetch the model and the input, and cut the input into parts."""
    if choice.runs_in_pods(context.settings):
        return Path(), batch_inference_pods.prepare(context, request, folders)
    found = storage.store(request.input_uri)
    plan = planning.read(folders.plan)
    chosen = input_files.select(found, request.include, request.exclude)
    files = planning.select_planned(plan, chosen, context.logger.warning)
    names = output_files.names_of([file.name for file in files], request.input_format)
    output = storage.store(request.output_uri)
    publication.check(output, names, overwrite=request.overwrite)
    batch_inference_server.fetch(request, model, folders)
    place = input_files.local(found, files, folders.staged)
    if plan is None:
        plan = planning.make(
            place, files, request.input_format, context.raise_if_ended, shards=request.pods,
            fields=InputFields(request.key, request.drop_fields),
        )  # fmt: skip
        planning.write(plan, folders.plan)
    planning.check_unchanged(plan, place)
    context.logger.info("%s", plan.summary)
    return place, plan


@step("predict")
def _predict(
    context: RunContext,
    request: BatchInference,
    model: ResolvedVersion,
    place: Path,
    plan: Plan,
    folders: Folders,
    tracked: Tracked,
    recorder: ProgressRecorder,
) -> None:
    """Run the shards to their end."""
    if choice.runs_in_pods(context.settings):
        batch_inference_pods.predict(
            context, request, model, plan, folders, recorder, tracked.run_id
        )
        return
    log_file = str(folders.log)
    if context.attempt > 1:
        done = predicting.done(plan, folders)
        predicting.check_failed([done], request.max_failed, log_file)
    environments = EnvironmentCache(context.home.overlays)
    backend = ProcessBackend(environments, context.settings, single=True)
    with contextlib.ExitStack() as held:
        held.enter_context(contextlib.closing(backend))
        found = _environment(context, request, model, folders, environments)
        python, keep = held.enter_context(found)
        lease = held.enter_context(_gpus(context, request, backend))
        forward = RateLimitedLog(context.logger.info, context.settings.log_lines_per_second)
        held.enter_context(contextlib.closing(forward))
        server = batch_inference_server.asked(
            context, request, model, folders, lease.names, forward
        )
        mark = orphans.inherited_mark() | orphans.run_mark(context.home, context.flow_run_id)
        processes = predicting.shards(
            request, model, plan, place, python, folders, lease.names, mark,
            held.enter_context(server),
        )  # fmt: skip
        _warn_of_idle_gpus(context, len(lease.names), len(processes))
        statuses = functools.partial(predicting.statuses, folders, len(processes))
        progress = predicting.Progress(
            statuses, plan.rows, request.max_failed,
            lambda line: context.logger.info("%s", line), recorder,
        )  # fmt: skip
        slot = run_nodes.own_slot(context.flow_run_id, context.attempt)
        with run_monitor.monitored(tracked, slot, context.logger.warning) as monitor:
            ended = backend.execute(
                processes,
                folder=folders.root,
                log_file=folders.log,
                on_line=lambda _, line: forward(line),
                deadline=context.deadline,
                stop_requested=_watched(context, progress),
                keep=[*keep, *(lock.fileno() for lock in lease.locks)],
                observer=monitor.nodes(1),
            )
    progress.report()
    context.raise_if_ended()
    _check_end(ended, statuses(), request.max_failed, log_file)
    planning.check_unchanged(plan, place)


def _check_end(ended: ExitStatus, statuses: Sequence[ShardStatus], most: int, log: str) -> None:
    """Raise why the shards have not predicted everything, unless they have."""
    predicting.check_failed(statuses, most, log)
    if ended.cause is ExitCause.STOPPED:
        raise StopRequestedError
    if failure := predicting.failure(ended, statuses, log):
        raise failure


@contextlib.contextmanager
def _environment(
    context: RunContext,
    request: BatchInference,
    model: ResolvedVersion,
    folders: Folders,
    environments: EnvironmentCache,
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Use the model's interpreter; the run ends if it is stopped while that is made."""
    if request.server_url or batch_inference_server.kind_of(request, model):
        # It has its own.
        yield "", ()
        return
    log, is_over = context.logger.info, context.is_over
    with contextlib.ExitStack() as held:
        try:
            found = model_environment.using(model, folders.model, environments, log, is_over)
            used = held.enter_context(found)
        except InstallCancelledError as error:
            context.raise_if_ended()
            raise StopRequestedError from error
        yield used


def _warn_of_idle_gpus(context: RunContext, gpus_: int, pods: int) -> None:
    idle = predicting.idle_gpus(gpus_, pods)
    if idle:
        context.logger.warning(
            "%d of %d GPUs predict nothing: %d pods do not share them equally.", idle, gpus_, pods
        )


@contextlib.contextmanager
def _gpus(
    context: RunContext, request: BatchInference, backend: ProcessBackend
) -> Iterator[gpus.GpuLease]:
    """Hold the machine's GPUs; the run ends if it is over before they are free."""
    available = len(gpus.devices(context.settings))
    asked = 0 if request.server_url else resources.gpu_count(request.machine(), context.settings)
    wanted = min(asked, available)
    with backend.hold_gpus(
        wanted,
        holder=f"run {context.name} ({context.flow_run_id})",
        on_wait=lambda holders: context.logger.info("Waiting for a GPU: %s", "; ".join(holders)),
        is_over=context.is_over,
        shared=False,
    ) as lease:
        if lease is None:
            context.raise_if_ended()
            raise StopRequestedError
        yield lease


def _watched(context: RunContext, progress: predicting.Progress) -> Callable[[], bool]:
    """Whether the shards are to end: the run is stopped, or too many records have failed.

    Tells the progress as it is asked.
    """
    told = checked = time.monotonic()
    is_hopeless = False

    def stop_requested() -> bool:
        nonlocal told, checked, is_hopeless
        now = time.monotonic()
        if now - told >= _PROGRESS_SECONDS:
            told = now
            progress.report()
        if now - checked >= _CHECK_SECONDS:
            checked = now
            is_hopeless = bool(progress.too_many_failed())
            progress.record_outputs()
        return is_hopeless or context.stop.is_set()

    return stop_requested


@step("publish")
def _publish(
    context: RunContext,
    request: BatchInference,
    model: ResolvedVersion,
    plan: Plan,
    folders: Folders,
    tracked: Tracked,
) -> JoinedOutput:
    """Join the results, check them, and publish them whole."""
    shutil.rmtree(folders.output, ignore_errors=True)
    folders.output.mkdir()
    described = {
        "model": model.uri,
        "flow_run_id": context.flow_run_id,
        "input_uri": request.input_uri,
        "input_format": request.input_format,
        "key": request.key or None,
    }
    output = output_files.put_together(
        folders.output, plan, folders.parts, request.input_format, described,
        context.raise_if_ended,
    )  # fmt: skip
    manifest = output.manifest
    if told := output_files.cut_off(manifest):
        context.logger.warning("Of the input%s; errors.jsonl has all.", told)
    if not manifest["predicted"]:
        reasons = manifest["failure_reasons"]
        why = f": {reasons[0]['reason']}" if reasons else ""
        raise predicting.failed(
            f"None of the {manifest['rows']:,} records could be predicted{why}", str(folders.log)
        )
    publication.publish(folders.output, request.output_uri, overwrite=request.overwrite)
    publish_targets.record(tracked.run_id, outputs.canonical(request.output_uri))
    return output


@contextlib.contextmanager
def _recording(context: RunContext, tracked: Tracked, plan: Plan) -> Iterator[ProgressRecorder]:
    """Record in the run's MLflow run, which has everything at the end."""
    writer = MlflowWriter(context.logger.warning)
    writer.track(tracked)

    def record_reasons(found: Sequence[FailureReason]) -> None:
        shown = failure_reasons.shown(found, plan.name_of)
        tag = batch_inference_results.reasons_tag(shown)
        writer.set_tags(tracked.run_id, {batch_inference_results.REASONS_TAG: tag})

    def record_outputs(found: Sequence[str]) -> None:
        tag = batch_inference_results.outputs_tag(found)
        writer.set_tags(tracked.run_id, {batch_inference_results.OUTPUTS_TAG: tag})

    try:
        yield ProgressRecorder(
            lambda name, value: writer.log_metric(tracked.run_id, name, value),
            record_reasons,
            record_outputs,
        )
    finally:
        writer.close(_METRICS_SECONDS)


def _record(
    context: RunContext,
    request: BatchInference,
    folders: Folders,
    output: JoinedOutput,
    tracked: Tracked,
    recorder: ProgressRecorder,
) -> None:
    """Log the statistics of the results, their plots, and where they are."""
    found = result_statistics.combined(output.statistics)
    records, failed = output.manifest["rows"], output.manifest["failed"]
    metrics = {"records": float(records), "failed": float(failed), **found.metrics}
    for name, value in metrics.items():
        recorder.metric(name, value)
    plot = folders.root / PurePosixPath(batch_inference_results.PLOT).name
    plot.write_bytes(result_plots.draw(found, context.name, records, failed))
    for file in (plot, folders.output / output_files.MANIFEST):
        tracking.log_file(tracked.run_id, file, batch_inference_results.FOLDER)
    uri = _manifest_uri(request)
    tracking.client().set_tag(tracked.run_id, batch_inference_results.MANIFEST_TAG, uri)


def _manifest_uri(request: BatchInference) -> str:
    return f"{request.output_uri.rstrip('/')}/{output_files.MANIFEST}"


def _clean_up(context: RunContext, request: BatchInference, folders: Folders, run_id: str) -> None:
    """Keep the log of the attempt, and no specification of a shard."""
    for spec in folders.root.glob("shard-?*.json"):
        spec.unlink()
    if folders.log.exists():
        tracking.log_file(run_id, folders.log, "logs")
    publish_log(folders.log, request.logs, folders.root.name, context.logger.warning)


@lifecycle_flow(
    FlowSpec(
        kind=flow_kinds.BATCH_INFERENCE,
        request=BatchInference,
        check=check,
        pin=inference_request.pin,
        changeable_at_retry=inference_request.CHANGEABLE_AT_RETRY,
        pool="gpu",
        result=BatchInferenceResult,
        tags=("modelyard", "batch-inference"),
    )
)
def batch_inference(context: RunContext, request: BatchInference) -> RunResult:
    """Predict a data set with a registered model, and store the results beside each other.

    Returns:
        ``{"mlflow_run_id", "records", "failed", "failure_reasons", "manifest_uri"}``.
    """
    model = inference_request.resolve(request)
    folders = Folders(context.home.runs / context.flow_run_id)
    folders.root.mkdir(parents=True, exist_ok=True)
    place, plan = _prepare(context, request, model, folders)
    tracked = context.open(
        request,
        {"model": model.uri, "batch_size": request.batch_size, "pods": request.pods},
        "Statistics of the results, resource usage and the log in MLflow",
    )
    context.closing.callback(_clean_up, context, request, folders, tracked.run_id)
    with disk_full_reported(folders.root), _recording(context, tracked, plan) as recorder:
        _predict(context, request, model, place, plan, folders, tracked, recorder)
        context.conclude(failed=False)
        output = _publish(context, request, model, plan, folders, tracked)
        _record(context, request, folders, output, tracked, recorder)
    for folder in (folders.parts, folders.output, folders.staged, folders.model):
        shutil.rmtree(folder, ignore_errors=True)
    if choice.runs_in_pods(context.settings):
        batch_inference_pods.remove_staged(context)
    uri, manifest = _manifest_uri(request), output.manifest
    return RunResult(
        {
            "mlflow_run_id": tracked.run_id,
            "records": manifest["rows"],
            "failed": manifest["failed"],
            "failure_reasons": manifest["failure_reasons"],
            "manifest_uri": uri,
        },
        f"{manifest['predicted']:,} records were predicted, {manifest['failed']:,} failed"
        f"{output_files.cut_off(manifest)}: {uri}",
    )
