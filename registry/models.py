"""Models: MLflow's registry, with the lineage of what Modelyard made."""

from __future__ import annotations

from typing import Any

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from infra.errors import NotFoundError
from registry.tracking import FLOW_RUN_TAG, MODEL_TAG, client


def register(name: str, run_id: str, source: str, flow_run_id: str) -> str:
    """Make the artifacts at ``source`` the next version of the model ``name``; its URI.

    A run makes one version of a model: registering again returns the one that is there.
    """
    mlflow = client()
    try:
        mlflow.get_registered_model(name)
    except MlflowException:
        mlflow.create_registered_model(name)
    versions = mlflow.search_model_versions(f"run_id = '{run_id}'")
    version = next((found for found in versions if found.name == name), None)
    if version is None:
        version = mlflow.create_model_version(
            name, source, run_id=run_id, tags={FLOW_RUN_TAG: flow_run_id}
        )
    uri = f"models:/{name}/{version.version}"
    mlflow.set_tag(run_id, MODEL_TAG, uri)
    return uri


def made_by(run_id: str) -> list[str]:
    """URIs of the model versions that the MLflow run ``run_id`` made."""
    versions = client().search_model_versions(f"run_id = '{run_id}'")
    return [f"models:/{version.name}/{version.version}" for version in versions]


def _shown(version: ModelVersion) -> dict[str, Any]:
    return {
        "version": int(version.version),
        "uri": f"models:/{version.name}/{version.version}",
        "created": version.creation_timestamp,
        "mlflow_run_id": version.run_id or None,
        "flow_run_id": version.tags.get(FLOW_RUN_TAG),
        "source": version.source,
        "aliases": list(version.aliases or ()),
        "description": version.description or "",
    }


def list_all() -> list[dict[str, Any]]:
    """Every registered model with its newest version, by name."""
    mlflow = client()
    found: list[dict[str, Any]] = []
    token: str | None = None
    while True:
        page = mlflow.search_registered_models(page_token=token)
        for model in page:
            newest = max((int(version.version) for version in model.latest_versions), default=None)
            found.append({"name": model.name, "newest_version": newest,
                          "updated": model.last_updated_timestamp,
                          "aliases": dict(model.aliases or {})})  # fmt: skip
        token = page.token
        if not token:
            return sorted(found, key=lambda model: str(model["name"]))


def show(name: str) -> dict[str, Any]:
    """A model with all its versions, newest first.

    Raises:
        NotFoundError: If there is no such model.
    """
    mlflow = client()
    try:
        model = mlflow.get_registered_model(name)
    except MlflowException as error:
        raise NotFoundError(
            f"There is no model {name!r}.", "modelyard model list shows those there are."
        ) from error
    versions = mlflow.search_model_versions(f'name = "{name}"')
    return {
        "name": model.name,
        "description": model.description or "",
        "aliases": dict(model.aliases or {}),
        "versions": [
            _shown(version) for version in sorted(versions, key=lambda v: -int(v.version))
        ],
    }
