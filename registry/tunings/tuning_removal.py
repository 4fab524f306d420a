"""The removal of tunings with all that their trials have left.

``registry.deletion`` asks the guards and calls what is here, for every run: one without trials is
removed as any other. The trials' runs go first, then the rows that tell of them, then the tuning's
own run, so that a removal that was interrupted can be repeated.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from registry import catalogue, tracking
from registry.models import models
from registry.runs import runs
from registry.tunings import trial_runs, trials, tunings

_MOST_NAMED = 20


def owned(run_id: str) -> list[str]:
    """Why the run may not be deleted by itself: it is a trial of a tuning that is there."""
    tuning, number = trials.owner(run_id) or ("", 0)
    there = runs.with_ids([tuning]) if tuning else []
    return [f"The run {run_id} is trial {number} of the tuning {run.row['name']} ({run.id})."
            for run in there]  # fmt: skip


def how_to_delete_owned(run_id: str) -> str:
    """What to do about it."""
    tuning, _ = trials.owner(run_id) or (run_id, 0)
    return f"Delete the tuning, and its trials go along: modelyard runs delete {tuning}."


def going_on(run_id: str) -> list[str]:
    """Why the tuning may not be deleted: trials of it that go on as runs of their own."""
    left = [run for run in runs.with_ids(_flow_runs(run_id)) if not run.final]
    named = [f"Its trial {run.row['name']} ({run.id}) is {run.row['state']}." for run in left]
    more = [f"There are {len(left)} in all."] if left[_MOST_NAMED:] else []
    return [*named[:_MOST_NAMED], *more]


def models_of(run_id: str) -> list[str]:
    """Why the tuning may not be deleted: the models that were made of its trials."""
    of_trials = {row["mlflow_run_id"] for row in trials.outline(run_id) if row["mlflow_run_id"]}
    made = models.made_by_any(sorted(of_trials | _below(run_id).keys()))
    return [f"Its trials made the model {', '.join(made)}."] if made else []


def _flow_runs(run_id: str) -> list[str]:
    return [row["flow_run_id"] for row in trials.outline(run_id) if row["flow_run_id"]]


def _below(run_id: str) -> dict[str, str]:
    mlflow_run_id = runs.mlflow_run_id(run_id)
    return trial_runs.below(mlflow_run_id) if mlflow_run_id else {}


@contextlib.contextmanager
def alone(run_id: str) -> Iterator[None]:
    """Let nobody make a model of what the run or its trials have left, until the block's end."""
    with catalogue.advisory_lock(tunings.lock(run_id)), runs.alone(run_id):
        yield


def remove(run_id: str) -> dict[str, Any]:
    """Remove a run with its trials, whatever depends on them."""
    below = _below(run_id)
    trial_runs.delete(below)
    for row in trials.outline(run_id):
        if row["mlflow_run_id"] and row["mlflow_run_id"] not in below:
            tracking.delete_run(row["mlflow_run_id"])
    runs.remove_there(_flow_runs(run_id))
    trials.remove(run_id)
    return runs.remove(run_id)
