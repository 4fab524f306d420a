"""The MLflow side of a run: experiment, run, artifacts, and the result that people see.

Every function asks the MLflow that ``MLFLOW_TRACKING_URI`` names, repeats a request that fails for
a while, and then raises ``MlflowException``, as it does where MLflow refuses the request.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from infra import connection
from infra.errors import ConflictError, StackError
from infra.mlflow import (
    Experiment,
    MlflowClient,
    MlflowException,
    MlflowRun,
    Page,
    ViewType,
    artifacts,
    entities,
)
from infra.mlflow.artifacts import ArtifactRepository
from registry import catalogue, experiment_names
from registry.runs import labels
from registry.runs.run_views import RunResultView

FLOW_RUN_TAG = labels.FLOW_RUN_TAG
KIND_TAG = "modelyard.kind"
MODEL_TAG = labels.MODEL_TAG
MLFLOW_RUN_LABEL = labels.MLFLOW_RUN
PARENT_TAG = "mlflow.parentRunId"  # MLflow's own: its UI nests runs by it
TRIAL_TAG = "modelyard.trial"  # a trial's number, on its run
STATE_TAG = "modelyard.trial_state"
REASON_TAG = "modelyard.trial_reason"
NOTE_TAG = entities.NOTE_TAG

T = TypeVar("T")

# Without it MLflow's UI shows an experiment's runs as evaluations of prompts.
_TRAINING_VIEW = {"mlflow.experimentKind": "custom_model_development"}

_logger = logging.getLogger(__name__)


def client() -> MlflowClient:
    """A client of the MLflow that the environment names, whatever the caller's code has set.

    Raises:
        KeyError: If the environment has no ``MLFLOW_TRACKING_URI``.
    """
    return MlflowClient(os.environ["MLFLOW_TRACKING_URI"])


@dataclass(frozen=True)
class Opening:
    """What a run is opened with.

    Attributes:
        flow_run_id: The Prefect run, whose retries share one MLflow run.
        kind: The flow's name.
        name: The run's name; one per experiment and kind.
        experiment: Its experiment's name; made if missing.
        description: Free text; "" for none.
        user: Who started it.
        parameters: Shown as the run's parameters, as strings.
        parent: The MLflow run that it is shown below; "" for none.
        trial: Its number among the trials of that run, from 0; None for no trial.
        unique: Whether no other run may have the name, as a user gave it; by default any may.
    """

    flow_run_id: str
    kind: str
    name: str
    experiment: str
    description: str
    user: str
    parameters: Mapping[str, Any]
    parent: str = ""
    trial: int | None = None
    unique: bool = False


def paged(search: Callable[[str | None], Page[T]]) -> Iterator[T]:
    """Everything that a search of MLflow's finds, page by page, as they are read.

    Args:
        search: Reads the page of a token, which is None for the first one.
    """
    token: str | None = None
    while True:
        page = search(token)
        yield from page
        token = page.token
        if not token:
            return


def create_experiment(name: str, description: str = "") -> str:
    """Make an experiment; its id.

    Args:
        name: Its name, which the caller has checked.
        description: Free text; "" for none.

    Raises:
        ConflictError: If the name is taken, with the code ``NameTaken``; by a deleted experiment,
            with the code ``ExperimentDeleted``.
    """
    mlflow = client()
    tags = {**_TRAINING_VIEW, **({NOTE_TAG: description} if description else {})}
    try:
        return str(mlflow.create_experiment(name, tags=tags))
    except MlflowException:
        found = mlflow.get_experiment_by_name(name)
        if found is None:
            raise
    _refuse_deleted(found, name)
    raise ConflictError(
        f"There is an experiment {name!r} already.",
        "Choose another name, or use that one.",
        code="NameTaken",
    )


def ensure_experiment(name: str, flow_run_id: str = "") -> str:
    """The id of the experiment that ``name`` means to the run; it is made if there is none.

    Args:
        name: Its name.
        flow_run_id: The run, to which an experiment keeps the name that it had; "" for no run.

    Raises:
        ConflictError: If it was deleted, with the code ``ExperimentDeleted``.
    """
    mlflow = client()
    found = experiment_names.meant(mlflow, name, flow_run_id)
    if found is None:
        try:
            return create_experiment(name)
        except ConflictError:  # somebody made it meanwhile
            found = mlflow.get_experiment_by_name(name)
            if found is None:
                raise
    _refuse_deleted(found, name, flow_run_id)
    for key, value in _TRAINING_VIEW.items():
        if key not in found.tags:  # MLflow's own Default has none yet
            mlflow.set_experiment_tag(found.experiment_id, key, value)
    return str(found.experiment_id)


def check_experiment(name: str, flow_run_id: str = "") -> None:
    """Refuse a run whose experiment was deleted; one that does not exist yet is fine.

    Args:
        name: The experiment's name.
        flow_run_id: As in :func:`ensure_experiment`.

    Raises:
        ConflictError: With the code ``ExperimentDeleted``.
    """
    found = experiment_names.meant(client(), name, flow_run_id)
    if found is not None:
        _refuse_deleted(found, name, flow_run_id)


def _refuse_deleted(found: Experiment, name: str, flow_run_id: str = "") -> None:
    if found.lifecycle_stage == "active" and not experiment_names.is_deleting(found):
        return
    copy = f"modelyard runs copy {flow_run_id or 'ID'}"
    raise ConflictError(
        f"The experiment {name!r} was deleted.",
        f"Copy the run, and it gets a new experiment of that name: {copy}."
        if found.name != name
        else f"Copy the run into another: {copy} -p experiment=NAME. Or restore it in MLflow."
        if flow_run_id
        else "Choose another name, or restore it in MLflow.",
        code="ExperimentDeleted",
    )


def _named(mlflow: MlflowClient, experiment_id: str, kind: str, name: str) -> list[MlflowRun]:
    return list(
        mlflow.search_runs(
            [experiment_id],
            filter_string=f"tags.`{KIND_TAG}` = '{kind}' AND attributes.run_name = \"{name}\"",
            run_view_type=ViewType.ACTIVE_ONLY,
            order_by=["attributes.start_time ASC"],
        )
    )


def check_name(kind: str, name: str, experiment: str, flow_run_id: str = "") -> None:
    """Refuse a name that another run of the experiment has; trials of a tuning take none away.

    Args:
        kind: The flow's name; runs of other flows do not matter.
        name: The run's name.
        experiment: The experiment's name.
        flow_run_id: The run, which may have the name already; "" for one that is not created.

    Raises:
        ConflictError: With the code ``NameTaken``.
    """
    mlflow = client()
    found = experiment_names.meant(mlflow, experiment, flow_run_id)
    if found is None:
        return
    for run in _named(mlflow, found.experiment_id, kind, name):
        tags = run.data.tags
        if PARENT_TAG not in tags and tags.get(FLOW_RUN_TAG) != flow_run_id:
            raise name_taken(name, experiment, str(tags.get(FLOW_RUN_TAG)))


def name_taken(name: str, experiment: str, flow_run_id: str) -> ConflictError:
    """The error of a name that the run ``flow_run_id`` has."""
    return ConflictError(
        f"The name {name!r} is taken in the experiment {experiment!r}, by run {flow_run_id}.",
        f"Choose another name, or delete that run: modelyard runs delete {flow_run_id}.",
        code="NameTaken",
    )


def name_lock(kind: str, name: str, experiment: str) -> contextlib.AbstractContextManager[None]:
    """The lock under which a run's name is checked, and a run created with it.

    It is the catalogue's, across processes and machines, and is waited for as long as it takes.
    """
    return catalogue.advisory_lock(f"run name {kind} {experiment} {name}")


@dataclass(frozen=True)
class Tracked:
    """An open MLflow run.

    Attributes:
        run_id: Its id.
        url: Its page in the MLflow UI.
        steps: The next step of each metric that an earlier attempt has logged, from 1; without
            one, a metric begins at 0.
        experiment_id: The experiment that it is in; "" if unknown.
    """

    run_id: str
    url: str
    steps: Mapping[str, int]
    experiment_id: str = ""

    def with_steps(self, more: Mapping[str, int]) -> Tracked:
        """The same with the larger one of each metric's next steps."""
        later = {name: max(step, self.steps.get(name, 0)) for name, step in more.items()}
        return replace(self, steps={**self.steps, **later})


