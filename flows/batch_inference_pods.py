"""Batch inference on a cluster: each shard is a pod, and the run's own pod follows them."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from flows import batch_inference_server, placing
from flows.run_context import RunContext
from infra import instance_types, storage
from infra.errors import ModelyardError
from infra.instance_types import InstanceType
from infra.kubernetes import capacity
from infra.kubernetes import cluster as clusters
from infra.storage import Store
from infra.workloads.kubernetes import staging
from infra.workloads.kubernetes.backend import RunAttempt
from infra.workloads.kubernetes.job_manifest import InstanceSpec
from infra.workloads.kubernetes.staging import StagingArea
from infra.workloads.process_group import RateLimitedLog
from infra.workloads.redaction import redactor
from pipelines.backends import choice as backends
from registry import flow_kinds
from registry.models.models import ResolvedVersion
from serving import model_servers
from tasks import placement
from tasks.batch_inference import (
    choice,
    input_files,
    output_files,
    planning,
    pod_server,
    predicting,
    publication,
    shard_pods,
    staged_parts,
)
from tasks.batch_inference.inference_request import BatchInference
from tasks.batch_inference.input_files import InputFile
from tasks.batch_inference.planning import Plan, PlannedFile
from tasks.batch_inference.pod_resources import PodResources
from tasks.batch_inference.pod_server import PodServer
from tasks.batch_inference.predicting import Folders, ProgressRecorder
from tasks.batch_inference.record_fields import InputFields
from tasks.batch_inference.shard_pods import PartCollector, ShardPods
from tasks.batch_inference.staged_parts import StagedParts

_COLLECT_SECONDS = 5.0


def prepare(context: RunContext, request: BatchInference, folders: Folders) -> Plan:
    """Cut the input into parts; a retry has the plan of the first attempt.

    Raises:
        ModelyardError: If the input cannot be read, or has no records; if no storage is named
            through which the pods' results go.
    """
    staging.check(context.settings.pipeline_staging_uri)
    found = storage.store(request.input_uri)
    area = _area(context)
    plan = staged_parts.read_plan(area)
    chosen = input_files.select(found, request.include, request.exclude)
    files = planning.select_planned(plan, chosen, context.logger.warning)
    names = output_files.names_of([file.name for file in files], request.input_format)
    output = storage.store(request.output_uri)
    publication.check(output, names, overwrite=request.overwrite)
    if plan is None:
        plan = _plan(context, request, found, files, folders)
        staged_parts.publish_plan(plan, area)
    elif (place := found.in_place()) is not None:
        planning.check_unchanged(plan, place)
    else:
        planning.check_sizes(plan, {file.name: file.size for file in files})
    context.logger.info("%s", plan.summary)
    return plan


def _area(context: RunContext) -> str:
    return staged_parts.area(context.settings.pipeline_staging_uri, context.flow_run_id)


def _plan(
    context: RunContext,
    request: BatchInference,
    found: Store,
    files: Sequence[InputFile],
    folders: Folders,
) -> Plan:
    """Plan one file after another, of a storage each fetched for it alone."""
    fields = InputFields(request.key, request.drop_fields)
    planned: list[PlannedFile] = []
    for file in files:
        place = input_files.local(found, [file], folders.staged)
        path = planning.path_of(place, file.name)
        planned.append(
            planning.plan_file(path, file, request.input_format, context.raise_if_ended, fields)
        )
        if place == folders.staged:
            path.unlink()
    fields.check()
    return planning.combine(planned, request.pods)


def predict(
    context: RunContext,
    request: BatchInference,
    model: ResolvedVersion,
    plan: Plan,
    folders: Folders,
    recorder: ProgressRecorder,
    mlflow_run_id: str,
) -> None:
    """Run the pods to their end, and fetch their results.

    Raises:
        ModelyardError: If a pod fails, or the cluster cannot run it; if the run is over.
    """
    folders.parts.mkdir(exist_ok=True)
    shape, share = _instance(context, request)
    if share.idle_gpus:
        context.logger.warning(
            "%d of an instance's %d GPUs predict nothing: its pods do not share them equally.",
            share.idle_gpus, shape.gpus,
        )  # fmt: skip
    collector = PartCollector(StagedParts(_area(context)), folders.parts)
    check_failed = functools.partial(_check_failed, collector, request, folders)
    check_failed()
    server = _server(context, request, model, share)
    pods = shard_pods.plan_pods(
        request, model, plan, folders, _area(context), clusters.load(context.settings).image,
        shape, share, mlflow_run_id, server,
    )  # fmt: skip
    backend = backends.backend(
        context.settings,
        RunAttempt(context.flow_run_id, int(os.environ["MODELYARD_ATTEMPT"])),
        instances=InstanceSpec(request.resources.instance_type, shape, request.resources.nodes),
    )
    progress = predicting.Progress(
        lambda: [collector.status],
        plan.rows,
        request.max_failed,
        lambda line: context.logger.info("%s", line),
        recorder,
    )
    with contextlib.closing(backend), _logging(context, folders.log) as log_line:
        values = predicting.predictor_secrets(None, model).values() if server else ()
        shards = ShardPods(backend, pods, collector, log_line, str(folders.log), redactor(values))
        shards.run(context.is_over, _collecting(context, collector, progress, check_failed))
    context.raise_if_ended()
    collector.collect()
    progress.report()
    check_failed()


def _server(
    context: RunContext, request: BatchInference, model: ResolvedVersion, share: PodResources
) -> PodServer | None:
    """The server that is started in each pod; None if its shard loads the model."""
    kind = batch_inference_server.kind_of(request, model)
    if kind is None:
        return None
    image = model_servers.image(kind, context.settings)
    context.logger.info("Each pod starts %s for the model: %s", kind, image)
    seconds = context.settings.server_start_seconds
    return PodServer(kind, image, pod_server.FOLDER, share.gpus, seconds)


def _check_failed(collector: PartCollector, request: BatchInference, folders: Folders) -> None:
    """End the run if too many records have failed."""
    predicting.check_failed([collector.status], request.max_failed, str(folders.log))


def _instance(context: RunContext, request: BatchInference) -> tuple[InstanceType, PodResources]:
    """Shape of an instance, and what a pod has of it.

    Both are without GPUs if the cluster has too few and the request allows that.
    """
    shape = instance_types.find(request.resources.instance_type, context.settings)
    share = choice.share(request, context.settings)
    if shape.gpus and request.resources.allow_cpu:
        flow = flow_kinds.BATCH_INFERENCE.name
        _, pods = placement.plan_requests(flow, request.model_dump())
        if not placing.fit(pods).shape.gpus:
            return capacity.without_gpus(shape), replace(share, gpus=0, idle_gpus=0)
    return shape, share


def _collecting(
    context: RunContext,
    collector: PartCollector,
    progress: predicting.Progress,
    check_failed: Callable[[], None],
) -> Callable[[], None]:
    """Fetches results and tells the progress, whenever it is time; ends what is hopeless."""
    collected = time.monotonic()

    def collect() -> None:
        nonlocal collected
        if time.monotonic() - collected < _COLLECT_SECONDS:
            return
        try:
            collector.collect()
            progress.report()
        except ModelyardError as error:
            context.logger.warning("Results are fetched later: %s", error.message)
        check_failed()
        collected = time.monotonic()

    return collect


@contextlib.contextmanager
def _logging(context: RunContext, file: Path) -> Iterator[Callable[[str], None]]:
    """Log lines of pods, which come in threads, and append them to the run's log file."""
    # Only this thread has the context that Prefect finds the run's logger by.
    forward = RateLimitedLog(context.logger.info, context.settings.log_lines_per_second)
    lock = threading.Lock()
    with file.open("a") as log, contextlib.closing(forward):

        def log_line(line: str) -> None:
            with lock:
                log.write(f"{line}\n")
                log.flush()
                forward(line)

        yield log_line


def remove_staged(context: RunContext) -> None:
    """Remove what the run has staged; a failure is only logged."""
    area = StagingArea(context.settings.pipeline_staging_uri, context.flow_run_id)
    try:
        storage.store(area.uri).remove()
    except ModelyardError as error:
        context.logger.warning("What was staged at %s stays there: %s", area.uri, error.message)
