"""Models made of runs: what a person calls *create a model from a training*, or from a tuning."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from infra.errors import BadInputError, ConflictError, NotFoundError
from registry import catalogue, flow_kinds
from registry.models import models
from registry.models.models import Making, Origin
from registry.runs import runs, statuses
from registry.tracking import client
from registry.tunings import trials, tunings

_FOLDER = "model"  # of the files among the artifacts of a training


def from_run(
    key: str, making: Making, *, name: str = "", description: str = "", trial: int | None = None
) -> dict[str, Any]:
    """Make the next version of a model of what a run has left; the version.

    A tuning leaves what its best trial has left.

    Args:
        key: The run's id, or its name where only one run has it.
        making: What the model is served as.
        name: The model's name; the run's if empty.
        description: Of the version.
        trial: Another trial than the best one, by its number.

    Raises:
        NotFoundError: If there is no such run; with the code ``RunHasNoModel``, if it left none;
            with ``TrialUnknown``, if it has no such trial.
        ConflictError: With the code ``RunNotComplete``; ``TuningHasNoBest``; ``TrialNeeded``, if
            several trials are best in their ways; ``TrialNotObserved``, if it came to nothing.
        BadInputError: With the code ``TrialUnused``, if the run is no tuning.
    """
    run = runs.show(key)
    if run["flow"] not in {flow_kinds.TRAIN.name, flow_kinds.TUNE.name}:
        raise NotFoundError(
            f"A run of {run['flow']} leaves no model.",
            f"Give a run of {flow_kinds.TRAIN.name} or {flow_kinds.TUNE.name}.",
            code="RunHasNoModel",
        )
    if trial is not None and run["flow"] != flow_kinds.TUNE.name:
        raise BadInputError(
            f"The run {run['name']} is no tuning, so it has no trials.",
            "Leave --trial out.",
            code="TrialUnused",
        )
    tuning = _tuning(run)
    for whole in (run, runs.show(tuning) if tuning and tuning != run["id"] else run):
        if whole["state"] != statuses.COMPLETE:
            raise ConflictError(
                f"The run {whole['name']} is {whole['state']}.",
                f"Only a run that is {statuses.COMPLETE} can become a model; a trial, once its "
                "tuning is.",
                code="RunNotComplete",
            )
    with contextlib.ExitStack() as locks:
        if tuning:
            locks.enter_context(catalogue.advisory_lock(tunings.lock(tuning)))
        origin = (
            _of_tuning(run, trial) if run["flow"] == flow_kinds.TUNE.name else _of_training(run)
        )
        return models.create(name or run["name"], making, description=description, origin=origin)


def _tuning(run: Mapping[str, Any]) -> str | None:
    """The tuning that the run is, or is a trial of."""
    if run["flow"] == flow_kinds.TUNE.name:
        return str(run["id"])
    owner = trials.owner(run["id"])
    return owner[0] if owner else None


def _of_training(run: Mapping[str, Any]) -> Origin:
    source = _source(run["result"])
    if source is None:
        raise NotFoundError(
            f"The run {run['name']} left no model.",
            "Its script leaves one in EM_MODEL_DIR; or the model was deleted with its files.",
            code="RunHasNoModel",
        )
    return Origin(run["result"]["mlflow_run_id"], run["id"], source)


def _of_tuning(run: Mapping[str, Any], number: int | None) -> Origin:
    chosen = _chosen(run, number)
    source = _source(chosen)
    if source is None:
        early = chosen["state"] == trials.EARLY_STOPPED
        raise NotFoundError(
            f"Trial {chosen['number']} of the tuning {run['name']} left no model"
            + (": it was stopped early, before its script had left one." if early else "."),
            "Give another with --trial NUMBER, or run a training with its parameters."
            if early
            else "Its script leaves one in EM_MODEL_DIR; or the model was deleted with its files.",
            code="RunHasNoModel",
        )
    return Origin(chosen["mlflow_run_id"], chosen.get("flow_run_id") or run["id"], source)


def _chosen(run: Mapping[str, Any], number: int | None) -> Mapping[str, Any]:
    """The trial of the tuning with this number, or else its best one."""
    result = run["result"] or {"best": None, "trials": []}
    if number is None and result.get("front"):
        best = ", ".join(str(trial["number"]) for trial in result["front"])
        raise ConflictError(
            f"The tuning {run['name']} has several objectives, and no trial is the best of all.",
            f"Give one with --trial NUMBER; no other beats: {best}.",
            code="TrialNeeded",
        )
    if number is None and result["best"] is None:
        raise ConflictError(
            f"The tuning {run['name']} has no best trial: none has a value of its objective "
            "and keeps to its constraints.",
            "Give one with --trial NUMBER, if there is one that ended well.",
            code="TuningHasNoBest",
        )
    wanted = result["best"]["number"] if number is None else number
    found: list[Mapping[str, Any]] = result["trials"]
    trial = next((each for each in found if each["number"] == wanted), None)
    if trial is None:
        raise NotFoundError(
            f"The tuning {run['name']} has no trial {wanted}.",
            f"It has {len(found)}: modelyard runs show {run['id']}.",
            code="TrialUnknown",
        )
    if trial["state"] not in trials.OBSERVED:
        raise ConflictError(
            f"Trial {wanted} of the tuning {run['name']} is {trial['state']}.",
            f"Give one that is {' or '.join(sorted(trials.OBSERVED, reverse=True))}.",
            code="TrialNotObserved",
        )
    return trial


def _source(found: Mapping[str, Any] | None) -> str | None:
    """Where the model is that an MLflow run has left; None if it left none."""
    if found is None or found["mlflow_run_id"] is None:
        return None
    run_id, mlflow = found["mlflow_run_id"], client()
    if not mlflow.list_artifacts(run_id, _FOLDER):
        return None
    return f"{mlflow.get_run(run_id).info.artifact_uri}/{_FOLDER}"
