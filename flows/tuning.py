"""Tuning: try points of a search space, each by a training, and find the best."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from uuid import UUID

from flows.flow_results import TuningResult
from flows.lifecycle import FlowSpec, lifecycle_flow
from flows.run_context import RunContext, RunResult
from flows.steps import StopRequestedError
from flows.tuning_limits import LiveLimits
from flows.tuning_progress import TuningProgress
from infra import home as homes
from infra import settings
from infra.errors import BadInputError, RunFailedError
from infra.workloads.process_group import ProcessObserver
from infra.workloads.usage_monitor import Report
from registry import flow_kinds, tracking
from registry.models import model_creation
from registry.runs import publish_targets, run_monitor, run_nodes, statuses
from registry.tracking import Tracked
from registry.tunings import tunings
from registry.tunings.tuning_views import TuningResultView
from tasks import outputs
from tasks.training import training_request, training_templates
from tasks.trials import inputs, rows
from tasks.trials.base import Launcher, TrialContext, unobserved
from tasks.trials.inline import InlineLauncher
from tasks.trials.pool import PoolLauncher
from tasks.tuning import tuning_dispatch, tuning_request, tuning_warm_start
from tasks.tuning.tuning_loop import Interruption, Tuner, TuningPlan
from tasks.tuning.tuning_request import Tuning
from tuning import space
from tuning.completion import TuningOutcome
from tuning.search import Search
from tuning.trials import FAILURES, Trial, TrialState

_MOST_NAMED = 5  # trials of a front, in the run's message


def check(request: Tuning, _: str) -> None:
    """Refuse a tuning that cannot work, before any resource is allocated.

    Raises:
        ModelyardError: With a code of its own for each fault.
    """
    tuning_dispatch.check(request)
    with tuning_dispatch.where_trials_run(request):
        tuning_request.check(request, homes.current(), settings.load())
        is_known = publish_targets.is_known
        outputs.check_unused(request.output_uri, is_known, overwrite=request.overwrite)
    tuning_warm_start.check(request)


def _open(context: RunContext, request: Tuning, search: Search, seed: int) -> Tracked:
    """Open the tuning's MLflow run, with its objectives and its publish target."""
    own = {
        "strategy": request.strategy,
        "sampler": search.sampler,
        "seed": seed,
        "max_trials": request.max_trials,
        "parallel_trials": request.parallel_trials,
        "early_stopping": request.early_stopping and request.early_stopping.rule,
    }
    fixed = request.hyperparameters
    tracked = context.open(
        request,
        # A hyperparameter may have the same name, such as seed.
        {**fixed, **{f"tuning.{key}" if key in fixed else key: own[key] for key in own}},
        "Trials, their metrics and plots in MLflow",
    )
    tunings.mark_objectives(tracked.run_id, [one.metric for one in request.objective])
    if request.output_uri:
        publish_targets.record(tracked.run_id, outputs.canonical(request.output_uri))
    return tracked


def _search(context: RunContext, request: Tuning, seed: int, begun: float) -> Search:
    """Make the search, and let it learn from the trials of the ``warm_start`` tuning.

    Args:
        context: The tuning's run.
        request: The tuning.
        seed: Its seed.
        begun: Start of the tuning, in seconds since 1970: trials that ended later are ignored.

    Raises:
        BadInputError: With the code ``WarmStartComplete`` if no point of the space is left.
    """
    search = Search(
        request.parameters,
        [one.direction for one in request.objective],
        strategy=request.strategy,
        seed=seed,
        constraints=len(request.constraints),
    )
    context.logger.info("The sampler is %s (seed %d).", search.sampler, seed)
    if request.warm_start:
        taken = search.learn(tuning_warm_start.trials_of(request.warm_start, begun))
        context.logger.info("Learned from %d trials of %s.", taken, request.warm_start)
        if search.size == 0:
            raise BadInputError(
                f"warm_start: {request.warm_start!r} has tried every point of this space.",
                "Widen the space, or leave warm_start out.",
                code="WarmStartComplete",
            )
    return search


