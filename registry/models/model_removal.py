"""The removal of models: MLflow's versions, and the bytes that Modelyard wrote for them.

``registry.deletion`` asks the guards and calls what is here. A removal goes in steps that can be
repeated: the version is marked, so that nobody uses it any more; its bytes go; the run that made
it forgets it; MLflow's version goes; with the last version the model goes. What was killed in
between is DELETE IN PROGRESS, what failed is DELETE FAILED, and a repeat ends either.
"""

from __future__ import annotations

import contextlib
from typing import Any

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from infra.errors import ModelyardError, NotFoundError, StackError
from registry import catalogue
from registry.models import model_aliases, model_artifacts, model_versions
from registry.models.model_versions import CLAIMED, DELETING_TAG, DELETION_ERROR_TAG, GOING
from registry.tracking import FLOW_RUN_TAG, MODEL_TAG, client

_LONGEST_REASON = 500


def uses(name: str, number: int | None = None) -> list[str]:
    """Why a version, or the whole model, may not be deleted: the aliases that point to it.

    Raises:
        NotFoundError: If there is no such model or version.
    """
    model = model_versions.find_model(name)
    if number is not None and DELETING_TAG not in model.tags:  # whose versions may be gone
        model_versions.find(name, number)
    return [
        f"The alias {alias} points to models:/{name}/{version}."
        for alias, version in sorted(model_aliases.actual(model.aliases).items())
        if number in {None, version}
    ]


def claim(name: str, number: int | None = None) -> None:
    """Let nobody begin to use the version, or any of the model's, from now on."""
    with catalogue.advisory_lock(model_versions.lock(name)):
        _mark(_chosen(name, number), CLAIMED)


def release(name: str, number: int | None = None) -> None:
    """Undo :func:`claim`, but not where a removal has begun."""
    mlflow = client()
    with catalogue.advisory_lock(model_versions.lock(name)):
        for version in _chosen(name, number):
            if version.tags.get(DELETING_TAG) == CLAIMED:
                mlflow.delete_model_version_tag(name, version.version, DELETING_TAG)


def remove(name: str, number: int | None = None) -> dict[str, Any]:
    """Remove a version, or the whole model, whatever depends on it; repeated, end what is left.

    Bytes that Modelyard wrote go, unless another version has the same; somebody's own stay.

    Returns:
        ``{"removed"}``: URIs of the versions that went.

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
        _remove_empty(name)
    return {"removed": [model_versions.uri(version) for version in doomed]}


def _chosen(name: str, number: int | None) -> list[ModelVersion]:
    """The version, or all of the model's; none where they are gone already."""
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
    """Say that the model goes too: it shows where that stops before its end."""
    try:
        client().set_registered_model_tag(name, DELETING_TAG, GOING)
    except MlflowException as error:
        if not model_versions.is_missing(error):
            raise


def _remove(version: ModelVersion) -> None:
    try:
        _remove_bytes(version)
        _forget(version)
        _remove_version(version)
    except (MlflowException, OSError, ModelyardError) as error:  # OSError: requests' too
        reason = f"{type(error).__name__}: {error}"[:_LONGEST_REASON]
        with contextlib.suppress(MlflowException):  # which may be what does not answer
            client().set_model_version_tag(
                version.name, version.version, DELETION_ERROR_TAG, reason
            )
        raise StackError(
            f"{model_versions.uri(version)} could not be deleted: {reason}",
            f"Repeat it: modelyard model delete {version.name} --version {version.version}.",
            code="DeleteFailed",
        ) from error


def _remove_bytes(version: ModelVersion) -> None:
    """Remove the bytes if they are of Modelyard's writing, and no living version's as well."""
    if FLOW_RUN_TAG not in version.tags or not version.run_id or not version.source:
        return
    with catalogue.advisory_lock(model_versions.lock_of_run(version.run_id)):
        shared = any(
            other.source == version.source and not model_versions.is_going(other)
            for other in model_versions.of_run(version.run_id)
        )
        if not shared:
            model_artifacts.delete(version.source)


def _forget(version: ModelVersion) -> None:
    """Let the run name another version that it made, or none."""
    if not version.run_id:
        return
    mlflow = client()
    try:
        run = mlflow.get_run(version.run_id)
    except MlflowException as error:
        if not model_versions.is_missing(error):
            raise
        return
    gone = model_versions.uri(version)
    if run.info.lifecycle_stage != "active" or run.data.tags.get(MODEL_TAG) != gone:
        return
    others = [
        model_versions.uri(other)
        for other in model_versions.of_run(version.run_id)
        if not model_versions.is_deleting(other)
    ]
    if others:
        mlflow.set_tag(version.run_id, MODEL_TAG, others[0])
    else:
        mlflow.delete_tag(version.run_id, MODEL_TAG)


def _remove_version(version: ModelVersion) -> None:
    try:
        client().delete_model_version(version.name, version.version)
    except MlflowException as error:
        if not model_versions.is_missing(error):
            raise


def _remove_empty(name: str) -> None:
    """Remove the model if it has no versions left; nobody can be making one meanwhile."""
    if model_versions.of_model(name):
        return
    try:
        client().delete_registered_model(name)
    except MlflowException as error:
        if not model_versions.is_missing(error):
            raise
