"""Tuning: try points of a search space, each by a training, and find the best."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Cancelled

from flows import artifacts, lifecycle
from flows.lifecycle import Execution
from flows.tuning_progress import Progress
from infra import home as homes
from infra import settings, state_details, storage
from infra.errors import BadInputError, DiskFullError, ModelyardError, RunFailedError
from registry import published, statuses, tracking, tunings
from registry.tracking import Tracked
from tasks import (
    outputs,
    training_request,
    training_templates,
    tuning_dispatch,
    tuning_request,
    tuning_warm_start,
)
from tasks.logs import Logs
from tasks.parameters import Scalar, Text
from tasks.resources import Resources
from tasks.training_request import Algorithm, Dataset, Minutes
from tasks.trials import inputs, rows
from tasks.trials.base import Launcher, Setting
from tasks.trials.inline import InlineLauncher
from tasks.trials.pool import PoolLauncher
from tasks.tuning import Halt, Plan, Tuner
from tasks.tuning_request import Count, Dispatch, Failures, Seed, Tuning
from tuning import space
from tuning.early_stopping import EarlyStopping
from tuning.endings import Ending, Limits
from tuning.metrics import MetricPattern
from tuning.objectives import Constraint, Objective
from tuning.search import Search, Strategy
from tuning.space import Parameter
from tuning.trials import FAILURES, Trial

_LEFT_OUT = training_templates.default_of(Tuning)
_LIMITS_SECONDS = 2.0
_FAILED_WORD = "FAIL HYPERPARAMETER TUNING"


def preflight(request: Tuning, flow_run_id: str) -> None:
    """Refuse a tuning that cannot work, before any resource is taken.

    Raises:
        ModelyardError: With a code of its own for each fault.
    """
    tuning_dispatch.check(request)
    with tuning_dispatch.where_trials_run(request):
        tuning_request.check(request, homes.current(), settings.load())
        outputs.check_unused(request.output_uri, published.is_known, overwrite=request.overwrite)
    tuning_warm_start.check(request)
    tracking.check_experiment(request.experiment, flow_run_id)
    if request.name:
        tracking.check_name("tune", request.name, request.experiment, flow_run_id)


def fill(given: Mapping[str, Any], form: bool) -> dict[str, Any]:
    """Parameters with what a training template has for those that are left out.

    Args:
        given: A run's parameters.
        form: Whether they come from a form, where what is left out has its default.
    """
    filled = tuning_request.fill(given, _LEFT_OUT if form else None)
    return tuning_warm_start.named(filled)


def _opening(request: Tuning, execution: Execution, search: Search, seed: int) -> tracking.Opening:
    own = {
        "strategy": request.strategy,
        "sampler": search.sampler,
        "seed": seed,
        "max_trials": request.max_trials,
        "parallel_trials": request.parallel_trials,
        "early_stopping": request.early_stopping and request.early_stopping.rule,
    }
    return tracking.Opening(
        flow_run_id=execution.flow_run_id,
        kind="tune",
        name=request.name or execution.name,
        experiment=request.experiment,
        description=request.description,
        user=execution.user,
        parameters={
            **request.hyperparameters,
            # A hyperparameter may be called seed as well.
            **{
                f"tuning.{name}" if name in request.hyperparameters else name: value
                for name, value in own.items()
            },
        },
    )


def _tie(request: Tuning, execution: Execution, tracked: Tracked) -> None:
    """Tie the tuning's MLflow run and its flow run to each other."""
    tunings.mark_objectives(tracked.run_id, [one.metric for one in request.objective])
    text = "Trials, their metrics and plots in MLflow"
    artifacts.tie_to_mlflow(execution.flow_run_id, tracked, text)


