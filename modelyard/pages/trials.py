"""The trials of a tuning on its page: the newest ones, and the best."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import OperationalError

from infra import connection
from modelyard.pages import details, listing
from modelyard.pages.servers import TrackedRun
from pipelines.drawing import text
from registry.runs.run_views import RunView
from registry.tunings import trial_results
from registry.tunings.tuning_views import TrialCounts, TrialView, TuningOverviewView, Value

MOST = 50  # trials on a page, and of the best ones
_logger = logging.getLogger(__name__)

# From a tuning's flow run, the tags of its MLflow run, how many trials, and whether it is over.
Overview = Callable[..., TuningOverviewView]


@dataclass(frozen=True)
class ShownTrial:
    """A trial in a list.

    Attributes:
        number: Its number.
        link: Its page: its run of Modelyard in a pool, else its run in MLflow; empty without one.
        state: Its state.
        value: The values of its objectives; empty without any.
        parameters: Its hyperparameters: name and value.
        reason: Why it failed or was stopped.
        is_best: Whether no other trial beats it.
    """

    number: int
    link: str
    state: str
    value: str
    parameters: Sequence[tuple[str, str]]
    reason: str
    is_best: bool


@dataclass(frozen=True)
class TrialsView:
    """The trials of a tuning.

    Attributes:
        counts: How many there are in which state, in words.
        objective: What the value is of: names of metrics.
        best: The best trials.
        rows: The newest trials, newest first.
        unlisted: How many more there are.
        notice: Why none is shown; empty if the catalogue answered.
    """

    counts: str = ""
    objective: str = "Objective"
    best: Sequence[ShownTrial] = ()
    rows: Sequence[ShownTrial] = ()
    unlisted: int = 0
    notice: str = ""


def of(
    run: RunView, tracked: TrackedRun | None, overview: Overview = trial_results.overview
) -> TrialsView:
    """Return the trials of a tuning.

    Args:
        run: The tuning's run.
        tracked: The same as MLflow has it; None before that, or where MLflow does not answer.
        overview: As :func:`registry.tunings.trial_results.overview`.
    """
    try:
        found = overview(run.id, tracked.tags if tracked else {}, MOST, over=run.is_final)
    except OperationalError as error:
        _logger.warning("The trials of %s cannot be listed: %s", run.id, error)
        return TrialsView(notice=f"{listing.SILENT} The trials are not shown.")
    best = {trial.number for trial in found.best}
    experiment_id = tracked.experiment_id if tracked else ""

    def shown(trial: TrialView) -> ShownTrial:
        return ShownTrial(
            number=trial.number,
            link=_link(trial, experiment_id),
            state=trial.state.replace("_", " "),
            value=_value(trial.value),
            parameters=[
                (text.plain(name), _number(one)) for name, one in trial.parameters.items()
            ],
            reason=listing.shortened(trial.reason),
            is_best=trial.number in best,
        )

    counted = found.counts
    total = counted.done + counted.running + counted.failed + counted.stopped
    return TrialsView(
        counts=_counts(counted, total),
        objective=text.plain(", ".join(found.metrics)) or "Objective",
        best=[shown(trial) for trial in found.best],
        rows=[shown(trial) for trial in found.trials],
        unlisted=max(0, total - len(found.trials)),
    )


def _counts(counted: TrialCounts, total: int) -> str:
    named: Mapping[str, int] = {
        "done": counted.done, "running": counted.running, "failed": counted.failed,
        "stopped": counted.stopped,
    }  # fmt: skip
    told = ", ".join(f"{number} {name}" for name, number in named.items() if number)
    return f"{total} trial{'s' if total != 1 else ''}: {told}" if total else "No trial yet"


def _link(trial: TrialView, experiment_id: str) -> str:
    if trial.flow_run_id:
        return f"/runs/{trial.flow_run_id}"
    if trial.mlflow_run_id and experiment_id:
        return connection.mlflow_run_page(experiment_id, trial.mlflow_run_id)
    return ""


def _value(value: Value) -> str:
    values = value if isinstance(value, list) else [] if value is None else [value]
    return ", ".join("not a number" if one is None else _number(one) for one in values)


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else text.plain(details.shown(value))