@contextmanager
def _launcher(
    context: RunContext, request: Tuning, tracked: Tracked, tuner: Tuner
) -> Iterator[Launcher]:
    """The launcher of the trials."""
    pooled = tuning_dispatch.resolved(request) == "pool"
    root = context.home.runs / context.flow_run_id / "inputs"
    training = request.training({})
    observe: Callable[[Report], ProcessObserver] = unobserved
    with ExitStack() as left:
        left.callback(inputs.clear, root)
        if not pooled:
            training = training_request.resolved(training)
            training = inputs.shared(training, root, context.logger.info)
            slot = run_nodes.own_slot(context.flow_run_id, context.attempt)
            monitored = run_monitor.monitored(tracked, slot, context.logger.warning)
            observe = left.enter_context(monitored).reported
        trial_context = TrialContext(
            training=training,
            tuning=context.flow_run_id,
            name=request.name or context.name,
            parent=tracked,
            metrics={one.metric for one in (*request.objective, *request.constraints)},
            home=context.home,
            settings=context.settings,
            logger=context.logger,
            parallel=request.parallel_trials,
            observe=observe,
        )
        kind = PoolLauncher if pooled else InlineLauncher
        launcher = kind(trial_context, tuner.emit)
        left.callback(launcher.close)
        yield launcher


def _conduct(
    context: RunContext,
    request: Tuning,
    tracked: Tracked,
    search: Search,
    before: Sequence[Trial],
) -> RunResult:
    """Tune, with the trials of earlier attempts known; the tuning's result.

    Raises:
        RunFailedError: If it exceeded its time limit, or too many trials failed.
        StopRequestedError: If it was stopped.
    """
    limits = LiveLimits(request, context.flow_run_id)
    rule = request.early_stopping
    plan = TuningPlan(
        request.objective,
        request.constraints,
        limits,
        rule.make(request.objective[0].direction) if rule else None,
        stop_running=request.stop_running,
    )
    progress = TuningProgress(context, request, tracked, limits)

    try:
        tuner = Tuner(
            plan,
            search,
            save=partial(rows.save, context.flow_run_id),
            on_change=progress.changed,
        )
        progress.restored(before)
        tuner.restore(before)
        with (
            progress.shown(),
            limits.followed(),
            _launcher(context, request, tracked, tuner) as launcher,
        ):
            ended = tuner.run(
                launcher, deadline=context.deadline, stop_requested=context.stop.is_set
            )
            if ended is not Interruption.STOPPED:
                context.conclude(failed=ended in {Interruption.TIMED_OUT, TuningOutcome.FAILED})
            progress.ended(ended)
    finally:
        progress.close()
    return _conclude(context, request, tracked, tuner, ended)


def _conclude(
    context: RunContext,
    request: Tuning,
    tracked: Tracked,
    tuner: Tuner,
    ended: TuningOutcome | Interruption,
) -> RunResult:
    """The result of a tuning that has ended.

    Raises:
        RunFailedError: If it exceeded its time limit, or too many trials failed.
        StopRequestedError: If it was stopped.
    """
    if ended is Interruption.STOPPED:
        result = tunings.result(context.flow_run_id, tracked.run_id, over=True)
        raise StopRequestedError(result.to_json())
    if ended is Interruption.TIMED_OUT:
        raise RunFailedError(
            f"The tuning ran for its {request.max_minutes:g} minutes.",
            "Increase max_minutes, and retry, which resumes with the trials that there are: "
            "modelyard runs update RUN -p max_minutes=N, then modelyard runs retry RUN.",
            state=statuses.TIMED_OUT,
            code="Timeout",
        )
    if ended is TuningOutcome.FAILED:
        raise _too_many_failures(context, tuner)
    result = tunings.result(context.flow_run_id, tracked.run_id)
    named = _named_best(result) or f"none{_why_none(request, tuner)}"
    if request.registers_best:
        made = _register_best(context, request, result)
        result = result.model_copy(update={"model_uri": made})
        named += f". Model: {made or 'none'}"
    return RunResult(result.to_json(), f"Best: {named}", ended.value)


