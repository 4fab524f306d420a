"""Removal of models: MLflow's versions, and the artifacts that Modelyard wrote for them.

Called by ``registry.deletion`` after its guards. The steps can be repeated: mark the version, so
that it is no longer used; delete its artifacts; delete the tag of the run that made it; delete
MLflow's version, and with the last version the model. After a kill in between the version is
DELETE IN PROGRESS, after an error DELETE FAILED, and a repeat completes either.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from infra.errors import ModelyardError, NotFoundError, StackError
from infra.mlflow import MlflowException, ModelVersion
from registry import catalogue
from registry.blockers import Blocker
from registry.models import (
    model_aliases,
    model_artifacts,
    model_references,
    model_states,
    model_versions,
)
from registry.models.model_states import DELETING_TAG, DELETION_ERROR_TAG
from registry.models.model_versions import CLAIMED, GOING
from registry.runs import runs
from registry.schedules import schedules
from registry.tracking import FLOW_RUN_TAG, MODEL_TAG, client
from registry.views import JsonObject

_LONGEST_REASON = 500


def alias_blockers(name: str, number: int | None = None) -> list[Blocker]:
    """Return why a version, or the whole model, may not be deleted: aliases that point to it.

    Raises:
        NotFoundError: If there is no such model or version.
    """
    model = model_versions.find_model(name)
    if number is not None and DELETING_TAG not in model.tags:  # whose versions may be gone
        model_versions.find(name, number)
    return [
        Blocker(
            f"The alias {alias} points to models:/{name}/{version}.",
            ("model", "unalias", name, alias),
        )
        for alias, version in sorted(model_aliases.actual(model.aliases).items())
        if number in {None, version}
    ]


def schedule_blockers(name: str, number: int | None = None) -> list[Blocker]:
    """Return why the model may not be deleted: enabled schedules whose runs would recreate it."""
    versions = model_versions.of_model(name)
    if number is not None and any(int(version.version) != number for version in versions):
        return []  # the model stays
    given = schedules.names_and_parameters(enabled=True)
    return [
        Blocker(
            f"The schedule {schedule} registers models as {name}.", ("schedule", "stop", schedule)
        )
        for schedule, parameters in sorted(given.items())
        if isinstance(model := parameters.get("model"), Mapping)
        and schedules.may_be(model.get("name"), name)
    ]


def predicting_schedule_blockers(name: str, number: int | None = None) -> list[Blocker]:
    """Return why a version, or the model, may not be deleted: enabled schedules that predict."""
    return [
        Blocker(
            f"The schedule {schedule} predicts with {reference}.", ("schedule", "stop", schedule)
        )
        for schedule, reference in model_references.scheduled(_references(name, number))
    ]


def active_blockers(name: str, number: int | None = None) -> list[Blocker]:
    """Return why a version, or the model, may not be deleted: active runs that predict with it."""
    references = _references(name, number)
    return [
        Blocker(f"The run {run.name} ({run.id}) predicts with it.", ("runs", "stop", run.id))
        for run in runs.active()
        if run.parameters.get(model_references.PARAMETER) in references
    ]


def _references(name: str, number: int | None) -> list[str]:
    """All that parameters can have for the version, or for all of the model's."""
    paths = [f"{name}/{version.version}" for version in _chosen(name, number)]
    if number is None:
        paths += [f"{name}@{alias}" for alias in model_versions.find_model(name).aliases]
    return [spelling for path in paths for spelling in model_references.spellings(path)]


def claim(name: str, number: int | None = None) -> None:
    """Mark the version, or all of the model's, so that no new use of it begins."""
    with catalogue.advisory_lock(model_versions.lock(name)):
        _mark(_chosen(name, number), CLAIMED)


def release(name: str, number: int | None = None) -> None:
    """Undo :func:`claim`, unless a removal has begun."""
    mlflow = client()
    with catalogue.advisory_lock(model_versions.lock(name)):
        for version in _chosen(name, number):
            if version.tags.get(DELETING_TAG) == CLAIMED:
                mlflow.delete_model_version_tag(name, version.version, DELETING_TAG)


