"""Model versions in MLflow's registry, and the meaning of Modelyard's tags on them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from infra.errors import ConflictError, NotFoundError
from infra.mlflow import MlflowException, ModelVersion, RegisteredModel
from registry.models.model_parameters import Scalar
from registry.models.model_states import DELETING_TAG, ModelState, state
from registry.tracking import client, paged

FRAMEWORK_TAG = "modelyard.framework"
FRAMEWORK_VERSION_TAG = "modelyard.framework_version"
PARAMETERS_TAG = "modelyard.parameters"
SOURCE_TAG = "modelyard.source_uri"
RENAMING_TAG = "modelyard.renaming"  # on a model: a token, and the name that it is to lose

# Values of the deletion tag: a claim can be released, a removal that has begun cannot.
CLAIMED, GOING = "claimed", "going"

# MLflow's source of a version whose files are not in MLflow, because it takes neither paths nor
# every URI. The tag has the URI, if there is one.
OUTSIDE = "modelyard:/outside"

_RUNS_AT_ONCE = 100  # their ids are part of a URL, whose length servers limit


def _cannot_be(error: MlflowException) -> bool:
    """Whether it does not exist, or has a name that MLflow refuses, such as ``..a``."""
    return error.is_missing or error.error_code == "INVALID_PARAMETER_VALUE"


def uri(version: ModelVersion) -> str:
    """``models:/NAME/VERSION``."""
    return f"models:/{version.name}/{version.version}"


def lock(name: str) -> str:
    """Return the name of the advisory lock for changes of the model ``name``."""
    return f"model:{name}"


def lock_of_run(run_id: str) -> str:
    """Return the name of the lock for models made of a run; taken after the model's own."""
    return f"model of run:{run_id}"


def find_model(name: str) -> RegisteredModel:
    """Return the model called ``name``.

    Raises:
        NotFoundError: If there is none.
    """
    try:
        return client().get_registered_model(name)
    except MlflowException as error:
        if not _cannot_be(error):
            raise
        raise NotFoundError(
            f"There is no model {name!r}.", "modelyard model list lists the existing ones."
        ) from error


def find(name: str, number: int) -> ModelVersion:
    """Return one version of a model.

    Raises:
        NotFoundError: If there is no such model, or no such version of it.
    """
    try:
        return client().get_model_version(name, str(number))
    except MlflowException as error:
        if not _cannot_be(error):
            raise
        find_model(name)  # which has another hint if there is none
        raise NotFoundError(
            f"There is no version {number} of a model {name!r}.",
            f"modelyard model show {name} lists the existing ones.",
        ) from error


def of_model(name: str) -> list[ModelVersion]:
    """List all versions of a model, newest first."""
    return sorted(_search(f'name = "{name}"'), key=lambda version: -int(version.version))


def of_run(run_id: str) -> list[ModelVersion]:
    """List the versions of every model that were made from an MLflow run."""
    return _search(f"run_id = '{run_id}'")


def of_runs(run_ids: Iterable[str]) -> list[ModelVersion]:
    """List the versions that were made from any of the runs, with few requests."""
    asked = list(run_ids)
    found: list[ModelVersion] = []
    for first in range(0, len(asked), _RUNS_AT_ONCE):
        some = ", ".join(f"'{run_id}'" for run_id in asked[first : first + _RUNS_AT_ONCE])
        found += _search(f"run_id IN ({some})")
    return found


def _search(wanted: str) -> list[ModelVersion]:
    mlflow = client()
    return list(paged(lambda token: mlflow.search_model_versions(wanted, page_token=token)))


def is_going(version: ModelVersion) -> bool:
    """Whether its removal has begun, which cannot be undone."""
    return version.tags.get(DELETING_TAG) == GOING


def check_active(version: ModelVersion) -> None:
    """Refuse a version that is not ACTIVE.

    Raises:
        ConflictError: With the code ``ModelNotActive``.
    """
    word = state(version)
    if word != ModelState.ACTIVE:
        raise ConflictError(
            f"{uri(version)} is {word}.",
            "Choose another version.",
            code="ModelNotActive",
        )


def framework(version: ModelVersion) -> str | None:
    """Return the key of its framework; None if it was not given."""
    return version.tags.get(FRAMEWORK_TAG) or None


def parameters_of(tags: Mapping[str, str]) -> dict[str, Scalar]:
    """Return the parameters in a version's tags, as given."""
    found: dict[str, Scalar] = json.loads(tags.get(PARAMETERS_TAG) or "{}")
    return found


def source_uri(version: ModelVersion) -> str | None:
    """Return the URI of its files; None if they are on a hub, by the id in its parameters."""
    if SOURCE_TAG in version.tags or version.source == OUTSIDE:
        return version.tags.get(SOURCE_TAG)
    source = version.source or ""
    if source.startswith("models:/"):  # another version's or a logged model's
        mlflow = client()
        return str(mlflow.get_model_version_download_uri(version.name, version.version))
    return source


def is_outside(version: ModelVersion) -> bool:
    """Whether its files are outside MLflow, and therefore never deleted."""
    return bool(version.source == OUTSIDE)


def serving_tags(
    framework: str | None, framework_version: str, given: dict[str, Scalar]
) -> dict[str, str]:
    """Return the tags for how a version is served; what is not given has no tag."""
    tags = {
        FRAMEWORK_TAG: framework or "",
        FRAMEWORK_VERSION_TAG: framework_version,
        PARAMETERS_TAG: json.dumps(given, ensure_ascii=False) if given else "",
    }
    return {key: value for key, value in tags.items() if value}


def serving_of(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags for how a version is served among all of its tags."""
    kept = (FRAMEWORK_TAG, FRAMEWORK_VERSION_TAG, PARAMETERS_TAG)
    return {key: tags[key] for key in kept if tags.get(key)}