def open_run(opening: Opening, *, retried: bool) -> Tracked:
    """Make the MLflow run, or open the one that an earlier attempt may have made.

    Args:
        opening: What it is opened with; an existing one keeps what it has.
        retried: Whether an earlier attempt may have made it; a first attempt does not search.

    Raises:
        ConflictError: If another run has the name meanwhile, with the code ``NameTaken``; if the
            experiment was deleted, with the code ``ExperimentDeleted``.
    """
    own = _own(client(), opening) if retried else None
    if own is not None:
        return reopen_run(own.info.run_id)
    if not opening.unique:
        return _create_run(opening)
    with name_lock(opening.kind, opening.name, opening.experiment):
        check_name(opening.kind, opening.name, opening.experiment, opening.flow_run_id)
        return _create_run(opening)


def _create_run(opening: Opening) -> Tracked:
    mlflow = client()
    experiment_id = ensure_experiment(opening.experiment, opening.flow_run_id)
    tags = {
        FLOW_RUN_TAG: opening.flow_run_id,
        KIND_TAG: opening.kind,
        "mlflow.user": opening.user,
        "mlflow.source.name": f"modelyard run {opening.kind}",
        NOTE_TAG: opening.description,
        **({PARENT_TAG: opening.parent} if opening.parent else {}),
        **({TRIAL_TAG: str(opening.trial)} if opening.trial is not None else {}),
    }
    try:
        run = mlflow.create_run(experiment_id, run_name=opening.name, tags=tags)
    except MlflowException:
        _refuse_deleted(mlflow.get_experiment(experiment_id), opening.experiment)
        raise
    if opening.parameters:
        mlflow.log_batch(run.info.run_id, params=opening.parameters.items())
    return _tracked(run)


