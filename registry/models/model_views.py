"""Views of models and their versions, made of MLflow's entities."""

from __future__ import annotations

from collections.abc import Mapping
from operator import not_

from pydantic import Field

from infra.mlflow import MlflowException, ModelVersion
from registry.models import model_aliases, model_states, model_versions
from registry.models.model_parameters import Scalar
from registry.tracking import FLOW_RUN_TAG, client, paged
from registry.views import JsonObject, View


class ModelVersionView(View):
    """A version of a model.

    Attributes:
        version: Its number.
        uri: ``models:/NAME/VERSION``.
        state: The reference's word for its state.
        description: Its description.
        framework: The framework's key; None if it was not given.
        framework_version: The framework's version as given; empty without one.
        source_uri: Where its files are; None where they are on a hub.
        parameters: Passed on when the model is served.
        aliases: Aliases that point to it, sorted.
        run_name: Name of the run that made it; None if MLflow has no such run.
        flow_run_id: The flow run that made it.
        mlflow_run_id: The MLflow run that made it.
        created: When it was created, in milliseconds since 1970.
        deletion_error: Why its deletion failed.
    """

    version: int
    uri: str
    state: str
    description: str
    framework: str | None
    framework_version: str
    source_uri: str | None
    parameters: dict[str, Scalar]
    aliases: list[str]
    run_name: str | None
    flow_run_id: str | None
    mlflow_run_id: str | None
    created: int | None
    deletion_error: str | None


class ModelSummaryView(View):
    """A model, as lists show it: its name, and facts of its newest version.

    Attributes:
        updated: When MLflow last changed it, in milliseconds since 1970.
    """

    name: str
    description: str
    state: str
    framework: str | None
    framework_version: str | None
    newest_version: int | None
    aliases: dict[str, int]
    source_uri: str | None
    flow_run_id: str | None
    updated: int | None


class ModelView(View):
    """A model with its versions.

    Attributes:
        name: Its name.
        description: Its description.
        state: The state of its newest version.
        aliases: Aliases with the versions that they point to.
        aliases_changed_outside: Aliases that were moved in MLflow itself.
        versions: Its versions, newest first.
        history: What users did to it, also under former names.
        notices: What is amiss, such as a run that is gone.
    """

    name: str
    description: str
    state: str
    aliases: dict[str, int]
    aliases_changed_outside: list[JsonObject]
    versions: list[ModelVersionView]
    history: list[JsonObject]
    notices: list[str] = Field(default=[], exclude_if=not_)


def view(
    version: ModelVersion, aliases: Mapping[str, int], run_name: str | None = None
) -> ModelVersionView:
    """Return the view of a version.

    Args:
        version: The version in MLflow.
        aliases: The model's aliases.
        run_name: Name of the run that made it.
    """
    number = int(version.version)
    return ModelVersionView(
        version=number,
        uri=model_versions.uri(version),
        state=model_states.state(version),
        description=version.description or "",
        framework=model_versions.framework(version),
        framework_version=version.tags.get(model_versions.FRAMEWORK_VERSION_TAG, ""),
        source_uri=model_versions.source_uri(version),
        parameters=model_versions.parameters_of(version.tags),
        aliases=sorted(alias for alias, target in aliases.items() if target == number),
        run_name=run_name,
        flow_run_id=version.tags.get(FLOW_RUN_TAG),
        mlflow_run_id=version.run_id or None,
        created=version.creation_timestamp,
        deletion_error=version.tags.get(model_states.DELETION_ERROR_TAG),
    )


def list_all() -> list[ModelSummaryView]:
    """List every registered model with its newest version, by name."""
    mlflow = client()
    found: list[ModelSummaryView] = []
    for model in paged(lambda token: mlflow.search_registered_models(page_token=token)):
        newest = model_states.newest_version(model)
        aliases = model_aliases.actual(model.aliases)
        facts = view(newest, aliases) if newest else None
        found.append(
            ModelSummaryView(
                name=model.name,
                description=model.description or (facts.description if facts else ""),
                state=model_states.model_state(model, newest),
                framework=facts and facts.framework,
                framework_version=facts and facts.framework_version,
                newest_version=facts and facts.version,
                aliases=aliases,
                source_uri=facts and facts.source_uri,
                flow_run_id=facts and facts.flow_run_id,
                updated=model.last_updated_timestamp,
            )
        )
    return sorted(found, key=lambda model: model.name)


def show(name: str) -> ModelView:
    """Return a model with all its versions and its history.

    Raises:
        NotFoundError: If there is no such model.
    """
    model = model_versions.find_model(name)
    versions = model_versions.of_model(name)
    aliases = model_aliases.actual(model.aliases)
    run_ids = {version.run_id for version in versions if version.run_id}
    run_names = {run_id: _run_name(run_id) for run_id in run_ids}
    return ModelView(
        name=model.name,
        description=model.description or "",
        state=model_states.model_state(model, next(iter(versions), None)),
        aliases=aliases,
        aliases_changed_outside=model_aliases.changed_outside(name, aliases),
        versions=[
            view(version, aliases, run_names.get(version.run_id or "")) for version in versions
        ],
        history=model_aliases.history_of(model),
    )


def _run_name(run_id: str) -> str | None:
    """Return the run's name now; None if MLflow has no such run, or has deleted it."""
    try:
        found = client().get_run(run_id).info
        return str(found.run_name) if found.lifecycle_stage == "active" else None
    except MlflowException as error:
        if not error.is_missing:
            raise
        return None
