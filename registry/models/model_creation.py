"""Creation of models from trainings and tunings."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import datetime

from infra.errors import BadInputError, ConflictError, NotFoundError
from registry import catalogue, flow_kinds
from registry.models import model_versions, models
from registry.models.model_views import ModelVersionView
from registry.models.models import ServingSpec, SourceRun
from registry.runs import runs, statuses
from registry.runs.run_views import RunDetailView, RunResultView
from registry.tracking import client
from registry.tunings import trials, tunings
from registry.tunings.tuning_views import TrialView, TuningResultView

_FOLDER = "model"  # of the files among the artifacts of a training


def from_run(
    key: str,
    serving: ServingSpec,
    *,
    name: str = "",
    description: str = "",
    trial: int | None = None,
) -> ModelVersionView:
    """Create the next version of a model from a run's artifacts; a tuning's best trial by default.

    Args:
        key: The run's id, or its name where only one run has it.
        serving: How the model is served; without a framework, with the one that the run has
            declared, as one of a provided algorithm does.
        name: The model's name; the run's if empty.
        description: Description of the version.
        trial: Number of another trial than the best one.

    Raises:
        NotFoundError: If there is no such run; with the code ``RunHasNoModel`` if it has no model
            among its artifacts; with ``TrialUnknown`` if it has no such trial.
        ConflictError: With the code ``RunNotComplete``; ``TuningHasNoBest``; ``TrialNeeded`` if
            there is a Pareto front; ``TrialNotObserved`` if the trial has no value;
            ``ExperimentDeleted`` if the run's experiment is.
        BadInputError: With the code ``TrialUnused`` if the run is not a tuning.
    """
    run = runs.show(key)
    if run.flow not in {flow_kinds.TRAIN.name, flow_kinds.TUNE.name}:
        raise NotFoundError(
            f"A run of {run.flow} has no model.",
            f"Give a run of {flow_kinds.TRAIN.name} or {flow_kinds.TUNE.name}.",
            code="RunHasNoModel",
        )
    if trial is not None and run.flow != flow_kinds.TUNE.name:
        raise BadInputError(
            f"The run {run.name} is not a tuning, so it has no trials.",
            "Leave --trial out.",
            code="TrialUnused",
        )
    tuning = _tuning(run)
    for whole in (run, runs.show(tuning) if tuning and tuning != run.id else run):
        if whole.state != statuses.COMPLETE:
            raise ConflictError(
                f"The run {whole.name} is {whole.state}.",
                f"Only a run that is {statuses.COMPLETE} can become a model; a trial, once its "
                "tuning is.",
                code="RunNotComplete",
            )
    with contextlib.ExitStack() as locks:
        if tuning:
            locks.enter_context(catalogue.advisory_lock(tunings.lock(tuning)))
        origin = _of_tuning(run, trial) if run.flow == flow_kinds.TUNE.name else _of_training(run)
        _check_experiment(origin)
        serving = _completed(serving, origin)
        return models.create(name or run.name, serving, description=description, origin=origin)


def _check_experiment(origin: SourceRun) -> None:
    """Refuse a run whose experiment is deleted: MLflow changes nothing of it any more.

    Raises:
        ConflictError: With the code ``ExperimentDeleted``.
    """
    mlflow = client()
    experiment = mlflow.get_experiment(mlflow.get_run(origin.run_id).info.experiment_id)
    if experiment.lifecycle_stage != "active":
        raise ConflictError(
            f"The experiment {experiment.name!r} of the run was deleted.",
            "Restore it in MLflow, or run the training again: modelyard runs copy.",
            code="ExperimentDeleted",
        )


def _completed(serving: ServingSpec, origin: SourceRun) -> ServingSpec:
    """Add the framework that the run has declared, if none is given."""
    if serving.framework:
        return serving
    declared = models.declared_serving(origin.run_id)
    return replace(
        serving,
        framework=declared.get(model_versions.FRAMEWORK_TAG, ""),
        framework_version=serving.framework_version
        or declared.get(model_versions.FRAMEWORK_VERSION_TAG, ""),
    )


def register_best(name: str, since: datetime, tuning: str, result: TuningResultView) -> str | None:
    """Register the model of a tuning's best trial as the next version of the model ``name``.

    Args:
        name: The model's name; created if missing.
        since: When the tuning was created; the model may have been renamed since.
        tuning: The tuning's flow run.
        result: Its result.

    Returns:
        The version's URI; the existing one if the trial has made one. None if there is no best
        trial, or it has no model.
    """
    best = result.best.number if result.best else None
    trial = next((each for each in result.trials if each.number == best), None)
    source = _source(trial.mlflow_run_id) if trial else None
    if trial is None or trial.mlflow_run_id is None or source is None:
        return None
    with catalogue.advisory_lock(tunings.lock(tuning)):
        origin = SourceRun(trial.mlflow_run_id, trial.flow_run_id or tuning, source)
        return models.register(name, since, origin)


def _tuning(run: RunDetailView) -> str | None:
    """Return the tuning that the run is, or is a trial of."""
    if run.flow == flow_kinds.TUNE.name:
        return run.id
    owner = trials.owner(run.id)
    return owner[0] if owner else None


def _of_training(run: RunDetailView) -> SourceRun:
    result = run.result
    source = _source(result.mlflow_run_id) if isinstance(result, RunResultView) else None
    if source is None or run.mlflow_run_id is None:
        raise NotFoundError(
            f"The run {run.name} has no model.",
            "Its script leaves one in EM_MODEL_DIR; or the model was deleted with its files.",
            code="RunHasNoModel",
        )
    return SourceRun(run.mlflow_run_id, run.id, source)


def _of_tuning(run: RunDetailView, number: int | None) -> SourceRun:
    chosen = _chosen(run, number)
    source = _source(chosen.mlflow_run_id)
    if source is None or chosen.mlflow_run_id is None:
        early = chosen.state == trials.EARLY_STOPPED
        raise NotFoundError(
            f"Trial {chosen.number} of the tuning {run.name} has no model"
            + (": it was stopped early, before its script had written one." if early else "."),
            "Give another with --trial NUMBER, or run a training with its parameters."
            if early
            else "Its script leaves one in EM_MODEL_DIR; or the model was deleted with its files.",
            code="RunHasNoModel",
        )
    return SourceRun(chosen.mlflow_run_id, chosen.flow_run_id or run.id, source)


def _chosen(run: RunDetailView, number: int | None) -> TrialView:
    """Return the trial of the tuning with this number, or else its best one."""
    result = run.result if isinstance(run.result, TuningResultView) else None
    if number is None and result and result.front:
        best = ", ".join(str(trial.number) for trial in result.front)
        raise ConflictError(
            f"The tuning {run.name} has several objectives, and no trial is the best of all.",
            f"Give one with --trial NUMBER; the Pareto front is: {best}.",
            code="TrialNeeded",
        )
    wanted = result.best.number if number is None and result and result.best else number
    if wanted is None:
        raise ConflictError(
            f"The tuning {run.name} has no best trial: none has a value of its objective "
            "and keeps to its constraints.",
            "Give a trial that succeeded with --trial NUMBER, if there is one.",
            code="TuningHasNoBest",
        )
    found = result.trials if result else []
    trial = next((each for each in found if each.number == wanted), None)
    if trial is None:
        raise NotFoundError(
            f"The tuning {run.name} has no trial {wanted}.",
            f"It has {len(found)}: modelyard runs show {run.id}.",
            code="TrialUnknown",
        )
    if trial.state not in trials.OBSERVED:
        raise ConflictError(
            f"Trial {wanted} of the tuning {run.name} is {trial.state}.",
            f"Give one that is {' or '.join(sorted(trials.OBSERVED, reverse=True))}.",
            code="TrialNotObserved",
        )
    return trial


def _source(run_id: str | None) -> str | None:
    """Return the URI of the model among an MLflow run's artifacts; None if it has none."""
    mlflow = client()
    if run_id is None or not mlflow.list_artifacts(run_id, _FOLDER):
        return None
    return f"{mlflow.get_run(run_id).info.artifact_uri}/{_FOLDER}"
