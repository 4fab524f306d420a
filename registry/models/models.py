"""Models: MLflow's registry, with the lineage of what Modelyard made.

MLflow owns models, versions and aliases; nothing of them is kept elsewhere. What it has no field
for (framework, parameters, where somebody's own files are) is in tags of the version.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from infra.errors import BadInputError, ConflictError, NotFoundError
from registry import catalogue, frameworks, history, names
from registry.frameworks import huggingface
from registry.models import model_aliases, model_artifacts, model_parameters, model_versions
from registry.models.model_parameters import Scalar
from registry.models.model_views import list_all, show, shown
from registry.tracking import FLOW_RUN_TAG, MODEL_TAG, client

__all__ = [
    "Making", "Origin", "Resolved", "check_files", "create", "fetch", "list_all", "made_by",
    "made_by_any", "register", "resolve", "set_tags", "show",
]  # fmt: skip

NOUN = model_aliases.NOUN
_LONGEST_FRAMEWORK_VERSION = 100


@dataclass(frozen=True)
class Resolved:
    """A version of a model, found by its URI.

    Attributes:
        name: The model's name.
        version: The version's number.
        uri: ``models:/NAME/VERSION``, also where an alias was asked for.
        source_uri: Where its bytes are; None where ``model_id`` among the parameters says it.
        framework: Its key, or None where nobody has said it.
        framework_version: As it was written, or "".
        parameters: What serving passes on: see ``registry.models.model_parameters``.
        description: Free text.
        mlflow_run_id: The MLflow run that made it, or None.
        flow_run_id: The flow run that made it, or None.
        outside: Whether the bytes are somebody's own, and not MLflow's.
    """

    name: str
    version: int
    uri: str
    source_uri: str | None
    framework: str | None
    framework_version: str
    parameters: Mapping[str, Scalar]
    description: str
    mlflow_run_id: str | None
    flow_run_id: str | None
    outside: bool


@dataclass(frozen=True)
class Origin:
    """The run that a model is made from: its two ids, and where its artifacts are."""

    run_id: str
    flow_run_id: str
    source: str


@dataclass(frozen=True)
class Making:
    """What a version is served as.

    Attributes:
        framework: Its name, in any spelling; "" if it is not said yet.
        framework_version: Free text.
        parameters: Texts, numbers and truth values by name.
    """

    framework: str = ""
    framework_version: str = ""
    parameters: Mapping[str, object] | None = None

    def tags(self) -> dict[str, str]:
        """The version's tags that hold it.

        Raises:
            BadInputError: If it is wrong.
        """
        key = frameworks.find(self.framework).key if self.framework else None
        given = model_parameters.check(self.parameters or {})
        version = self.framework_version
        if len(version) > _LONGEST_FRAMEWORK_VERSION or not version.isprintable():
            raise BadInputError(
                f"The framework's version {version[:60]!r} cannot be used.",
                f"Give at most {_LONGEST_FRAMEWORK_VERSION} printable characters.",
                code="FrameworkVersionInvalid",
            )
        return model_versions.making_tags(key, version, given)


def register(
    name: str, run_id: str, source: str, flow_run_id: str, *,
    framework: str = "", framework_version: str = "",
) -> str:  # fmt: skip
    """Make the artifacts at ``source`` the next version of the model ``name``; its URI.

    A run makes one version of a model: registering again returns the one that is there, also
    where the model was renamed meanwhile.
    """
    tags = Making(framework, framework_version).tags()
    origin = Origin(run_id, flow_run_id, source)
    with _alone(name, origin):
        mine = [found for found in _made_alive(run_id) if found.tags.get(FLOW_RUN_TAG)]
        version = mine[0] if mine else _next(name, tags, "", origin)
    client().set_tag(run_id, MODEL_TAG, model_versions.uri(version))
    return model_versions.uri(version)


def create(
    name: str, making: Making, *, description: str = "", uri: str = "",
    origin: Origin | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Make the next version of the model ``name``, after a look at its files; the version.

    From one run, the same model is made once: asked for again, it is the version that is there,
    and a framework that this one lacks is added to it.

    Args:
        name: The model's name, which may be there already.
        making: What it is served as.
        description: Of the version.
        uri: Somebody's own files, which are read, and never copied or deleted.
        origin: The run that it is made from.

    Raises:
        BadInputError: With a code of its own for each fault; nothing was made then.
    """
    names.check(name)
    names.check_description(description)
    tags = making.tags()
    if model_versions.FRAMEWORK_TAG not in tags:
        raise BadInputError(
            "There is no framework.",
            f"Give one of {', '.join(frameworks.FRAMEWORKS)}.",
            code="FrameworkMissing",
        )
    check_files(name, tags, origin.source if origin else uri, outside=origin is None)
    if origin is None and uri:
        tags[model_versions.SOURCE_TAG] = uri
    with _alone(name, origin):
        if origin is not None:
            _check_there(origin)
        version = _there_already(name, tags, description, origin) or _next(
            name, tags, description, origin
        )
    if origin is not None:
        client().set_tag(origin.run_id, MODEL_TAG, model_versions.uri(version))
    aliases = model_aliases.actual(model_versions.find_model(name).aliases)
    return shown(version, aliases)