def _named_best(result: TuningResultView) -> str:
    """The best trial with its value, with several objectives the front's trials; "" for none."""
    if result.best:
        return f"trial {result.best.number} with {result.best.value:g}"
    numbers = [str(trial.number) for trial in result.front or ()]
    if not numbers:
        return ""
    more = f" and {len(numbers) - _MOST_NAMED} more" if len(numbers) > _MOST_NAMED else ""
    return f"trial{'s' * (len(numbers) > 1)} {', '.join(numbers[:_MOST_NAMED])}{more}"


def _why_none(request: Tuning, tuner: Tuner) -> str:
    """Tell which metric the trials lack, and what they reported instead; "" if they have all."""
    trials = list(tuner.trials.values())
    lacking = [one for one in trials if one.state is TrialState.METRICS_UNAVAILABLE]
    if not lacking or any(one.state is TrialState.SUCCEEDED for one in trials):
        return ""
    last = lacking[-1]
    if any(one.reports for one in trials):
        why = f"no trial reported all that it is judged by. Trial {last.number}: {last.reason}"
    else:
        why = f"no trial reported {request.objective[0].metric}."
    metrics = tracking.result(last.mlflow_run_id).metrics if last.mlflow_run_id else {}
    seen = ", ".join(list(metrics)[:_MOST_NAMED])
    told = f"trial {last.number} reported {seen}" if seen else "the trials' logs show what it has"
    return f": {why} A trial's output must have the metric: {told}"


def _register_best(context: RunContext, request: Tuning, result: TuningResultView) -> str | None:
    """Register the best trial's model; the version's URI, or None without a model."""
    made = model_creation.register_best(
        request.model.name, context.created, context.flow_run_id, result
    )
    if made is None:
        context.logger.warning(
            "No version of %s is registered: %s.",
            request.model.name,
            "the best trial has left no model" if result.best else "no trial is the best",
        )
    return made


def _too_many_failures(context: RunContext, tuner: Tuner) -> RunFailedError:
    failed = [trial for trial in tuner.trials.values() if trial.state in FAILURES]
    last = f" The last: trial {failed[-1].number}: {failed[-1].reason}" if failed else ""
    return RunFailedError(
        f"{len(failed)} trial{'s' * (len(failed) != 1)} failed.{last}",
        "Fix the script, or allow more before a retry: modelyard runs update RUN "
        "-p max_failed_trials=N.",
        state=context.kind.failure,
        code="TooManyFailures",
    )


def _check_changed(request: Tuning) -> None:
    """Refuse limits that cannot work, of a run whose other parameters need not work either."""
    space.check(request.parameters, grid=request.strategy == "grid")
    tuning_request.check_limits(request)
    tuning_dispatch.check(request)


@lifecycle_flow(
    FlowSpec(
        kind=flow_kinds.TUNE,
        request=Tuning,
        check=check,
        check_without_stack=lambda request: training_request.check_local(request.algorithm),
        from_template=tuning_request.from_template,
        templated=training_templates.FIELDS,
        pin=tuning_warm_start.pin,
        changeable=tuning_request.CHANGEABLE,
        check_changed=_check_changed,
        pool="cpu",
        result=TuningResult,
        tags=("modelyard", "tuning"),
    )
)
def tune(context: RunContext, request: Tuning) -> RunResult:
    """Find good hyperparameters: try points of a space, each by a training, and keep the best.

    See docs/tuning.md.

    Returns:
        ``{"mlflow_run_id", "best", "trials"}``.
    """
    seed = request.seed
    if seed is None:
        seed = UUID(context.flow_run_id).int % 2**32
    before = rows.of(context.flow_run_id)
    begun = before[0].created if before else time.time()
    search = _search(context, request, seed, begun)
    tracked = _open(context, request, search, seed)
    return _conduct(context, request, tracked, search, before)
