"""Models: MLflow's registry, with the lineage of models that runs made.

MLflow owns models, versions and aliases; nothing of them is stored elsewhere. What it has no field
for (framework, parameters, the URI of a user's own files) is in tags of the version.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from infra.errors import BadInputError, ConflictError, NotFoundError
from infra.mlflow import MlflowException, ModelVersion
from registry import catalogue, frameworks, history, names
from registry.blockers import Blocker
from registry.flavors import mlmodel
from registry.frameworks import Layout, huggingface
from registry.models import (
    model_aliases,
    model_artifacts,
    model_parameters,
    model_references,
    model_states,
    model_versions,
)
from registry.models.model_parameters import Scalar
from registry.models.model_references import SCHEME
from registry.models.model_views import ModelVersionView, list_all, show, view
from registry.tracking import FLOW_RUN_TAG, MODEL_TAG, client

__all__ = [
    "ResolvedVersion", "ServingSpec", "SourceRun", "check_files", "create", "declare_framework",
    "declared_serving", "fetch", "layout", "list_all", "register", "resolve",
    "set_tags", "show",
]  # fmt: skip

NOUN = model_aliases.NOUN
_LONGEST_FRAMEWORK_VERSION = 100


@dataclass(frozen=True)
class ResolvedVersion:
    """A model version as serving needs it.

    Attributes:
        name: The model's name.
        version: The version's number.
        uri: ``models:/NAME/VERSION``, also if it was found by an alias.
        source_uri: Where its files are; None if ``model_id`` among the parameters names them.
        framework: Its key; None if it was not given.
        framework_version: As given, or "".
        parameters: Passed on by serving: see ``registry.models.model_parameters``.
        description: Free text.
        mlflow_run_id: The MLflow run that made it, or None.
        flow_run_id: The flow run that made it, or None.
        outside: Whether its files are a user's own, outside MLflow.
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
class SourceRun:
    """The run that a model is made from.

    Attributes:
        run_id: Its MLflow run.
        flow_run_id: Its flow run.
        source: URI of the model's artifacts.
    """

    run_id: str
    flow_run_id: str
    source: str


@dataclass(frozen=True)
class ServingSpec:
    """How a version is served.

    Attributes:
        framework: Name of its framework, in any spelling; "" if it is not known yet.
        framework_version: Free text.
        parameters: Strings, numbers and booleans by name.
    """

    framework: str = ""
    framework_version: str = ""
    parameters: Mapping[str, object] | None = None

    def tags(self) -> dict[str, str]:
        """Return the version's tags for it.

        Raises:
            BadInputError: If a field is invalid.
        """
        key = frameworks.find(self.framework).key if self.framework else None
        given = model_parameters.check(self.parameters or {})
        version = self.framework_version
        if len(version) > _LONGEST_FRAMEWORK_VERSION or not version.isprintable():
            raise BadInputError(
                f"Invalid version of the framework: {version[:60]!r}.",
                f"Give at most {_LONGEST_FRAMEWORK_VERSION} printable characters.",
                code="FrameworkVersionInvalid",
            )
        return model_versions.serving_tags(key, version, given)


def declare_framework(run_id: str, framework: str, version: str) -> None:
    """Record the framework of the model that a run leaves, for the versions made of it.

    Args:
        run_id: The MLflow run.
        framework: Key of the framework.
        version: Its version.
    """
    client().log_batch(run_id, tags=ServingSpec(framework, version).tags().items())


def declared_serving(run_id: str) -> dict[str, str]:
    """Return the tags for how a run's model is served, as far as the run has declared it."""
    return model_versions.serving_of(client().get_run(run_id).data.tags)


def register(name: str, since: datetime, origin: SourceRun) -> str:
    """Register a run's artifacts as the next version of a model; return its URI.

    A run makes one version of a model: registering again returns the existing one, also after
    the model was renamed. The version has the framework that the run has declared.

    Args:
        name: The model's name at the time ``since``; if it was renamed since, the version is
            registered under its new name.
        since: When the run was created.
        origin: The run, and where its artifacts are.
    """
    tags = declared_serving(origin.run_id)
    with _current_locked(name, since, origin) as current:
        mine = [found for found in _made_alive(origin.run_id) if found.tags.get(FLOW_RUN_TAG)]
        version = mine[0] if mine else _next(current, tags, "", origin)
    client().set_tag(origin.run_id, MODEL_TAG, model_versions.uri(version))
    return model_versions.uri(version)