@contextlib.contextmanager
def _alone(name: str, origin: Origin | None) -> Iterator[None]:
    """Nobody else changes the model, or deletes what the run has left."""
    with contextlib.ExitStack() as locks:
        locks.enter_context(catalogue.advisory_lock(model_versions.lock(name)))
        if origin is not None:
            lock = model_versions.lock_of_run(origin.run_id)
            locks.enter_context(catalogue.advisory_lock(lock))
        yield


def _check_there(origin: Origin) -> None:
    """Refuse what somebody has deleted, or begun to, since its files were looked at.

    Raises:
        ConflictError: With the code ``ModelNotActive``.
    """
    going = [
        version
        for version in model_versions.of_run(origin.run_id)
        if version.source == origin.source and model_versions.is_going(version)
    ]
    if going:
        raise ConflictError(
            f"{model_versions.uri(going[0])} is being deleted, and these are its files.",
            "Run the training again: modelyard runs copy.",
            code="ModelNotActive",
        )
    next(iter(model_artifacts.artifacts(origin.source).entries()))


def check_files(name: str, tags: Mapping[str, str], source: str, *, outside: bool) -> None:
    """Refuse files that do not fit what the tags of a version say it is served as."""
    framework = tags[model_versions.FRAMEWORK_TAG]
    by_id = False
    if framework == frameworks.HUGGINGFACE:
        parameters = model_versions.parameters_of(tags)
        huggingface.check_parameters(parameters)
        by_id = huggingface.model_id(parameters) is not None
    if not source and not by_id:
        raise BadInputError(
            "There are no files to make a model of.",
            "Give a run that left a model, or the URI of its files"
            + ("; or the parameter model_id." if framework == frameworks.HUGGINGFACE else "."),
            code="SourceMissing",
        )
    if source and by_id:
        raise BadInputError(
            "There are files, and a model_id as well.",
            "Give one of the two.",
            code="SourceAmbiguous",
        )
    if source:
        frameworks.check(framework, model_artifacts.files(source, outside=outside), name)


def _made_alive(run_id: str) -> list[ModelVersion]:
    made = model_versions.of_run(run_id)
    return [version for version in made if not model_versions.is_deleting(version)]


def _there_already(
    name: str, tags: Mapping[str, str], description: str, origin: Origin | None
) -> ModelVersion | None:
    """The version that was made of the same run with the same facts, which are completed."""
    if origin is None:
        return None
    for version in _made_alive(origin.run_id):
        has = model_versions.making_of(version.tags)
        same = version.name == name and version.source == origin.source
        if same and (has == tags or model_versions.FRAMEWORK_TAG not in has):
            set_tags(version, tags)
            if description and not version.description:
                client().update_model_version(name, version.version, description)
            return model_versions.find(name, int(version.version))
    return None


