"""Training: run a script under AI EasyMaker's contract and register what it leaves."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.exceptions import Abort
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Cancelled

from flows import artifacts, lifecycle
from flows.lifecycle import Execution
from flows.steps import StopRequestedError, step
from infra import home as homes
from infra import settings, site, state_details, storage
from infra.errors import DiskFullError, ModelyardError
from infra.script import Ended, Ending, Forwarder
from infra.workloads.installer import InstallCancelledError
from registry import models, published, tensorboard_logs, tracking, trial_flows
from registry.mlflow_writer import MlflowWriter
from registry.tracking import Tracked
from tasks import (
    checkpoints,
    other_nodes,
    outputs,
    provided,
    running,
    training,
    training_request,
    training_templates,
)
from tasks.following import following
from tasks.logs import Logs
from tasks.logs import publish as publish_log
from tasks.other_nodes import Joining
from tasks.parameters import Scalar, Text
from tasks.resources import Resources
from tasks.running import Conditions
from tasks.training import Prepared
from tasks.training_request import Algorithm, Dataset, Minutes, Training
from tasks.workplace import Workplace
from tuning.metrics import MetricPattern

_METRICS_SECONDS = 30.0
_LEFT_OUT = training_templates.default_of(Training)


def preflight(request: Training, flow_run_id: str) -> None:
    """Refuse a training that cannot work, before any resource is taken.

    Raises:
        ModelyardError: With a code of its own for each fault.
    """
    training_request.check(request, homes.current(), settings.load())
    outputs.check_unused(request.output_uri, published.is_known, overwrite=request.overwrite)
    tracking.check_experiment(request.experiment, flow_run_id)
    if request.name:
        tracking.check_name("train", request.name, request.experiment, flow_run_id)


def fill(given: Mapping[str, Any], form: bool) -> dict[str, Any]:
    """Parameters with what a template has for those that are left out.

    Args:
        given: A run's parameters.
        form: Whether they come from a form, where what is left out has its default.
    """
    return training_templates.fill(given, _LEFT_OUT if form else None)


@step("prepare")
def _prepare(request: Training, place: Workplace, execution: Execution) -> Prepared:
    """Fetch the algorithm and the data and install the requirements."""
    if request.resources.image and not site.in_pod():
        get_run_logger().warning(
            "The image %s is not used: this pool runs scripts on its own machine, not in "
            "containers.",
            request.resources.image,
        )
    limit = request.max_minutes
    try:
        prepared = training.prepare(
            request,
            place,
            execution.home,
            execution.settings,
            retried=execution.attempt > 1,
            say=get_run_logger().info,
            deadline=execution.began + limit * 60 if limit else None,
            stop_requested=execution.cancelled.is_set,
        )
    except InstallCancelledError as error:
        raise StopRequestedError from error
    if prepared.resumed:
        get_run_logger().info("Resuming from the checkpoints in %s", prepared.checkpoints)
    elif execution.attempt > 1 and not execution.settings.home_lasts:
        get_run_logger().info("%s", _starts_over(request))
    return prepared


def _starts_over(request: Training) -> str:
    """Why a retry on another machine has nothing to resume from."""
    where = request.checkpoint_uri
    return "The script starts over: " + (
        f"there are no checkpoints in {where}."
        if where
        else "what the last attempt left went with its machine. With a checkpoint_uri it would "
        "resume."
    )


@step("run script")
def _run_script(
    request: Training,
    prepared: Prepared,
    place: Workplace,
    execution: Execution,
    tracked: Tracked,
    others: Joining | None,
) -> Ended:
    """Run the script; its lines, metrics and the machine's load are recorded meanwhile."""
    limit = request.max_minutes
    under = Conditions(
        home=execution.home,
        settings=execution.settings,
        flow_run_id=execution.flow_run_id,
        mlflow_run_id=tracked.run_id,
        experiment_id=tracked.experiment_id,
        holder=f"run {execution.name} ({execution.flow_run_id})",
        logger=get_run_logger(),
        deadline=execution.began + limit * 60 if limit else None,
        stop_requested=execution.cancelled.is_set,
        others=others,
    )
    if others:
        others.tell(mlflow_run_id=tracked.run_id)
    recording = functools.partial(_recording, request, place, execution, tracked)
    return running.run(request, prepared, place, under, recording)