def reopen_run(run_id: str) -> Tracked:
    """Open a run that an earlier attempt has made; MLflow has it as running again.

    Raises:
        MlflowException: If it is deleted.
    """
    client().update_run(run_id, status="RUNNING")
    return tracked(run_id)


def tracked(run_id: str) -> Tracked:
    """A run that is open.

    Raises:
        MlflowException: If there is none.
    """
    return _tracked(client().get_run(run_id))


def _own(mlflow: MlflowClient, opening: Opening) -> MlflowRun | None:
    """The MLflow run that an earlier attempt of a flow run has opened, in whichever experiment.

    Not one below it: a tuning's trials name its flow run as well, and are of another kind.
    """
    mine = (
        f"tags.`{FLOW_RUN_TAG}` = '{opening.flow_run_id}' AND tags.`{KIND_TAG}` = '{opening.kind}'"
    )
    experiments = [
        str(found.experiment_id)
        for found in paged(lambda token: mlflow.search_experiments(page_token=token))
    ]
    return next(iter(mlflow.search_runs(experiments, mine, max_results=1)), None)


def _tracked(run: MlflowRun) -> Tracked:
    steps = {metric.key: metric.step + 1 for metric in run.data.last_metrics}
    return Tracked(run.info.run_id, _url(run), steps, str(run.info.experiment_id))


def _url(run: MlflowRun) -> str:
    return connection.mlflow_run_page(run.info.experiment_id, run.info.run_id)


def describe(run_id: str, name: str | None, description: str | None) -> None:
    """Give the run another name or description; None keeps what it has, "" empties it."""
    mlflow = client()
    if name is not None:
        mlflow.update_run(run_id, name=name)
    if description is not None:
        mlflow.set_tag(run_id, NOTE_TAG, description)


def close_run(run_id: str, status: str) -> None:
    """Mark the run as ended, now.

    Args:
        run_id: The run.
        status: MLflow's: ``FINISHED``, ``FAILED`` or ``KILLED``.
    """
    client().set_terminated(run_id, status)


