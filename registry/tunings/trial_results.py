"""What the trials of a tuning have to show, of their rows and of the tags of its MLflow run.

Pages read it as well, so nothing here imports Prefect or a client of MLflow.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from registry.tunings import trials
from registry.tunings.trials import TrialOutline
from registry.tunings.tuning_views import (
    TrialCounts,
    TrialView,
    TuningOverviewView,
    Value,
)

OBJECTIVES_TAG = "modelyard.objectives"  # on a tuning's run: a JSON list of metrics
BEST_TAG = "modelyard.best_trials"  # on a tuning's run: numbers, such as 7 or 3,7,9

# What a list counts, in the reference's three groups.
_COUNTED = {"done": trials.OBSERVED, "running": trials.ACTIVE, "failed": trials.FAILURES}


def best(tags: Mapping[str, str]) -> list[int]:
    """Return the numbers of a tuning's best trials: one, or with several objectives the front."""
    return [int(number) for number in tags.get(BEST_TAG, "").split(",") if number]


def objectives(tags: Mapping[str, str]) -> list[str]:
    """Return the metrics that a tuning optimises, in the order of its trials' values."""
    return [str(metric) for metric in json.loads(tags.get(OBJECTIVES_TAG, "[]"))]


def shown_value(values: Sequence[float] | None, *, single: bool) -> Value:
    """Return a trial's values as they are shown: one number of a single objective."""
    if values is None:
        return None
    finite = [value if math.isfinite(value) else None for value in values]
    return next(iter(finite), None) if single else finite


def view(row: TrialOutline, *, single: bool, over: bool) -> TrialView:
    """Return the view of a trial.

    Args:
        row: Its row.
        single: Whether there is one objective.
        over: Whether its tuning has ended. An inline trial is then shown as KILLED where its row
            says that it runs.
    """
    ended = over and row["state"] in trials.ACTIVE and not row["flow_run_id"]
    return TrialView(
        number=row["number"],
        state=trials.KILLED if ended else row["state"],
        parameters=row["parameters"],
        value=shown_value(row["values"], single=single),
        mlflow_run_id=row["mlflow_run_id"],
        flow_run_id=row["flow_run_id"],
        reason=row["reason"],
        attempts=row["attempts"],
    )


def grouped(counts: Mapping[str, int], *, over: bool) -> TrialCounts:
    """Return how many trials are in each of the reference's groups.

    Args:
        counts: How many are in each state.
        over: Whether their tuning has ended, so that none runs.
    """
    groups = {
        group: sum(counts.get(state, 0) for state in states) for group, states in _COUNTED.items()
    }
    stopped = counts.get(trials.KILLED, 0)
    if over:
        stopped, groups["running"] = stopped + groups["running"], 0
    return TrialCounts(**groups, stopped=stopped)


def overview(
    flow_run_id: str, tags: Mapping[str, str], newest: int, *, over: bool
) -> TuningOverviewView:
    """Return what a page shows of a tuning, however many trials it has.

    Args:
        flow_run_id: The tuning's flow run.
        tags: Those of its MLflow run; none where MLflow does not answer, and no trial is best.
        newest: How many trials at most, and how many of the best ones.
        over: Whether it has ended.
    """
    metrics = objectives(tags)
    single = len(metrics) == 1

    def views(rows: Sequence[TrialOutline]) -> list[TrialView]:
        return [view(row, single=single, over=over) for row in rows]

    return TuningOverviewView(
        counts=grouped(trials.counts([flow_run_id]).get(flow_run_id, {}), over=over),
        metrics=metrics,
        best=views(trials.numbered(flow_run_id, best(tags)[:newest])),
        trials=views(trials.newest(flow_run_id, newest)),
    )
