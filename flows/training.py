"""Training: run a script under AI EasyMaker's contract and register its model."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from prefect.artifacts import create_table_artifact
from prefect.exceptions import Abort

from flows import run_context
from flows.flow_results import TrainingResult
from flows.lifecycle import FlowSpec, lifecycle_flow
from flows.run_context import RunContext, RunResult
from flows.steps import StopRequestedError, step
from infra import home as homes
from infra import settings, site
from infra.errors import ModelyardError
from infra.workloads.exit_status import ExitCause, ExitStatus
from infra.workloads.installer import InstallCancelledError
from infra.workloads.process_group import RateLimitedLog
from registry import flow_kinds, tracking
from registry.mlflow_writer import MlflowWriter
from registry.models import models
from registry.runs import publish_targets, run_monitor, run_nodes, tensorboard_logs
from registry.tracking import Tracked
from registry.tunings import trial_flows
from tasks import outputs
from tasks.logs import publish as publish_log
from tasks.run_directory import RunDirectory
from tasks.training import (
    checkpoints,
    metrics_recovery,
    model_publishing,
    remote_nodes,
    script_execution,
    training_request,
    training_steps,
    training_templates,
)
from tasks.training.metrics_collector import following
from tasks.training.remote_nodes import HeadNode
from tasks.training.script_execution import ScriptContext
from tasks.training.training_request import Training
from tasks.training.training_steps import PreparedScript

_METRICS_SECONDS = 30.0
_UNREGISTERED = "none registered"
_NO_MODEL = "none (the script wrote no file to EM_MODEL_DIR)"


def check(request: Training, _: str) -> None:
    """Refuse a training that cannot work, before any resource is allocated.

    Raises:
        ModelyardError: With a code of its own for each fault.
    """
    training_request.check(request, homes.current(), settings.load())
    outputs.check_unused(request.output_uri, publish_targets.is_known, overwrite=request.overwrite)


@step("prepare")
def _prepare(context: RunContext, request: Training, run_dir: RunDirectory) -> PreparedScript:
    """Fetch the algorithm and the data and install the requirements."""
    if request.resources.image and not site.in_pod():
        context.logger.warning(
            "The image %s is ignored: this pool runs scripts as processes, not in containers.",
            request.resources.image,
        )
    try:
        prepared = training_steps.prepare(
            request,
            run_dir,
            context.home,
            context.settings,
            retried=context.attempt > 1,
            log=context.logger.info,
            deadline=context.deadline,
            stop_requested=context.stop.is_set,
        )
    except InstallCancelledError as error:
        raise StopRequestedError from error
    if prepared.resumed:
        context.logger.info("Resuming from the checkpoints in %s", prepared.checkpoints)
    elif context.attempt > 1 and not context.settings.home_lasts:
        context.logger.info("%s", _starts_over(request))
    return prepared


def _starts_over(request: Training) -> str:
    """Why a retry on another machine has nothing to resume from."""
    where = request.checkpoint_uri
    return "The script starts over: " + (
        f"there are no checkpoints in {where}."
        if where
        else "the last attempt's checkpoints were lost with its machine. With a checkpoint_uri it "
        "would resume."
    )


@step("run script")
def _run_script(
    context: RunContext,
    request: Training,
    prepared: PreparedScript,
    run_dir: RunDirectory,
    tracked: Tracked,
    node: HeadNode | None,
) -> None:
    """Run the script, and record its output, metrics and resource usage.

    Raises:
        RunFailedError: If the script fails, or its time limit passes.
        StopRequestedError: If it is stopped.
    """
    script_context = ScriptContext(
        home=context.home,
        settings=context.settings,
        flow_run_id=context.flow_run_id,
        mlflow_run_id=tracked.run_id,
        experiment_id=tracked.experiment_id,
        holder=f"run {context.name} ({context.flow_run_id})",
        logger=context.logger,
        deadline=context.deadline,
        stop_requested=context.stop.is_set,
        node=node,
    )
    if node:
        node.announce(mlflow_run_id=tracked.run_id)
    recording = functools.partial(_recording, context, request, run_dir, tracked)
    slot = run_nodes.own_slot(context.flow_run_id, context.attempt)
    with run_monitor.monitored(tracked, slot, context.logger.warning) as monitor:
        observed = replace(
            script_context, observer=monitor.nodes(1 if node else request.resources.nodes)
        )
        ended = script_execution.run(request, prepared, run_dir, observed, recording)
    _check_end(context, request, run_dir, ended)


def _check_end(
    context: RunContext, request: Training, run_dir: RunDirectory, ended: ExitStatus
) -> None:
    """Raise unless a script has succeeded.

    Raises:
        RunFailedError: If it failed, or its time limit passed.
        StopRequestedError: If it was stopped.
    """
    if ended.cause is ExitCause.STOPPED:
        raise StopRequestedError
    if ended.cause is ExitCause.TIMED_OUT:
        raise training_steps.timeout_error(request, "ran")
    log = training_steps.log_location(run_dir, lasts=context.settings.home_lasts)
    failure = training_steps.script_error(ended, log)
    if failure:
        raise failure


@contextlib.contextmanager
def _recording(
    context: RunContext,
    request: Training,
    run_dir: RunDirectory,
    tracked: Tracked,
    names: Sequence[str],
) -> Iterator[Callable[[int, str], None]]:
    """Record output and metrics; yields the callback for a line."""
    logger = context.logger
    writer = MlflowWriter(logger.warning)
    writer.track(tracked)
    metrics_recovery.begin(run_dir, request.metrics, names, tracked.steps)
    forward = RateLimitedLog(logger.info, context.settings.log_lines_per_second)
    try:
        with following(
            request.metrics,
            run_dir.tensorboard,
            names=names,
            show=forward if request.logs.stream else lambda _: None,
            record=lambda one: writer.log_metric(
                tracked.run_id, one.name, one.value, one.step, one.at
            ),
            warn=logger.warning,
        ) as on_line:
            yield on_line
    finally:
        forward.close()
        if not writer.close(_METRICS_SECONDS):
            metrics_recovery.end(run_dir)


@step("publish")
def _publish(
    context: RunContext, request: Training, run_dir: RunDirectory, run_id: str, name: str
) -> None:
    """Copy the model to the output and register it, if there is one.

    A trial's model is not registered: only the best of its tuning can become a registered model.
    """
    source = model_publishing.publish(request, run_dir, run_id, context.logger.info)
    if not source:
        context.logger.warning("The script wrote no file to EM_MODEL_DIR: the run has no model.")
        return
    if _registers(context, request):
        models.register(
            name, context.created, models.SourceRun(run_id, context.flow_run_id, source)
        )
    elif not _is_trial(context):
        context.logger.info(
            "The model is not registered, as model.register says. modelyard model create --run %s "
            "registers it.",
            context.flow_run_id,
        )


def _registers(context: RunContext, request: Training) -> bool:
    return request.model.register != "never" and not _is_trial(context)


def _is_trial(context: RunContext) -> bool:
    return trial_flows.TUNING_LABEL in context.labels


@contextlib.contextmanager
def _head_node(context: RunContext, request: Training) -> Iterator[HeadNode | None]:
    """Open the first node of a run that is spread over machines; yields None for another run.

    Raises:
        Abort: If another process is its first node.
    """
    if request.resources.nodes == 1 or not site.has_several_pods():
        yield None
        return
    try:
        node = remote_nodes.open_head_node(
            context.flow_run_id,
            request.resources.nodes,
            context.settings.join_seconds,
            retried=context.attempt > 1,
        )
    except remote_nodes.NodeTakenError as error:
        raise Abort(f"Another process executes the run {context.flow_run_id}.") from error
    try:
        yield node
    finally:
        node.close()


def _clean_up(context: RunContext, request: Training, run_dir: RunDirectory, run_id: str) -> None:
    """Remove the attempt's inputs, and keep its logs."""
    run_dir.clear()
    if run_dir.log.exists():
        tracking.log_file(run_id, run_dir.log, "logs")
    if not context.settings.home_lasts:
        tensorboard_logs.keep(run_id, run_dir.tensorboard, context.logger.warning)
    publish_log(run_dir.log, request.logs, run_dir.root.name, context.logger.warning)