def remove(name: str, number: int | None = None) -> JsonObject:
    """Remove a version, or the whole model, without any further check; can be repeated.

    Artifacts that Modelyard wrote are deleted, unless another version shares them; a user's own
    files stay.

    Returns:
        ``{"removed", "model_deleted"}``: URIs of the removed versions, and whether the model
        went with them.

    Raises:
        StackError: With the code ``DeleteFailed``; the version then shows DELETE FAILED.
    """
    with catalogue.advisory_lock(model_versions.lock(name)):
        doomed = _chosen(name, number)
        _mark(doomed, GOING)
        others = {version.version for version in model_versions.of_model(name)}
        if others == {version.version for version in doomed}:
            _mark_model(name)
    for version in doomed:
        _remove(version)
    with catalogue.advisory_lock(model_versions.lock(name)):
        gone = _remove_empty(name)
    removed = [model_versions.uri(version) for version in doomed]
    return {"removed": removed, "model_deleted": gone}


def _chosen(name: str, number: int | None) -> list[ModelVersion]:
    """Return the version, or all of the model's; none if they are removed already."""
    if number is None:
        return model_versions.of_model(name)
    try:
        return [model_versions.find(name, number)]
    except NotFoundError:
        return []


def _mark(versions: list[ModelVersion], value: str) -> None:
    mlflow = client()
    for version in versions:
        if version.tags.get(DELETING_TAG) not in {value, GOING}:
            mlflow.set_model_version_tag(version.name, version.version, DELETING_TAG, value)
        if DELETION_ERROR_TAG in version.tags:
            mlflow.delete_model_version_tag(version.name, version.version, DELETION_ERROR_TAG)


def _mark_model(name: str) -> None:
    """Mark the model as being removed, in case the removal is interrupted."""
    try:
        client().set_registered_model_tag(name, DELETING_TAG, GOING)
    except MlflowException as error:
        if not error.is_missing:
            raise


def _remove(version: ModelVersion) -> None:
    try:
        _remove_artifacts(version)
        _untag_run(version)
        _remove_version(version)
    except (MlflowException, OSError, ModelyardError) as error:  # OSError: requests' too
        reason = f"{type(error).__name__}: {error}"[:_LONGEST_REASON]
        with contextlib.suppress(MlflowException):  # MLflow itself may be down
            client().set_model_version_tag(
                version.name, version.version, DELETION_ERROR_TAG, reason
            )
        raise StackError(
            f"{model_versions.uri(version)} could not be deleted: {reason}",
            f"Retry: modelyard model delete {version.name} --version {version.version}.",
            code="DeleteFailed",
        ) from error


def _remove_artifacts(version: ModelVersion) -> None:
    """Delete the artifacts that Modelyard wrote, unless another version shares them."""
    if FLOW_RUN_TAG not in version.tags or not version.run_id or not version.source:
        return
    with catalogue.advisory_lock(model_versions.lock_of_run(version.run_id)):
        shared = any(
            other.source == version.source and not model_versions.is_going(other)
            for other in model_versions.of_run(version.run_id)
        )
        if not shared:
            model_artifacts.delete(version.source)


def _untag_run(version: ModelVersion) -> None:
    """Tag the run with another version that it made, or with none."""
    if not version.run_id:
        return
    mlflow = client()
    try:
        run = mlflow.get_run(version.run_id)
    except MlflowException as error:
        if not error.is_missing:
            raise
        return
    gone = model_versions.uri(version)
    if run.info.lifecycle_stage != "active" or run.data.tags.get(MODEL_TAG) != gone:
        return
    others = [
        model_versions.uri(other)
        for other in model_versions.of_run(version.run_id)
        if not model_states.is_deleting(other)
    ]
    if others:
        mlflow.set_tag(version.run_id, MODEL_TAG, others[0])
    else:
        mlflow.delete_tag(version.run_id, MODEL_TAG)


def _remove_version(version: ModelVersion) -> None:
    try:
        client().delete_model_version(version.name, version.version)
    except MlflowException as error:
        if not error.is_missing:
            raise


def _remove_empty(name: str) -> bool:
    """Remove the model if it has no versions left, under its lock; whether it is gone."""
    if model_versions.of_model(name):
        return False
    try:
        client().delete_registered_model(name)
    except MlflowException as error:
        if not error.is_missing:
            raise
    return True