@contextlib.contextmanager
def _current_locked(name: str, since: datetime, origin: SourceRun) -> Iterator[str]:
    """Hold the locks for the model that was called ``name``; yields its present name."""
    while True:
        current = model_aliases.current_name(name, since)
        with _locked(current, origin):
            if model_aliases.current_name(name, since) == current:  # not renamed before the lock
                yield current
                return


def create(
    name: str, serving: ServingSpec, *, description: str = "", uri: str = "",
    origin: SourceRun | None = None,
) -> ModelVersionView:  # fmt: skip
    """Create the next version of the model ``name``, once its files are checked.

    From one run, the same model is created once: a repeat returns the existing version, with a
    missing framework added to it.

    Args:
        name: The model's name; the model is created if missing.
        serving: How it is served.
        description: Description of the version.
        uri: A user's own files, which are read, and never copied or deleted.
        origin: The run that it is made from.

    Raises:
        BadInputError: With a code of its own for each fault; nothing is created then.
    """
    names.check(name)
    names.check_description(description)
    tags = serving.tags()
    if model_versions.FRAMEWORK_TAG not in tags:
        raise BadInputError(
            "The framework is missing.",
            f"Give one of {', '.join(frameworks.FRAMEWORKS)}.",
            code="FrameworkMissing",
        )
    check_files(name, tags, origin.source if origin else uri, outside=origin is None)
    if origin is None and uri:
        tags[model_versions.SOURCE_TAG] = uri
    with _locked(name, origin):
        if origin is not None:
            _check_not_removed(origin)
        version = _existing(name, tags, description, origin) or _next(
            name, tags, description, origin
        )
    if origin is not None:
        client().set_tag(origin.run_id, MODEL_TAG, model_versions.uri(version))
    aliases = model_aliases.actual(model_versions.find_model(name).aliases)
    return view(version, aliases)


@contextlib.contextmanager
def _locked(name: str, origin: SourceRun | None) -> Iterator[None]:
    """Hold the advisory locks of the model, and of the run's artifacts."""
    with contextlib.ExitStack() as locks:
        locks.enter_context(catalogue.advisory_lock(model_versions.lock(name)))
        if origin is not None:
            lock = model_versions.lock_of_run(origin.run_id)
            locks.enter_context(catalogue.advisory_lock(lock))
        yield


