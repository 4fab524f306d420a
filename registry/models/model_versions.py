"""Versions of models in MLflow's registry, and what Modelyard's tags on them mean."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from infra.errors import ConflictError, NotFoundError
from registry.models.model_parameters import Scalar
from registry.runs import statuses
from registry.tracking import client, paged

FRAMEWORK_TAG = "modelyard.framework"
FRAMEWORK_VERSION_TAG = "modelyard.framework_version"
PARAMETERS_TAG = "modelyard.parameters"
SOURCE_TAG = "modelyard.source_uri"
DELETING_TAG = "modelyard.deleting"
DELETION_ERROR_TAG = "modelyard.deletion_error"
RENAMING_TAG = "modelyard.renaming"  # on a model: a token, and the name that it is to lose

# Values of the tag of a deletion: a claim can be given back, what is going can not.
CLAIMED, GOING = "claimed", "going"

# What MLflow has as the source of a version whose bytes are not in MLflow: it takes neither
# paths nor every URI. The tag has the URI, if there is one.
OUTSIDE = "modelyard:/outside"

_RUNS_AT_ONCE = 100  # their ids are part of an address, which a server takes up to some length

ACTIVE = "ACTIVE"
DELETE_IN_PROGRESS = "DELETE IN PROGRESS"
DELETE_FAILED = "DELETE FAILED"
_BY_STATUS = {
    "PENDING_REGISTRATION": statuses.CREATE_IN_PROGRESS,
    "FAILED_REGISTRATION": statuses.CREATE_FAILED,
    "READY": ACTIVE,
}


def is_missing(error: MlflowException) -> bool:
    """Whether the error says that a thing is not there."""
    return bool(error.error_code == "RESOURCE_DOES_NOT_EXIST")


def _cannot_be(error: MlflowException) -> bool:
    """Whether it is not there, or has a name that no model can have, such as ``..a``."""
    return is_missing(error) or error.error_code == "INVALID_PARAMETER_VALUE"


def uri(version: ModelVersion) -> str:
    """``models:/NAME/VERSION``."""
    return f"models:/{version.name}/{version.version}"


def lock(name: str) -> str:
    """What changes of the model ``name`` are made alone under: see ``catalogue.advisory_lock``."""
    return f"model:{name}"


def lock_of_run(run_id: str) -> str:
    """The same for what becomes of the model that a run has left; taken after the other."""
    return f"model of run:{run_id}"


def find_model(name: str) -> RegisteredModel:
    """The model called ``name``.

    Raises:
        NotFoundError: If there is none.
    """
    try:
        return client().get_registered_model(name)
    except MlflowException as error:
        if not _cannot_be(error):
            raise
        raise NotFoundError(
            f"There is no model {name!r}.", "modelyard model list shows those there are."
        ) from error


def find(name: str, number: int) -> ModelVersion:
    """One version of a model.

    Raises:
        NotFoundError: If there is no such version.
    """
    try:
        return client().get_model_version(name, str(number))
    except MlflowException as error:
        if not _cannot_be(error):
            raise
        raise NotFoundError(
            f"There is no version {number} of a model {name!r}.",
            f"modelyard model show {name} shows those there are.",
        ) from error


def of_model(name: str) -> list[ModelVersion]:
    """All versions of a model, newest first."""
    return sorted(_search(f'name = "{name}"'), key=lambda version: -int(version.version))


def of_run(run_id: str) -> list[ModelVersion]:
    """Versions of every model that the MLflow run ``run_id`` made."""
    return _search(f"run_id = '{run_id}'")


def of_runs(run_ids: Iterable[str]) -> list[ModelVersion]:
    """The same of any of the runs; it asks for many at once."""
    asked = list(run_ids)
    found: list[ModelVersion] = []
    for first in range(0, len(asked), _RUNS_AT_ONCE):
        some = ", ".join(f"'{run_id}'" for run_id in asked[first : first + _RUNS_AT_ONCE])
        found += _search(f"run_id IN ({some})")
    return found


def _search(wanted: str) -> list[ModelVersion]:
    mlflow = client()
    return list(paged(lambda token: mlflow.search_model_versions(wanted, page_token=token)))


def is_deleting(version: ModelVersion) -> bool:
    """Whether somebody deletes it, or is about to."""
    return DELETING_TAG in version.tags


def is_going(version: ModelVersion) -> bool:
    """Whether its deletion has begun, and can only be ended."""
    return version.tags.get(DELETING_TAG) == GOING


def state(version: ModelVersion) -> str:
    """The reference's word for it, derived from MLflow's status and the tags of a deletion."""
    if DELETION_ERROR_TAG in version.tags:
        return DELETE_FAILED
    if is_deleting(version):
        return DELETE_IN_PROGRESS
    return _BY_STATUS[version.status]


def model_state(model: RegisteredModel, newest: ModelVersion | None) -> str:
    """The word for a model: its newest version's; one without versions is only asked for."""
    if newest is not None:
        return state(newest)
    return DELETE_IN_PROGRESS if DELETING_TAG in model.tags else statuses.CREATE_REQUESTED


def check_active(version: ModelVersion) -> None:
    """Refuse a version that cannot be used.

    Raises:
        ConflictError: With the code ``ModelNotActive``.
    """
    word = state(version)
    if word != ACTIVE:
        raise ConflictError(
            f"{uri(version)} is {word}.",
            "Choose another version.",
            code="ModelNotActive",
        )


def framework(version: ModelVersion) -> str | None:
    """The key of its framework, or None where nobody has said it."""
    return version.tags.get(FRAMEWORK_TAG) or None


def parameters_of(tags: Mapping[str, str]) -> dict[str, Scalar]:
    """The parameters, as they were written, that the tags of a version hold."""
    found: dict[str, Scalar] = json.loads(tags.get(PARAMETERS_TAG) or "{}")
    return found


def source_uri(version: ModelVersion) -> str | None:
    """Where its bytes are; None where they are on a hub, by the id in its parameters."""
    if SOURCE_TAG in version.tags or version.source == OUTSIDE:
        return version.tags.get(SOURCE_TAG)
    source = version.source or ""
    if source.startswith("models:/"):  # another version's or a logged model's
        mlflow = client()
        return str(mlflow.get_model_version_download_uri(version.name, version.version))
    return source


def is_outside(version: ModelVersion) -> bool:
    """Whether its bytes are somebody's own, and not MLflow's."""
    return bool(version.source == OUTSIDE)


def making_tags(
    framework: str | None, framework_version: str, given: dict[str, Scalar]
) -> dict[str, str]:
    """The tags that hold what a version is served as; what is not said has none."""
    tags = {
        FRAMEWORK_TAG: framework or "",
        FRAMEWORK_VERSION_TAG: framework_version,
        PARAMETERS_TAG: json.dumps(given, ensure_ascii=False) if given else "",
    }
    return {key: value for key, value in tags.items() if value}


def making_of(tags: Mapping[str, str]) -> dict[str, str]:
    """Those tags among all of a version's."""
    kept = (FRAMEWORK_TAG, FRAMEWORK_VERSION_TAG, PARAMETERS_TAG)
    return {key: tags[key] for key in kept if tags.get(key)}