@contextlib.contextmanager
def _recording(
    request: Training,
    place: Workplace,
    execution: Execution,
    tracked: Tracked,
    names: Sequence[str],
) -> Iterator[Callable[[int, str], None]]:
    """Record lines, metrics and the machine's load; gives what takes the script's lines."""
    logger = get_run_logger()
    writer = MlflowWriter(logger.warning)
    writer.track(tracked)
    forward = Forwarder(logger.info, execution.settings.log_lines_per_second)
    try:
        with (
            tracking.system_metrics(tracked),
            following(
                request.metrics,
                place.tensorboard,
                names=names,
                show=forward if request.logs.stream else lambda _: None,
                record=lambda one: writer.log_metric(
                    tracked.run_id, one.name, one.value, one.step, one.at
                ),
                warn=logger.warning,
            ) as on_line,
        ):
            yield on_line
    finally:
        forward.close()
        writer.close(_METRICS_SECONDS)


@step("publish")
def _publish(
    request: Training, place: Workplace, execution: Execution, run_id: str, name: str
) -> None:
    """Copy the model to the output and register it, if there is one.

    That of a trial is kept without being registered: of its tuning only the best becomes a model.
    """
    if not training.has_model(place):
        get_run_logger().warning("The script left nothing in EM_MODEL_DIR: there is no model.")
        return
    training.check_model(place)
    source = tracking.log_files(run_id, place.model, "model")
    if request.output_uri:
        published.record(run_id, outputs.place(request.output_uri))
    training.publish_output(request, place)
    if trial_flows.TUNING_LABEL in execution.labels:
        return
    framework = version = ""
    if request.algorithm.provided:
        algorithm = provided.load(request.algorithm.provided)
        framework, version = algorithm.framework, algorithm.framework_version()
    models.register(
        name,
        run_id,
        source,
        execution.flow_run_id,
        framework=framework,
        framework_version=version,
    )


def _open(request: Training, execution: Execution) -> Tracked:
    """Open the MLflow run and tie both runs to each other."""
    tracked = tracking.open_run(
        tracking.Opening(
            flow_run_id=execution.flow_run_id,
            kind="train",
            name=request.name or execution.name,
            experiment=request.experiment,
            description=request.description,
            user=execution.user,
            parameters=request.hyperparameters,
            parent=str(execution.labels.get(trial_flows.PARENT_LABEL, "")),
            trial=trial_flows.number(execution.labels),
        ),
        retried=execution.attempt > 1,
    )
    text = "Metrics, system load, parameters and artifacts in MLflow"
    artifacts.tie_to_mlflow(execution.flow_run_id, tracked, text)
    return tracked


def _train(execution: Execution, request: Training) -> State[Any]:
    request = training_request.resolved(request)
    with _other_nodes(execution, request) as others:
        return _trained(execution, request, others)


@contextlib.contextmanager
def _other_nodes(execution: Execution, request: Training) -> Iterator[Joining | None]:
    """The other machines of the run, where it is spread over several.

    Raises:
        Abort: If another process is its first node.
    """
    if request.resources.nodes == 1 or not site.nodes_apart():
        yield None
        return
    try:
        others = other_nodes.open_first(
            execution.flow_run_id,
            request.resources.nodes,
            execution.settings.join_seconds,
            retried=execution.attempt > 1,
        )
    except other_nodes.SeatTakenError as error:
        raise Abort(f"Another process executes the run {execution.flow_run_id}.") from error
    try:
        yield others
    finally:
        others.close()


