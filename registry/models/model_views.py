"""What people see of models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from registry import history
from registry.models import model_aliases, model_versions
from registry.models.model_aliases import NOUN
from registry.tracking import FLOW_RUN_TAG, client, paged


def shown(
    version: ModelVersion, aliases: Mapping[str, int], run_name: str | None = None
) -> dict[str, Any]:
    """The facts of one version, with those of its model's aliases that point to it."""
    framework = model_versions.framework(version)
    return {
        "version": int(version.version),
        "uri": model_versions.uri(version),
        "state": model_versions.state(version),
        "description": version.description or "",
        "framework": framework,
        "framework_version": version.tags.get(model_versions.FRAMEWORK_VERSION_TAG, ""),
        "source_uri": model_versions.source_uri(version),
        "parameters": model_versions.parameters_of(version.tags),
        "aliases": sorted(
            alias for alias, number in aliases.items() if number == int(version.version)
        ),
        "run_name": run_name,
        "flow_run_id": version.tags.get(FLOW_RUN_TAG),
        "mlflow_run_id": version.run_id or None,
        "created": version.creation_timestamp,
        "deletion_error": version.tags.get(model_versions.DELETION_ERROR_TAG),
    }


def list_all() -> list[dict[str, Any]]:
    """Every registered model with the facts of its newest version, by name."""
    mlflow = client()
    found: list[dict[str, Any]] = []
    for model in paged(lambda token: mlflow.search_registered_models(page_token=token)):
        newest = max(model.latest_versions, key=lambda version: int(version.version), default=None)
        aliases = model_aliases.actual(model.aliases)
        facts = shown(newest, aliases) if newest else {}
        found.append({
            "name": model.name,
            "description": model.description or facts.get("description", ""),
            "state": model_versions.model_state(model, newest),
            "framework": facts.get("framework"),
            "framework_version": facts.get("framework_version"),
            "newest_version": facts.get("version"),
            "aliases": aliases,
            "source_uri": facts.get("source_uri"),
            "flow_run_id": facts.get("flow_run_id"),
            "updated": model.last_updated_timestamp,
        })  # fmt: skip
    return sorted(found, key=lambda model: str(model["name"]))


def show(name: str) -> dict[str, Any]:
    """A model with all its versions, newest first, and what was done to it.

    Raises:
        NotFoundError: If there is no such model.
    """
    model = model_versions.find_model(name)
    versions = model_versions.of_model(name)
    aliases = model_aliases.actual(model.aliases)
    run_ids = {version.run_id for version in versions if version.run_id}
    run_names = {run_id: _run_name(run_id) for run_id in run_ids}
    return {
        "name": model.name,
        "description": model.description or "",
        "state": model_versions.model_state(model, next(iter(versions), None)),
        "aliases": aliases,
        "aliases_changed_outside": model_aliases.changed_outside(name, aliases),
        "versions": [
            shown(version, aliases, run_names.get(version.run_id or "")) for version in versions
        ],
        "history": history.of(NOUN, name),
    }


def _run_name(run_id: str) -> str | None:
    """The run's name now, or None if MLflow has no such run."""
    try:
        return str(client().get_run(run_id).info.run_name)
    except MlflowException as error:
        if not model_versions.is_missing(error):
            raise
        return None
