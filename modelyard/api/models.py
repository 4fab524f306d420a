"""Registered models, as ``modelyard model``."""

from __future__ import annotations

from collections.abc import Mapping

from flows.connection import connected
from infra import storage
from infra.errors import BadInputError
from modelyard.api.verbs import noun, verb
from registry import deletion
from registry.models import (
    model_aliases,
    model_creation,
    model_lineage,
    model_updates,
    models,
)
from registry.models.model_views import ModelVersionView, ModelView
from registry.models.models import ServingSpec
from registry.views import JsonObject
from tasks.evaluation import evaluation_records


def _create(
    name: str = "",
    *,
    run: str = "",
    trial: int | None = None,
    uri: str = "",
    framework: str = "",
    framework_version: str = "",
    description: str = "",
    parameters: Mapping[str, object] | None = None,
) -> ModelVersionView:
    """Create a model, or its next version, from a training, a tuning or files of your own.

    Args:
        name: The model's name; with ``run``, the run's if left out.
        run: The training or tuning to create it from, by id or name.
        trial: With a tuning: another trial than its best.
        uri: URI of the model's files.
        framework: The framework that serves it; a run of a provided algorithm knows its own.
        framework_version: Its version.
        description: Description of this version.
        parameters: Strings, numbers and booleans that are passed on when the model is served.

    Raises:
        BadInputError: With a code of its own for each fault; nothing is created then.
        NotFoundError: If there is no such run or trial, or it has no model.
        ConflictError: If the run is not complete.
    """
    if trial is not None and not run:
        raise BadInputError(
            "A trial belongs to a tuning.", "Give --run as well.", code="TrialUnused"
        )
    if run and uri:
        raise BadInputError("A model is created from a run or from files.", "Give --run or --uri.")
    if not run and not name:
        raise BadInputError("The model has no name.", "Give its name.", code="NameInvalid")
    serving = ServingSpec(framework, framework_version, parameters)
    with connected():
        if run:
            return model_creation.from_run(
                run, serving, name=name, description=description, trial=trial
            )
        return models.create(name, serving, description=description, uri=storage.absolute(uri))


def _update(
    name: str,
    *,
    new_name: str | None = None,
    description: str | None = None,
    version: int | None = None,
    framework: str = "",
    framework_version: str = "",
    parameters: Mapping[str, object] | None = None,
) -> ModelView:
    """Rename or describe a model, or complete how a version is served.

    Args:
        name: The model's name.
        new_name: A new name.
        description: A new description: the model's, or the ``version``'s.
        version: A version, by its number.
        framework: The framework that serves the version.
        framework_version: The framework's version.
        parameters: As for ``create``.

    Raises:
        BadInputError: If nothing is given, or a value is invalid.
        NotFoundError: If there is no such model or version.
        ConflictError: With the codes ``AlreadySet``, ``NameTaken`` and ``ModelNotActive``.
    """
    has_serving = bool(framework or framework_version or parameters)
    if new_name is None and description is None and not has_serving:
        raise BadInputError(
            "There is nothing to change.",
            "Give --name or --description; or --version with --framework or -p.",
        )
    if has_serving and version is None:
        raise BadInputError("Serving is set for a version.", "Give --version.")
    serving = ServingSpec(framework, framework_version, parameters) if has_serving else None
    with connected():
        model_updates.update(
            name, number=version, serving=serving, description=description, new=new_name
        )
        return models.show(new_name or name)


def _delete(name: str, *, version: int | None = None) -> JsonObject:
    """Delete a model, or one of its versions, with the files that Modelyard wrote.

    Raises:
        ConflictError: With a code of its own for what stands in the way.
    """
    return deletion.delete("model", name, version=version)


@noun("models")
class ModelVerbs:
    """Registered models."""

    create = staticmethod(_create)
    list = staticmethod(verb(models.list_all))
    show = staticmethod(verb(model_lineage.show))
    update = staticmethod(_update)
    alias = staticmethod(verb(model_aliases.point))
    promote = staticmethod(verb(evaluation_records.promote))
    unalias = staticmethod(verb(model_aliases.drop))
    aliases = staticmethod(verb(model_aliases.moves))
    delete = staticmethod(verb(_delete))
