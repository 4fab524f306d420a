"""Training: run a script under AI EasyMaker's contract and register what it leaves."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed

from flows import lifecycle
from flows.lifecycle import Execution
from infra import home as homes
from infra import settings, storage
from infra.errors import DiskFullError, ModelyardError, RunFailedError
from registry import models, statuses, tracking
from registry.tracking import Tracked
from tasks import script, training, training_request
from tasks.script import Ended, Ending, Forwarder
from tasks.training import Prepared, Workplace
from tasks.training_request import Algorithm, Dataset, Scalar, Text, Training
from tuning.metrics import Collector, MetricPattern

_METRICS_SECONDS = 30.0


def preflight(request: Training, flow_run_id: str) -> None:
    """Refuse a training that cannot work, before any resource is taken.

    Raises:
        ModelyardError: With a code of its own for each fault.
    """
    training_request.check(request, homes.current(), settings.load())
    if request.name:
        tracking.check_name("train", request.name, request.experiment, flow_run_id)


@task(name="prepare", cache_policy=NO_CACHE, persist_result=False)
def _prepare(request: Training, place: Workplace, execution: Execution) -> Prepared:
    """Fetch the algorithm and the data and install the requirements."""
    return training.prepare(
        request,
        place,
        execution.home,
        execution.settings,
        retried=execution.attempt > 1,
    )


@task(name="run script", cache_policy=NO_CACHE, persist_result=False)
def _run_script(
    request: Training, prepared: Prepared, place: Workplace, execution: Execution, tracked: Tracked
) -> Ended:
    """Run the script; its lines, metrics and the machine's load are recorded meanwhile."""
    stream = tracking.MetricStream(tracked)
    forward = Forwarder(get_run_logger().info, execution.settings.log_lines_per_second)
    collector = Collector(request.metrics, get_run_logger().warning)

    def on_line(line: str) -> None:
        forward(line)
        for name, value in collector.collect(line):
            stream.add(name, value)

    limit = request.max_minutes
    try:
        with tracking.system_metrics(tracked):
            ended = script.run(
                prepared.command,
                env=training.script_environment(
                    prepared,
                    home=execution.home,
                    flow_run_id=execution.flow_run_id,
                    mlflow_run_id=tracked.run_id,
                ),
                cwd=place.source,
                log=place.log,
                on_line=on_line,
                deadline=execution.began + limit * 60 if limit else None,
                stop_requested=execution.cancelled.is_set,
                grace=execution.settings.stop_grace_seconds,
            )
    finally:
        forward.close()
        stream.close(_METRICS_SECONDS)
    return ended


@task(name="publish", cache_policy=NO_CACHE, persist_result=False)
def _publish(
    request: Training, place: Workplace, execution: Execution, run_id: str, name: str
) -> str | None:
    """Copy the model to the output and register it; the model's URI, or None if there is none."""
    if not training.has_model(place):
        get_run_logger().warning("The script left nothing in EM_MODEL_DIR: there is no model.")
        return None
    training.check_model(place)
    source = tracking.log_files(run_id, place.model, "model")
    training.publish_output(request, place)
    return models.register(name, run_id, source, execution.flow_run_id)


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
        ),
        retried=execution.attempt > 1,
    )
    with get_client(sync_client=True) as client:
        client.update_flow_run_labels(
            execution.flow_run_id,  # type: ignore[arg-type]
            {tracking.MLFLOW_RUN_LABEL: tracked.run_id},
        )
    create_link_artifact(
        key="mlflow-run",
        link=tracked.url,
        link_text="Metrics, system load, parameters and artifacts in MLflow",
    )
    return tracked


