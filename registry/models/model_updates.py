"""Updates of models: names, descriptions, and how a version is served."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from shlex import quote

from infra.errors import ConflictError, NotFoundError
from infra.mlflow import MlflowException
from registry import catalogue, frameworks, history, names, training_templates
from registry.models import model_aliases, model_references, model_states, model_versions
from registry.models.model_aliases import NOUN
from registry.models.models import ServingSpec, check_files, set_tags
from registry.schedules import schedules
from registry.tracking import MODEL_TAG, client

_PARAMETER = "model.name"  # of the flows that register models


def update(
    name: str, *, number: int | None = None, serving: ServingSpec | None = None,
    description: str | None = None, new: str | None = None,
) -> None:  # fmt: skip
    """Update a model, or one of its versions, once everything is checked.

    Serving can only be completed, not changed; a version's files must fit it. A renamed model
    keeps its versions' numbers and its aliases' history.

    Args:
        name: The model's name.
        number: The version whose serving and description change; without it, the description
            is the model's.
        serving: How the version is served.
        description: Free text.
        new: The model's new name.

    Raises:
        NotFoundError: If there is no such model or version.
        ConflictError: With the code ``AlreadySet``, if the version has other values;
            ``NameTaken``; ``ModelNotActive``.
        BadInputError: If the name or a text is invalid, or the files do not fit.
    """
    if new is not None:
        names.check(new)
    if description is not None:
        names.check_description(description)
    with contextlib.ExitStack() as locks:
        for one in sorted({name, new or name}):  # always in one order: no deadlock
            locks.enter_context(catalogue.advisory_lock(model_versions.lock(one)))
        if new not in {None, name} and _is_renamed(name, new or ""):
            name = new or ""
        steps = []
        if serving is not None and number is not None:
            steps.append(_completion(name, number, serving))
        if description is not None:
            steps.append(_description(name, number, description))
        if new is not None:
            steps.append(_renaming(name, new))
        for step in steps:
            step()


def _is_renamed(name: str, new: str) -> bool:
    """Whether an interrupted rename has given the model its new name already."""
    try:
        model = model_versions.find_model(new)
    except NotFoundError:
        return False
    before = model.tags.get(model_versions.RENAMING_TAG, "").partition(" ")[2]
    if before == new or before != name:
        return False
    model_aliases.settle_rename(model)
    _rename_in_parameters(name, new)
    return True


# Each of these checks a change, and returns the step that makes it.


def _description(name: str, number: int | None, description: str) -> Callable[[], None]:
    if number is None:
        model_versions.find_model(name)
    else:
        model_versions.find(name, number)

    def step() -> None:
        if number is None:
            client().update_registered_model(name, description)
        else:
            client().update_model_version(name, str(number), description)
        history.record(NOUN, name, "describe", version=number, description=description)

    return step


def _completion(name: str, number: int, serving: ServingSpec) -> Callable[[], None]:
    version = model_versions.find(name, number)
    model_versions.check_active(version)
    has, tags = model_versions.serving_of(version.tags), serving.tags()
    changed = sorted(key for key in tags if has.get(key, tags[key]) != tags[key])
    if changed:
        what = ", ".join(key.removeprefix("modelyard.").replace("_", " ") for key in changed)
        raise ConflictError(
            f"{model_versions.uri(version)} has its {what} already.",
            "A version stays what it is: create the next one.",
            code="AlreadySet",
        )
    merged = {**has, **tags}
    framework = merged.get(model_versions.FRAMEWORK_TAG)
    if framework:
        source = model_versions.source_uri(version) or ""
        check_files(name, merged, source, outside=model_versions.is_outside(version))

    def step() -> None:
        set_tags(version, tags)
        history.record(NOUN, name, "complete", version=number, framework=framework)

    return step


def _renaming(name: str, new: str) -> Callable[[], None]:
    model = model_versions.find_model(name)
    if new == name:
        return lambda: None
    if model_states.DELETING_TAG in model.tags:
        raise ConflictError(
            f"The model {name!r} is being deleted.",
            f"Have the deletion finished: modelyard model delete {quote(name)}.",
            code="ModelNotActive",
        )
    with contextlib.suppress(NotFoundError):
        model_versions.find_model(new)
        raise _taken(new)
    for version in model_versions.of_model(name):
        model_versions.check_active(version)
        if model_versions.framework(version) == frameworks.PYTORCH:
            source = model_versions.source_uri(version) or ""
            tags = model_versions.serving_of(version.tags)
            check_files(new, tags, source, outside=model_versions.is_outside(version))

    def step() -> None:
        model_aliases.settle_rename(model)  # a former one
        # Before the name, so that a repeat still finds the versions under the old one.
        _retag_runs(name, name, new)
        model_aliases.announce_rename(name)
        try:
            client().rename_registered_model(name, new)
        except MlflowException as error:
            _retag_runs(name, new, name)
            if error.error_code == "RESOURCE_ALREADY_EXISTS":  # created outside Modelyard
                raise _taken(new) from error
            raise
        model_aliases.settle_rename(model_versions.find_model(new))
        _rename_in_parameters(name, new)

    return step


def _rename_in_parameters(before: str, after: str) -> None:
    """Have schedules and training templates that name the model name it as it is called now."""
    schedules.rename(_PARAMETER, before, after)
    following = model_references.following(before, after)
    schedules.rename(model_references.PARAMETER, before, after, following)
    training_templates.rename(_PARAMETER, before, after)


def _taken(name: str) -> ConflictError:
    return ConflictError(
        f"There is a model {name!r} already.",
        f"Choose another name; modelyard model show {quote(name)} shows that model.",
        code="NameTaken",
    )


def _retag_runs(name: str, before: str, after: str) -> None:
    """Change the model's name in the tags of the runs that made its versions."""
    mlflow = client()
    for version in model_versions.of_model(name):
        if not version.run_id:
            continue
        run = mlflow.get_run(version.run_id)
        active = run.info.lifecycle_stage == "active"
        if active and run.data.tags.get(MODEL_TAG) == f"models:/{before}/{version.version}":
            mlflow.set_tag(version.run_id, MODEL_TAG, f"models:/{after}/{version.version}")