def set_tags(version: ModelVersion, tags: Mapping[str, str]) -> None:
    """Set the making of a version; its framework last, which says that the rest is there."""
    mlflow = client()
    for key in sorted(tags, key=lambda key: key == model_versions.FRAMEWORK_TAG):
        if version.tags.get(key) != tags[key]:
            mlflow.set_model_version_tag(version.name, version.version, key, tags[key])


def _next(
    name: str, tags: Mapping[str, str], description: str, origin: Origin | None
) -> ModelVersion:
    """A new version; the model is made where there is none."""
    mlflow = client()
    try:
        model = mlflow.get_registered_model(name)
        if model_versions.DELETING_TAG in model.tags:  # of its former versions
            mlflow.delete_registered_model_tag(name, model_versions.DELETING_TAG)
    except MlflowException as error:
        if not model_versions.is_missing(error):
            raise
        mlflow.create_registered_model(name)
    version = mlflow.create_model_version(
        name,
        origin.source if origin else model_versions.OUTSIDE,
        run_id=origin.run_id if origin else None,
        tags={**tags, **({FLOW_RUN_TAG: origin.flow_run_id} if origin else {})},
        description=description or None,
        await_creation_for=0,  # until then it is CREATE IN PROGRESS
    )
    run = origin.flow_run_id if origin else None
    history.record(NOUN, name, "create", version=int(version.version), run=run)
    return version


def made_by(run_id: str) -> list[str]:
    """URIs of the model versions that the MLflow run ``run_id`` made."""
    return made_by_any([run_id])


def made_by_any(run_ids: Iterable[str]) -> list[str]:
    """URIs of the model versions that any of the MLflow runs made."""
    return [model_versions.uri(version) for version in model_versions.of_runs(run_ids)]


def resolve(model_uri: str) -> Resolved:
    """The version that ``models:/NAME/VERSION`` or ``models:/NAME@ALIAS`` means now.

    Raises:
        BadInputError: With the code ``ModelUriInvalid``.
        NotFoundError: If there is no such version or alias.
        ConflictError: With the code ``ModelNotActive``, if it is being deleted.
    """
    version = _find_by_uri(model_uri)
    model_versions.check_active(version)
    return Resolved(
        name=version.name,
        version=int(version.version),
        uri=model_versions.uri(version),
        source_uri=model_versions.source_uri(version),
        framework=model_versions.framework(version),
        framework_version=version.tags.get(model_versions.FRAMEWORK_VERSION_TAG, ""),
        parameters=model_versions.parameters_of(version.tags),
        description=version.description or "",
        mlflow_run_id=version.run_id or None,
        flow_run_id=version.tags.get(FLOW_RUN_TAG),
        outside=model_versions.is_outside(version),
    )


def _find_by_uri(model_uri: str) -> ModelVersion:
    scheme, _, path = model_uri.partition(":/")
    name, slash, number = path.rpartition("/")
    if scheme == "models" and slash and name and number.isdecimal():
        return model_versions.find(name, int(number))
    name, at, alias = path.rpartition("@")
    if scheme == "models" and at and name and alias and "/" not in path:
        aliases = model_aliases.actual(model_versions.find_model(name).aliases)
        if alias not in aliases:
            raise NotFoundError(
                f"The model {name!r} has no alias {alias!r}.",
                f"modelyard model show {name} shows those there are.",
            )
        return model_versions.find(name, aliases[alias])
    raise BadInputError(
        f"{model_uri!r} names no version of a model.",
        "Write models:/NAME/VERSION or models:/NAME@ALIAS.",
        code="ModelUriInvalid",
    )


def fetch(model: Resolved, destination: Path) -> None:
    """Bring a version's files into the folder ``destination``, which must not exist.

    Raises:
        BadInputError: With the code ``NoFiles``, if they are on a hub; ``DestinationExists``.
        ModelyardError: If they cannot be read, or do not fit; nothing is left then.
    """
    if model.source_uri is None:
        raise BadInputError(
            f"{model.uri} has no files: it is downloaded by the id among its parameters.",
            "Let the runtime download it.",
            code="NoFiles",
        )
    files = model_artifacts.files(model.source_uri, outside=model.outside)
    model_artifacts.fetch(files, destination)