def _trained(execution: Execution, request: Training, others: Joining | None) -> State[Any]:
    place = Workplace(execution.home.runs / execution.flow_run_id)
    finished = execution.attempt > 1 and place.finished.exists()
    lasts = execution.settings.home_lasts
    prepared = None if finished else _prepare(request, place, execution)
    tracked = _open(request, execution)
    run_id = tracked.run_id
    status = "KILLED"
    try:
        if prepared:
            ended = _run_script(request, prepared, place, execution, tracked, others)
        else:
            get_run_logger().info("The script has ended well before; it is not run again.")
            if not place.published:
                checkpoints.copy(place.checkpoints, training.mirror_uri(request))
            ended = Ended(Ending.EXITED, 0, ())
        status, state = _conclude(ended, request, place, execution, run_id)
    except ModelyardError as error:
        detail = state_details.TIMED_OUT if error.code == "Timeout" else ""
        lifecycle.concluding(execution, failed=True)
        error = training.kept(error, place, lasts=lasts)
        status, state = "FAILED", lifecycle.failed(error, detail)
    except OSError as error:
        status = "FAILED"
        if not storage.is_disk_full(error):
            raise
        full = DiskFullError(f"The disk of {place.root} is full.", "Make room, and retry.")
        state = lifecycle.failed(training.kept(full, place, lasts=lasts))
    except Exception:
        status = "FAILED"
        raise
    finally:
        place.clear()
        if place.log.exists():
            tracking.log_file(run_id, place.log, "logs")
        warn = get_run_logger().warning
        if not lasts:
            tensorboard_logs.keep(run_id, place.tensorboard, warn)
        publish_log(place.log, request.logs, place.root.name, warn)
        tracking.close_run(run_id, status)
    return state


def _conclude(
    ended: Ended, request: Training, place: Workplace, execution: Execution, run_id: str
) -> tuple[str, State[Any]]:
    """MLflow's status and Prefect's state for a script that has ended.

    Raises:
        ModelyardError: If it ended badly, or what it left cannot be published.
    """
    if ended.ending is Ending.STOPPED:
        return "KILLED", Cancelled(message="Stopped.")
    if ended.ending is Ending.TIMED_OUT:
        raise training.timed_out(request, "ran")
    log = training.log_for_people(place, lasts=execution.settings.home_lasts)
    failure = training.failure(ended, log)
    if failure:
        raise failure
    lifecycle.concluding(execution, failed=False)
    if not place.published:
        _publish(request, place, execution, run_id, request.name or execution.name)
        place.mark_published()
    result = tracking.result(run_id)
    if result["metrics"]:
        create_table_artifact(
            key="metrics",
            table=[{"metric": name, "last value": "not a number" if value is None else value}
                   for name, value in result["metrics"].items()],
        )  # fmt: skip
    return "FINISHED", lifecycle.completed(result, f"Model: {result['model_uri'] or 'none'}")


def _run_name() -> str:
    return str(flow_run.parameters.get("name") or flow_run.name)


@lifecycle.lifecycle_flow(model=Training, preflight=preflight, run_name=_run_name, fill=fill)
def train(
    name: Text = "",
    description: Text = "",
    experiment: str = "Default",
    template: Text = "",
    algorithm: Algorithm = Algorithm(),  # noqa: B008
    hyperparameters: dict[str, Scalar] = {},  # noqa: B006
    resources: Resources = Resources(),  # noqa: B008
    datasets: list[Dataset] = [],  # noqa: B006
    checkpoint_input_uri: Text = "",
    checkpoint_uri: Text = "",
    output_uri: Text = "",
    overwrite: bool = False,
    metrics: list[MetricPattern] = [],  # noqa: B006
    logs: Logs = Logs(),  # noqa: B008
    max_minutes: Minutes = None,
) -> dict[str, Any]:
    """Train a model with a script of your own, or a provided algorithm, and register it.

    The script is run as AI EasyMaker runs it: see docs/training-contract.md.

    Args:
        name: The run's and the model's name, one in its experiment; given by Prefect if empty.
        description: Free text.
        experiment: The MLflow experiment that the run belongs to; made if missing.
        template: A training template that fills in what is left out here.
        algorithm: What to run.
        hyperparameters: Up to 100 values, which the script gets as --key value.
        resources: The machines, processes and GPUs that it works with.
        datasets: Up to 10 data sets, each found by the script in EM_DATASET_ and its name.
        checkpoint_input_uri: Checkpoints to begin from.
        checkpoint_uri: Where the script's own checkpoints are kept.
        output_uri: Where the model is copied, beside MLflow.
        overwrite: Whether output_uri may hold files that no run has published.
        metrics: Metrics to collect from the script's output. Scalars of TensorBoard logs are
            collected without being named.
        logs: What becomes of the script's output.
        max_minutes: The longest that the training may take; without, as long as it wants.

    Returns:
        ``{"mlflow_run_id", "model_uri", "metrics"}``.
    """
    # Prefect ends the run in a state that is returned; a caller gets the state's data.
    return lifecycle.execute(Training, preflight, _train, fill)  # type: ignore[return-value]