def close_abandoned(
    executed: Callable[[str], bool | None],
    before: Callable[[MlflowRun], object] = lambda _: None,
) -> int:
    """Mark runs as killed that MLflow has as running and nobody executes; how many there were.

    Args:
        executed: Whether a flow run, by id, is executed on this machine; None if it never was.
        before: Called with each of these runs, before it is marked; nothing by default.
    """
    mlflow = client()
    experiments = [str(found.experiment_id) for found in mlflow.search_experiments()]
    closed = 0
    running = mlflow.search_runs(
        experiments, filter_string=f"attributes.status = 'RUNNING' AND tags.`{KIND_TAG}` LIKE '%'"
    )
    for run in running:
        abandoned = executed(run.data.tags[FLOW_RUN_TAG]) is False
        # It was found before its lock was looked at, and may have ended between.
        if abandoned and mlflow.get_run(run.info.run_id).info.status == "RUNNING":
            before(run)
            close_run(run.info.run_id, "KILLED")
            closed += 1
    return closed


def delete_run(run_id: str, artifact_uri: str | None = None) -> None:
    """Delete the run and the bytes of its artifacts; one that is gone already is no error.

    Args:
        run_id: The run.
        artifact_uri: Where its artifacts are; MLflow is asked by default.
    """
    mlflow = client()
    try:
        uri = artifact_uri or mlflow.get_run(run_id).info.artifact_uri
        artifacts.repository(uri, mlflow.tracking_uri).delete_artifacts()
        mlflow.delete_run(run_id)
    except MlflowException as error:
        if not error.is_missing:
            raise


def log_files(run_id: str, folder: Path, artifact_path: str, *more: Path) -> str:
    """Make the content of folders the run's artifacts at ``artifact_path``; the artifacts' URI.

    What was there, of an earlier attempt, goes first. No two folders have a file of one name.

    Args:
        run_id: The run.
        folder: A folder of this machine, with the folders in it.
        artifact_path: The folder among the run's artifacts.
        more: Further folders of this machine.

    Raises:
        StackError: If MLflow has other names or sizes there afterwards, with the code
            ``ArtifactsDiffer``.
    """
    mlflow = client()
    uri = f"{mlflow.get_run(run_id).info.artifact_uri}/{artifact_path}"
    repository = artifacts.repository(uri, mlflow.tracking_uri)
    repository.delete_artifacts()
    folders = (folder, *more)
    for one in folders:
        mlflow.log_artifacts(run_id, str(one), artifact_path)
    wanted = {
        str(path.relative_to(one)): path.stat().st_size
        for one in folders
        for path in one.rglob("*")
        if path.is_file()
    }
    found = dict(files_of(repository))
    if found != wanted:
        differing = sorted(name for name, _ in found.items() ^ wanted.items())
        raise StackError(
            f"MLflow has not kept {', '.join(differing[:5])} as it was.",
            "See its log: modelyard status --logs mlflow.",
            code="ArtifactsDiffer",
        )
    return uri


def files_of(
    repository: ArtifactRepository, folder: str | None = None
) -> Iterator[tuple[str, int]]:
    """Every file that MLflow keeps in ``repository``, with its size in bytes; 0 if unknown.

    Args:
        repository: The artifacts.
        folder: A folder among them; all of them by default.
    """
    for found in repository.list_artifacts(folder):
        if found.is_dir:
            yield from files_of(repository, found.path)
        else:
            yield found.path, found.file_size or 0


def log_file(run_id: str, file: Path, artifact_path: str) -> None:
    """Upload one file of this machine to the folder ``artifact_path`` of the run's artifacts.

    Raises:
        OSError: If it cannot be read.
    """
    client().log_artifact(run_id, str(file), artifact_path)


def result(run_id: str) -> RunResultView:
    """Return the result of an MLflow run: its model and its last metrics, without system metrics.

    A value that is not a finite number is None.
    """
    run = client().get_run(run_id)
    return RunResultView(
        mlflow_run_id=run_id, model_uri=run.data.tags.get(MODEL_TAG), metrics=last_metrics(run)
    )


def last_metrics(run: MlflowRun) -> dict[str, float | None]:
    """The last value of each metric, without those of the machine's load; None if not finite."""
    return {
        # MLflow keeps an infinity as the largest float; NaN is not less either.
        name: value if abs(value) < sys.float_info.max else None
        for name, value in sorted(run.data.metrics.items())
        if not name.startswith("system/")
    }


def run_url(run_id: str) -> str:
    """The run's page in the MLflow UI."""
    return _url(client().get_run(run_id))