@contextlib.contextmanager
def _model_location_hinted(context: RunContext, run_dir: RunDirectory) -> Iterator[None]:
    """Add the location of an unpublished model to the hint of an error."""
    try:
        with run_context.disk_full_reported(run_dir.root):
            yield
    except ModelyardError as error:
        training_steps.with_model_hint(error, run_dir, lasts=context.settings.home_lasts)
        raise


def _conclude(
    context: RunContext, request: Training, run_dir: RunDirectory, run_id: str
) -> RunResult:
    """Publish the model of a script that has succeeded; the run's result.

    Raises:
        ModelyardError: If the model cannot be published.
    """
    context.conclude(failed=False)
    if not run_dir.is_published:
        name = request.model.name or request.name or context.name
        _publish(context, request, run_dir, run_id, name)
        run_dir.mark_published()
    result = tracking.result(run_id)
    if result.metrics:
        create_table_artifact(
            key="metrics",
            table=[{"metric": name, "last value": "not a number" if value is None else value}
                   for name, value in result.metrics.items()],
        )  # fmt: skip
    without = _NO_MODEL if _registers(context, request) else _UNREGISTERED
    return RunResult(result.to_json(), f"Model: {result.model_uri or without}")


@lifecycle_flow(
    FlowSpec(
        kind=flow_kinds.TRAIN,
        request=Training,
        check=check,
        check_without_stack=lambda request: training_request.check_local(request.algorithm),
        from_template=training_templates.from_template,
        templated=training_templates.FIELDS,
        pool="gpu",
        result=TrainingResult,
        tags=("modelyard", "training"),
    )
)
def train(context: RunContext, request: Training) -> RunResult:
    """Train a model with a script of your own, or a provided algorithm, and register it.

    The script runs under AI EasyMaker's contract: see docs/training-contract.md.

    Returns:
        ``{"mlflow_run_id", "model_uri", "metrics"}``.
    """
    request = training_request.resolved(request)
    node = context.closing.enter_context(_head_node(context, request))
    run_dir = RunDirectory(context.home.runs / context.flow_run_id)
    finished = context.attempt > 1 and run_dir.finished_marker.exists()
    prepared = None if finished else _prepare(context, request, run_dir)
    tracked = context.open(
        request,
        request.hyperparameters,
        "Metrics, resource usage, parameters and artifacts in MLflow",
        parent=str(context.labels.get(trial_flows.PARENT_LABEL, "")),
        trial=trial_flows.number(context.labels),
    )
    context.closing.callback(_clean_up, context, request, run_dir, tracked.run_id)
    recovered = metrics_recovery.recover(run_dir, tracked.run_id, context.logger.warning)
    tracked = tracked.with_steps(recovered)
    with _model_location_hinted(context, run_dir):
        if prepared:
            _run_script(context, request, prepared, run_dir, tracked, node)
        else:
            context.logger.info("The script succeeded before the retry, and does not run again.")
            if not run_dir.is_published:
                checkpoints.copy(run_dir.checkpoints, training_steps.mirror_uri(request))
        return _conclude(context, request, run_dir, tracked.run_id)