def _check_not_removed(origin: SourceRun) -> None:
    """Refuse artifacts whose removal has begun since they were checked.

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
    """Refuse files that do not fit how a version is served, given by its tags."""
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
            "Files and the parameter model_id exclude each other.",
            "Give one of the two.",
            code="SourceAmbiguous",
        )
    if source:
        frameworks.check(framework, model_artifacts.files(source, outside=outside), name)


def _made_alive(run_id: str) -> list[ModelVersion]:
    made = model_versions.of_run(run_id)
    return [version for version in made if not model_states.is_deleting(version)]


def _existing(
    name: str, tags: Mapping[str, str], description: str, origin: SourceRun | None
) -> ModelVersion | None:
    """Return the version that was made of the same run, with missing facts added."""
    if origin is None:
        return None
    for version in _made_alive(origin.run_id):
        has = model_versions.serving_of(version.tags)
        same = version.name == name and version.source == origin.source
        if same and (has == tags or model_versions.FRAMEWORK_TAG not in has):
            set_tags(version, tags)
            if description and not version.description:
                client().update_model_version(name, version.version, description)
            return model_versions.find(name, int(version.version))
    return None


def set_tags(version: ModelVersion, tags: Mapping[str, str]) -> None:
    """Set the tags for serving; the framework last, which marks them as complete."""
    mlflow = client()
    for key in sorted(tags, key=lambda key: key == model_versions.FRAMEWORK_TAG):
        if version.tags.get(key) != tags[key]:
            mlflow.set_model_version_tag(version.name, version.version, key, tags[key])


def _next(
    name: str, tags: Mapping[str, str], description: str, origin: SourceRun | None
) -> ModelVersion:
    """Create a version, and the model if missing."""
    mlflow = client()
    try:
        model = mlflow.get_registered_model(name)
        if model_states.DELETING_TAG in model.tags:  # of its former versions
            mlflow.delete_registered_model_tag(name, model_states.DELETING_TAG)
    except MlflowException as error:
        if not error.is_missing:
            raise
        mlflow.create_registered_model(name)
    version = mlflow.create_model_version(
        name,
        origin.source if origin else model_versions.OUTSIDE,
        run_id=origin.run_id if origin else None,
        tags={**tags, **({FLOW_RUN_TAG: origin.flow_run_id} if origin else {})},
        description=description or None,
    )
    run = origin.flow_run_id if origin else None
    history.record(NOUN, name, "create", version=int(version.version), run=run)
    return version


def blockers(owner: str, run_ids: Iterable[str]) -> list[Blocker]:
    """Return why MLflow runs may not be deleted: the model versions that were made from them.

    Args:
        owner: What the runs are, for the sentence, such as ``The run digits``.
        run_ids: Their ids in MLflow.
    """
    made = model_versions.of_runs(run_ids)
    if not made:
        return []
    named = ", ".join(map(model_versions.uri, made))
    first = ("model", "delete", made[0].name, "--version", str(made[0].version))
    return [Blocker(f"{owner} made the model {named}.", first)]


def resolve(model_uri: str) -> ResolvedVersion:
    """Return the version that ``models:/NAME/VERSION`` or ``models:/NAME@ALIAS`` means now.

    Raises:
        BadInputError: With the code ``ModelUriInvalid``.
        NotFoundError: If there is no such version or alias.
        ConflictError: With the code ``ModelNotActive``, if it is being deleted.
    """
    version = _find_by_uri(model_uri)
    model_versions.check_active(version)
    return ResolvedVersion(
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
    found = model_references.parse(model_uri) if model_uri.startswith(SCHEME) else None
    if found is None:
        raise BadInputError(
            f"{model_uri!r} is not the URI of a model version.",
            "Write models:/NAME/VERSION or models:/NAME@ALIAS. modelyard model list has names.",
            code="ModelUriInvalid",
        )
    if found.version is not None:
        return model_versions.find(found.name, found.version)
    aliases = model_aliases.actual(model_versions.find_model(found.name).aliases)
    if found.alias not in aliases:
        raise NotFoundError(
            f"The model {found.name!r} has no alias {found.alias!r}.",
            f"modelyard model show {shlex.quote(found.name)} lists the existing ones.",
        )
    return model_versions.find(found.name, aliases[found.alias])


def trained_with(model: ResolvedVersion) -> list[str]:
    """Requirements that a version's training had installed; none if they are not known."""
    if model.outside or model.source_uri is None:
        return []
    return mlmodel.read_requirements(model_artifacts.artifacts(model.source_uri))


def size(model: ResolvedVersion) -> int:
    """Bytes of a version's files; 0 if they are on a hub.

    Raises:
        ModelyardError: If they cannot be listed.
    """
    if model.source_uri is None:
        return 0
    files = model_artifacts.files(model.source_uri, outside=model.outside)
    return sum(entry.size for entry in files.entries())


def layout(model: ResolvedVersion) -> Layout:
    """The list of a version's files, read in small pieces.

    Raises:
        BadInputError: With the code ``NoFiles``, if they are on a hub; or if there are none.
        ModelyardError: If they cannot be listed.
    """
    return Layout(model_artifacts.files(_source(model), outside=model.outside))


def fetch(model: ResolvedVersion, destination: Path) -> None:
    """Download a version's files into the folder ``destination``, which must not exist.

    Raises:
        BadInputError: With the code ``NoFiles``, if they are on a hub; ``DestinationExists``.
        ModelyardError: If they cannot be read or do not fit; nothing is left behind then.
    """
    files = model_artifacts.files(_source(model), outside=model.outside)
    model_artifacts.fetch(files, destination)


def _source(model: ResolvedVersion) -> str:
    if model.source_uri is None:
        raise BadInputError(
            f"{model.uri} has no files: it is downloaded by the id among its parameters.",
            "Let the runtime download it.",
            code="NoFiles",
        )
    return model.source_uri
