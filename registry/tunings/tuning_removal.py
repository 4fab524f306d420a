"""The removal of tunings with all that their trials have left.

``registry.deletion`` asks the guards and calls what is here, for every run: one without trials is
removed as any other. The trials' runs go first, then the rows that tell of them, then the tuning's
own run, so that a removal that was interrupted can be repeated.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from registry import catalogue, tracking
from registry.blockers import Blocker
from registry.models import models
from registry.runs import runs
from registry.tunings import trial_runs, trials, tunings
from registry.views import JsonObject

_MOST_NAMED = 20


def owner_blockers(run_id: str) -> list[Blocker]:
    """Return why the run may not be deleted by itself: it is a trial of an existing tuning."""
    tuning, number = trials.owner(run_id) or ("", 0)
    there = runs.with_ids([tuning]) if tuning else []
    return [
        Blocker(
            f"The run {run_id} is trial {number} of the tuning {run.name} ({run.id}).",
            ("runs", "delete", run.id),
        )
        for run in there
    ]


def active_blockers(run_id: str) -> list[Blocker]:
    """Return why the tuning may not be deleted: active trials that are runs of their own."""
    left = [run for run in runs.with_ids(_flow_runs(run_id)) if not run.is_final]
    named = [
        Blocker(f"Its trial {run.name} ({run.id}) is {run.state}.", ("runs", "stop", run.id))
        for run in left
    ]
    more = [Blocker(f"There are {len(left)} in all.")] if left[_MOST_NAMED:] else []
    return [*named[:_MOST_NAMED], *more]


def model_blockers(run_id: str) -> list[Blocker]:
    """Return why the tuning may not be deleted: the models that were made of its trials."""
    of_trials = {row["mlflow_run_id"] for row in trials.outline(run_id) if row["mlflow_run_id"]}
    return models.blockers("Its trials", sorted(of_trials | _below(run_id).keys()))


def _flow_runs(run_id: str) -> list[str]:
    return [row["flow_run_id"] for row in trials.outline(run_id) if row["flow_run_id"]]


def _below(run_id: str) -> dict[str, str]:
    mlflow_run_id = runs.mlflow_run_id(run_id)
    return trial_runs.below(mlflow_run_id) if mlflow_run_id else {}


@contextlib.contextmanager
def model_lock(run_id: str) -> Iterator[None]:
    """Hold the locks under which models are made of the run and of its trials."""
    with catalogue.advisory_lock(tunings.lock(run_id)), runs.model_lock(run_id):
        yield


def remove(run_id: str) -> JsonObject:
    """Remove a run with its trials, without any further check."""
    below = _below(run_id)
    trial_runs.delete(below)
    for row in trials.outline(run_id):
        if row["mlflow_run_id"] and row["mlflow_run_id"] not in below:
            tracking.delete_run(row["mlflow_run_id"])
    runs.remove_existing(_flow_runs(run_id))
    trials.remove(run_id)
    return runs.remove(run_id)