class _Limits:
    """The tuning's limits, which can be changed while it runs: they are its run's parameters."""

    def __init__(self, request: Tuning, flow_run_id: str) -> None:
        self._now = request.limits
        self._id = UUID(flow_run_id)

    def __call__(self) -> Limits:
        return self._now

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Notice changes for the while."""
        done = threading.Event()
        logger = get_run_logger()

        def follow() -> None:
            while not done.wait(_LIMITS_SECONDS):
                try:
                    with get_client(sync_client=True) as client:
                        found = tuning_request.limits(client.read_flow_run(self._id).parameters)
                except Exception as error:  # noqa: BLE001 (the edge of the loop; asked again)
                    logger.debug("The limits could not be read: %s", error)
                    continue
                if found != self._now:
                    logger.info("The limits are now %s.", tuning_request.told(found))
                    self._now = found

        thread = threading.Thread(target=follow, daemon=True, name="limits")
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(_LIMITS_SECONDS)


def _search(request: Tuning, seed: int, begun: float) -> Search:
    """The search, with what it learns from an earlier tuning: its trials as they were then.

    Raises:
        BadInputError: With the code ``WarmStartComplete`` if that leaves nothing to try.
    """
    search = Search(
        request.parameters,
        [one.direction for one in request.objective],
        strategy=request.strategy,
        seed=seed,
        constraints=len(request.constraints),
    )
    get_run_logger().info("It searches by %s (seed %d).", search.sampler, seed)
    if request.warm_start:
        taken = search.learn(tuning_warm_start.trials_of(request.warm_start, begun))
        get_run_logger().info("It knows of %d trials of %s.", taken, request.warm_start)
        if search.size == 0:
            raise BadInputError(
                f"warm_start: {request.warm_start!r} has tried every point of this space.",
                "Widen the space, or leave warm_start out.",
                code="WarmStartComplete",
            )
    return search


@contextmanager
def _launcher(
    request: Tuning, execution: Execution, tracked: Tracked, tuner: Tuner
) -> Iterator[Launcher]:
    """What runs the trials."""
    pooled = tuning_dispatch.resolved(request) == "pool"
    root = execution.home.runs / execution.flow_run_id / "inputs"
    training = request.training({})
    with ExitStack() as left:
        left.callback(inputs.clear, root)
        if not pooled:
            training = training_request.resolved(training)
            training = inputs.shared(training, root, get_run_logger().info)
            left.enter_context(tracking.system_metrics(tracked))
        setting = Setting(
            training=training,
            tuning=execution.flow_run_id,
            name=request.name or execution.name,
            parent=tracked,
            metrics={one.metric for one in (*request.objective, *request.constraints)},
            home=execution.home,
            settings=execution.settings,
            logger=get_run_logger(),
            parallel=request.parallel_trials,
        )
        kind = PoolLauncher if pooled else InlineLauncher
        launcher = kind(setting, tuner.emit)
        left.callback(launcher.close)
        yield launcher


def _tune(execution: Execution, request: Tuning) -> State[Any]:
    seed = request.seed
    if seed is None:
        seed = UUID(execution.flow_run_id).int % 2**32
    before = rows.of(execution.flow_run_id)
    search = _search(request, seed, before[0].created if before else time.time())
    opening = _opening(request, execution, search, seed)
    tracked = tracking.open_run(opening, retried=execution.attempt > 1)
    if request.output_uri:  # its trials publish to folders in it
        published.record(tracked.run_id, outputs.place(request.output_uri))
    status = "KILLED"
    try:
        _tie(request, execution, tracked)
        status, state = _conduct(request, execution, tracked, search, before)
    except ModelyardError as error:
        status, state = "FAILED", lifecycle.failed(error)
    except OSError as error:
        status = "FAILED"
        if not storage.is_disk_full(error):
            raise
        full = DiskFullError(
            f"The disk of {execution.home.root} is full.", "Make room, and retry."
        )
        state = lifecycle.failed(full)
    except Exception:
        status = "FAILED"
        raise
    finally:
        tracking.close_run(tracked.run_id, status)
    return state


def _conduct(
    request: Tuning,
    execution: Execution,
    tracked: Tracked,
    search: Search,
    before: Sequence[Trial],
) -> tuple[str, State[Any]]:
    """Tune, from the trials of earlier attempts on; MLflow's status and Prefect's state."""
    limits = _Limits(request, execution.flow_run_id)
    rule = request.early_stopping
    plan = Plan(
        request.objective,
        request.constraints,
        limits,
        rule.make(request.objective[0].direction) if rule else None,
        stop_running=request.stop_running,
    )
    progress = Progress(request, execution, tracked, limits)

    try:
        tuner = Tuner(
            plan,
            search,
            save=partial(rows.save, execution.flow_run_id),
            on_change=progress.changed,
        )
        progress.restored(before)
        tuner.restore(before)
        with (
            progress.shown(),
            limits.followed(),
            _launcher(request, execution, tracked, tuner) as launcher,
        ):
            limit = request.max_minutes
            ended = tuner.run(
                launcher,
                deadline=execution.began + limit * 60 if limit else None,
                stop_requested=execution.cancelled.is_set,
            )
            if ended is not Halt.STOPPED:
                failed = ended in {Halt.TIMED_OUT, Ending.FAILED}
                lifecycle.concluding(execution, failed=failed)
            progress.ended(ended)
    finally:
        progress.close()
    return _conclude(ended, request, execution, tracked, tuner)


def _conclude(
    ended: Ending | Halt, request: Tuning, execution: Execution, tracked: Tracked, tuner: Tuner
) -> tuple[str, State[Any]]:
    """MLflow's status and Prefect's state for a tuning that has ended."""
    if ended is Halt.STOPPED:
        result = tunings.result(execution.flow_run_id, tracked.run_id, over=True)
        return "KILLED", Cancelled(message="Stopped.", data=result)
    if ended is Halt.TIMED_OUT:
        late = RunFailedError(
            f"The tuning ran for its {request.max_minutes:g} minutes.",
            "Give it a larger max_minutes; a retry goes on with the trials that there are.",
            state=statuses.TIMED_OUT,
            code="Timeout",
        )
        return "FAILED", lifecycle.failed(late, state_details.TIMED_OUT)
    if ended is Ending.FAILED:
        return "FAILED", lifecycle.failed(_too_many_failures(tuner))
    result = tunings.result(execution.flow_run_id, tracked.run_id)
    best = result["best"]
    told = f"trial {best['number']} with {best['value']:g}" if best else "none"
    return "FINISHED", lifecycle.completed(result, f"Best: {told}", ended.value)


def _too_many_failures(tuner: Tuner) -> RunFailedError:
    failed = [trial for trial in tuner.trials.values() if trial.state in FAILURES]
    last = f" The last: trial {failed[-1].number}: {failed[-1].reason}" if failed else ""
    return RunFailedError(
        f"{len(failed)} trials failed.{last}",
        "Mend the script, or allow more before a retry: modelyard runs update RUN "
        "-p max_failed_trials=N.",
        state=_FAILED_WORD,
        code="TooManyFailures",
    )


def _check_changed(request: Tuning) -> None:
    """Refuse limits that cannot work, of a run whose other parameters need not work either."""
    space.check(request.parameters, grid=request.strategy == "grid")
    tuning_request.check_limits(request)
    tuning_dispatch.check(request)


def _run_name() -> str:
    return str(flow_run.parameters.get("name") or flow_run.name)


@lifecycle.lifecycle_flow(
    model=Tuning,
    preflight=preflight,
    run_name=_run_name,
    fill=fill,
    changeable=(tuning_request.CHANGEABLE, _check_changed),
)
def tune(
    name: Text = "",
    description: Text = "",
    experiment: str = "Default",
    template: Text = "",
    strategy: Strategy = "bayesian",
    seed: Seed = None,
    algorithm: Algorithm = Algorithm(),  # noqa: B008
    parameters: list[Parameter] = [],  # noqa: B006
    hyperparameters: dict[str, Scalar] = {},  # noqa: B006
    metrics: list[MetricPattern] = [],  # noqa: B006
    objective: Objective | list[Objective] = [],  # noqa: B006
    constraints: list[Constraint] = [],  # noqa: B006
    max_trials: Count | None = None,
    max_failed_trials: Failures | None = None,
    parallel_trials: Count = 1,
    early_stopping: EarlyStopping | None = None,
    stop_running: bool = True,
    dispatch: Dispatch = "auto",
    warm_start: Text = "",
    resources: Resources = Resources(),  # noqa: B008
    datasets: list[Dataset] = [],  # noqa: B006
    checkpoint_input_uri: Text = "",
    checkpoint_uri: Text = "",
    output_uri: Text = "",
    overwrite: bool = False,
    logs: Logs = Logs(),  # noqa: B008
    max_minutes: Minutes = None,
    trial_max_minutes: Minutes = None,
) -> dict[str, Any]:
    """Find good hyperparameters: try points of a space, each by a training, and keep the best.

    See docs/tuning.md.

    Args:
        name: The tuning's name, one in its experiment; given by Prefect if empty.
        description: Free text.
        experiment: The MLflow experiment that it belongs to; made if missing.
        template: A training template that fills in what is left out here.
        strategy: How the space is searched. bayesian chooses a sampler by itself; gp, tpe and
            sobol are samplers of their own.
        seed: Fixes everything random; without, the tuning has a seed of its own.
        algorithm: What each trial runs.
        parameters: Required. The hyperparameters that are tuned, and their ranges or values.
        hyperparameters: Further ones, the same for every trial.
        metrics: Metrics to collect from the script's output; the objective is one of them. A
            provided algorithm has its own.
        objective: Required. What is sought: one metric and its direction (Objective), or several
            of them (list).
        constraints: Bounds that other metrics have to keep.
        max_trials: How many trials there are at most. A grid ends by itself; an endless space
            needs this or max_minutes.
        max_failed_trials: So many failed trials fail the tuning; without, they never do.
        parallel_trials: How many trials go on at once.
        early_stopping: Whether and by which rule trials that do badly are stopped before their
            end; without, every trial goes on to its end.
        stop_running: Stop the trials that still run when the tuning's end is decided.
        dispatch: inline runs trials beside the tuning, pool each as a run of its own; auto
            chooses by the pool.
        warm_start: An earlier tuning, by name or id, whose trials the search learns from.
        resources: The machines, processes and GPUs of each trial.
        datasets: Up to 10 data sets, each found by the script in EM_DATASET_ and its name.
        checkpoint_input_uri: Checkpoints that every trial begins from.
        checkpoint_uri: Where the scripts' own checkpoints are kept, in a folder for each trial.
        output_uri: Where the models are copied, in a folder for each trial.
        overwrite: Whether output_uri may hold files that no run has published.
        logs: What becomes of the scripts' output.
        max_minutes: The longest that the tuning may take; without, as long as it wants.
        trial_max_minutes: The longest that one trial may take; one that takes longer has failed.

    Returns:
        ``{"mlflow_run_id", "best", "trials"}``.
    """
    # Prefect ends the run in a state that is returned; a caller gets the state's data.
    return lifecycle.execute(Tuning, preflight, _tune, fill)  # type: ignore[return-value]