def _train(execution: Execution, request: Training) -> State[Any]:
    place = Workplace(execution.home.runs / execution.flow_run_id)
    prepared = _prepare(request, place, execution)
    if prepared.resumed_from:
        get_run_logger().info("Resuming from the checkpoints in %s", prepared.resumed_from)
    tracked = _open(request, execution)
    run_id = tracked.run_id
    status = "KILLED"
    try:
        ended = _run_script(request, prepared, place, execution, tracked)
        status, state = _conclude(ended, request, place, execution, run_id)
    except ModelyardError as error:
        status, state = "FAILED", lifecycle.failed("FailTrain", error)
    except OSError as error:
        status = "FAILED"
        if not storage.is_disk_full(error):
            raise
        full = DiskFullError(f"The disk of {place.root} is full.", "Make room, and retry.")
        state = lifecycle.failed("FailTrain", full)
    except Exception:
        status = "FAILED"
        raise
    finally:
        place.clear()
        if place.log.exists():
            tracking.log_file(run_id, place.log, "logs")
        tracking.close_run(run_id, status)
    return state


def _conclude(
    ended: Ended, request: Training, place: Workplace, execution: Execution, run_id: str
) -> tuple[str, State[Any]]:
    """MLflow's status and Prefect's state for a script that has ended."""
    if ended.ending is Ending.STOPPED:
        return "KILLED", Cancelled(message="Stopped.")
    if ended.ending is Ending.TIMED_OUT:
        error = RunFailedError(
            f"The training was stopped after its {request.max_minutes:g} minutes.",
            "Give it a larger max_minutes; a retry resumes from its newest checkpoint.",
            state=statuses.TIMED_OUT,
            code="Timeout",
        )
        return "FAILED", lifecycle.failed(statuses.TIMED_OUT_NAME, error)
    failure = training.failure(ended, str(place.log))
    if failure:
        return "FAILED", lifecycle.failed("FailTrain", failure)
    model_uri = _publish(request, place, execution, run_id, request.name or execution.name)
    result = tracking.result(run_id)
    if result["metrics"]:
        create_table_artifact(
            key="metrics",
            table=[{"metric": name, "last value": "not a number" if value is None else value}
                   for name, value in result["metrics"].items()],
        )  # fmt: skip
    return "FINISHED", Completed(message=f"Model: {model_uri or 'none'}", data=result)


def _run_name() -> str:
    return str(flow_run.parameters.get("name") or flow_run.name)


@lifecycle.lifecycle_flow(model=Training, preflight=preflight, run_name=_run_name)
def train(
    name: Text = "",
    description: Text = "",
    experiment: str = "Default",
    algorithm: Algorithm = Algorithm(),  # noqa: B008
    hyperparameters: dict[str, Scalar] = {},  # noqa: B006
    datasets: list[Dataset] = [],  # noqa: B006
    checkpoint_input_uri: Text = "",
    checkpoint_uri: Text = "",
    output_uri: Text = "",
    metrics: list[MetricPattern] = [],  # noqa: B006
    max_minutes: float | None = None,
) -> dict[str, Any]:
    """Train a model with a script of your own and register it.

    The script is run as AI EasyMaker runs it: see docs/training-contract.md.

    Args:
        name: The run's and the model's name, one in its experiment; given by Prefect if empty.
        description: Free text.
        experiment: The MLflow experiment that the run belongs to; made if missing.
        algorithm: What to run.
        hyperparameters: Up to 100 values, which the script gets as --key value.
        datasets: Up to 10 data sets, which the script finds in EM_DATASET_<NAME>.
        checkpoint_input_uri: Checkpoints to begin from.
        checkpoint_uri: Where the script's own checkpoints are kept.
        output_uri: Where the model is copied, beside MLflow.
        metrics: Metrics to collect from the script's output, with their regular expressions.
        max_minutes: The longest that the training may take; without, as long as it wants.

    Returns:
        ``{"mlflow_run_id", "model_uri", "metrics"}``.
    """
    # Prefect ends the run in a state that is returned; a caller gets the state's data.
    return lifecycle.execute(Training, preflight, _train)  # type: ignore[return-value]
