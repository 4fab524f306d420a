"""Execution of a pipeline's leaves: containers on a backend, importers in process."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from infra.errors import BadInputError, ModelyardError
from infra.workloads.base import Backend, Workload
from infra.workloads.claims import ClaimStore
from pipelines import (
    bootstrap,
    claims,
    container,
    executor_io,
    graph,
    placeholders,
    platform,
    remote_artifacts,
    task_config,
    values,
)
from pipelines.artifacts import Artifact, Bundle
from pipelines.execution import Leaf
from pipelines.pipeline import Pipeline
from pipelines.placeholders import PlaceholderContext, PlaceholderFacts
from pipelines.remote_artifacts import RemoteArtifacts
from pipelines.run_directory import PipelineRunDirectory

_PATHS = """
def _paths_of_artifacts(paths):
    from kfp.dsl.types import artifact_types

    known = artifact_types.Artifact._get_path

    def _get_path(self):
        own = getattr(self, "_custom_path", "") or paths.get(self.uri)
        return own or known(self)

    artifact_types.Artifact._get_path = _get_path


_paths_of_artifacts({paths})
"""

# A line that a task has printed, with the task's path.
Log = Callable[[str, str], None]


class ComponentFailedError(ModelyardError):
    """A component has failed."""

    code = "ComponentFailed"


class Components:
    """Executor of the leaves of one run. Several threads may use it at once."""

    def __init__(
        self,
        pipeline: Pipeline,
        backend: Backend,
        place: PipelineRunDirectory,
        facts: PlaceholderFacts,
        log: Log,
        cancelled: threading.Event,
        *,
        claims: ClaimStore,
        root: str = "",
        folders: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Prepare to run leaves.

        Args:
            pipeline: The pipeline.
            backend: Runs its containers.
            place: The run's directory.
            facts: The facts that placeholders refer to.
            log: Receives each line that a component prints.
            cancelled: When set, what runs is ended.
            claims: Where claims of volumes are created and deleted.
            root: The URI below which artifacts are sent; "" if they stay with the run.
            folders: What every component finds mounted: URIs by absolute paths.
        """
        self._pipeline = pipeline
        self._backend = backend
        self._place = place
        self._facts = facts
        self._log = log
        self._cancelled = cancelled
        self._claims = claims
        self._folders = folders
        self._remotes = RemoteArtifacts(
            place.fetched, cancelled, root=root, fetches=not backend.stages
        )

    def check(self) -> None:
        """Refuse early what would otherwise fail after tasks have run.

        Raises:
            ModelyardError: If what tasks make cannot be sent where it belongs, or a task that
                every run reaches could not run here; with the code ``PlatformUnsupported``
                for a workspace, where components run elsewhere.
        """
        self._remotes.check()
        if self._backend.stages and self._pipeline.config.get("workspace"):
            raise BadInputError(
                f"The pipeline {self._pipeline.name} has a workspace, and its components, which "
                "run on a cluster, share no folder.",
                "Let them share a claim: kubernetes.CreatePVC and kubernetes.mount_pvc.",
                code="PlatformUnsupported",
            )
        for path, name in graph.unconditional_tasks(self._pipeline):
            component = self._pipeline.component(name)
            spec = self._pipeline.executor(component.executor_label).container
            unset = component.executor_label not in self._pipeline.kubernetes
            if unset and spec.image and not claims.is_claim(spec.image):
                workload = container.preview(spec, name=path, folder=self._place.task(path))
                if workload is not None:
                    self._backend.check(task_config.without_passthroughs(component, workload))

    def settings(self, leaf: Leaf) -> dict[str, Any]:
        """Resolve the parts of a pod that a task's Kubernetes settings specify.

        Raises:
            PipelineInvalidError: With all values that are missing, or of the wrong kind.
        """
        component = self._pipeline.component(leaf.component)
        settings = self._pipeline.kubernetes.get(component.executor_label)
        if not settings:
            return {}
        return platform.resolve(platform.read(settings), leaf.given, leaf.beside)

    def is_action(self, leaf: Leaf) -> bool:
        """Whether a task has an effect outside its run, so every attempt executes it."""
        executor = self._executor(leaf)
        return claims.is_claim(executor.container.image)

    def is_anew(self, leaf: Leaf) -> bool:
        """Whether every run executes a task, so that it is never cached."""
        importer = self._executor(leaf).importer
        return self.is_action(leaf) or importer.reimport or importer.download_to_workspace

    def _executor(self, leaf: Leaf) -> ir.PipelineDeploymentConfig.ExecutorSpec:
        component = self._pipeline.component(leaf.component)
        return self._pipeline.executor(component.executor_label)

    def fill(self, path: str, value: Any, parameters: Mapping[str, Any]) -> Any:
        """Fill the placeholders in a constant of a task."""
        context = PlaceholderContext(
            parameters=parameters, declared=frozenset(parameters), facts=self._facts_of(path)
        )
        return placeholders.fill_constant(value, context)

    def _facts_of(self, path: str) -> PlaceholderFacts:
        name = next(part for part in reversed(path.split("/")) if not part.isdigit())
        task_id = hashlib.sha256(f"{self._facts.job_id}/{path}".encode()).hexdigest()[:32]
        return replace(self._facts, task_name=name, task_id=task_id)

    def run(self, leaf: Leaf) -> Bundle:
        """Run a leaf to its end; return its outputs.

        Raises:
            BadInputError: If it could never run so, or has written malformed outputs.
            ComponentFailedError: If it failed.
        """
        component = self._pipeline.component(leaf.component)
        executor = self._executor(leaf)
        kind = executor.WhichOneof("spec")
        if kind == "importer":
            return self._import(leaf, component, executor.importer)
        if kind == "container" and claims.is_claim(executor.container.image):
            return self._claim(leaf, executor.container.image)
        if kind == "container":
            return self._contain(leaf, component, executor.container)
        raise BadInputError(
            f"The task {leaf.path} is a {kind}, which only Vertex AI runs.",
            "Take it out of the pipeline.",
            code="ExecutorUnsupported",
        )

    def _contain(
        self,
        leaf: Leaf,
        component: ir.ComponentSpec,
        spec: ir.PipelineDeploymentConfig.PipelineContainerSpec,
    ) -> Bundle:
        folder = self._place.task(leaf.path)
        folder.mkdir(parents=True, exist_ok=True)
        self._place.workspace.mkdir(parents=True, exist_ok=True)
        outputs = executor_io.plan(
            leaf.path, component, folder=folder, artifacts=self._place.artifacts,
            remote=self._remotes.root,
        )  # fmt: skip
        settings = self.settings(leaf)
        volumes = (Path(one["mountPath"]) for one in settings.get("volumeMounts", ()))
        outputs = replace(outputs, volumes=tuple(volumes))
        executor_io.prepare(outputs)
        inputs = self._remotes.fetch_inputs(leaf.path, leaf.inputs)
        away = remote_artifacts.unfetchable(inputs)
        _check_reach(leaf.path, spec, away)
        context = self._context(leaf, component, inputs, outputs)
        config = task_config.config_inputs(component, spec, settings, context)
        inputs = replace(inputs, parameters={**inputs.parameters, **config})
        workload = container.workload(
            spec,
            self._context(leaf, component, inputs, outputs),
            name=leaf.path,
            folder=folder,
            inputs=_paths(inputs),
            outputs=outputs.paths,
            kubernetes=settings,
        )
        workload = replace(
            task_config.without_passthroughs(component, workload), folders=self._folders
        )
        if self._backend.stages:
            workload = self._staged(workload, inputs, outputs)
        paths = remote_artifacts.local_paths([inputs.artifacts, outputs.artifacts])
        if paths:
            more = _PATHS.replace("{paths}", json.dumps(paths))
            workload = replace(
                workload, command=bootstrap.append_code(workload.command, workload.arguments, more)
            )
        self._backend.check(workload)
        self._run(workload, away)
        return self._remotes.publish_outputs(outputs, executor_io.read(outputs, component))

    def _staged(
        self, workload: Workload, inputs: Bundle, outputs: executor_io.OutputPlan
    ) -> Workload:
        """Add the artifacts that the backend stages itself to the workload."""
        places = remote_artifacts.local_paths([inputs.artifacts])
        fetched = {Path(path): uri for uri, path in places.items() if not Path(path).exists()}
        if not self._remotes.root:
            return replace(workload, fetched=fetched)
        root = executor_io.remote_uri_of(outputs.root, outputs.run, self._remotes.root)
        return replace(
            workload,
            outputs=(outputs.file, *outputs.parameters.values()),
            fetched=fetched,
            sent={outputs.root: root},
        )

    def _run(self, workload: Workload, away: Mapping[str, str]) -> None:
        """Run a task's workload until it succeeds; ``away`` are inputs that cannot be fetched."""
        shown = ", ".join(f"{name} at {uri}" for name, uri in away.items())
        if shown:
            self._log(workload.name, f"No store can fetch {shown}: the task gets only the URI.")
        ended = self._backend.run(
            workload, lambda line: self._log(workload.name, line), self._cancelled
        )
        if ended.code != 0:
            reason = ended.reason or f"It ended with the exit status {ended.code}"
            raise ComponentFailedError(
                reason if reason.endswith((".", "!", "?")) else f"{reason}.",
                f"No store can fetch {shown}, if the task needed it as a file."
                if shown
                else "The run's log has what it printed.",
            )

    def _claim(self, leaf: Leaf, image: str) -> Bundle:
        """Create or delete a volume claim."""
        given = leaf.inputs.parameters
        if claims.action(image) == claims.DELETE:
            self._claims.delete(str(given.get("pvc_name") or ""))
            return Bundle()
        facts = self._facts_of(leaf.path)
        unique = claims.unique_prefix(facts.job_name or "", facts.task_id or "")
        manifest = claims.build_claim(given, unique)
        name = self._claims.create(manifest, f"{facts.job_id}/{leaf.path}")
        self._log(leaf.path, f"The claim {name} is there.")
        return Bundle({"name": name})

    def _context(
        self,
        leaf: Leaf,
        component: ir.ComponentSpec,
        inputs: Bundle,
        outputs: executor_io.OutputPlan,
    ) -> PlaceholderContext:
        declared = component.input_definitions
        return PlaceholderContext(
            parameters=inputs.parameters,
            artifacts=inputs.artifacts,
            declared=frozenset((*declared.parameters, *declared.artifacts)),
            output_file=str(outputs.file),
            output_parameters={name: str(path) for name, path in outputs.parameters.items()},
            output_artifacts=outputs.artifacts,
            facts=self._facts_of(leaf.path),
            executor_input=lambda: executor_io.executor_input(inputs, outputs),
        )

    def _import(
        self,
        leaf: Leaf,
        component: ir.ComponentSpec,
        importer: ir.PipelineDeploymentConfig.ImporterSpec,
    ) -> Bundle:
        """Create the artifact of a URI; it is fetched when a task reads it."""
        given = leaf.inputs.parameters
        uri = self.fill(leaf.path, _of(importer.artifact_uri, given), given)
        if not isinstance(uri, str) or not uri:
            raise BadInputError(
                f"The task {leaf.path} imports from {uri!r}, which is not an address.",
                "Give it the path or the URI of what is to be imported.",
                code="ImportInvalid",
            )
        old = {**importer.properties, **importer.custom_properties}
        shown = {
            **{name: _of(one, given) for name, one in old.items()},
            **{name: values.from_proto(one) for name, one in importer.metadata.fields.items()},
        }
        (output,) = component.output_definitions.artifacts
        schema = importer.type_schema
        if not schema.schema_title:
            schema = component.output_definitions.artifacts[output].artifact_type
        path = None
        if importer.download_to_workspace:
            path = str(self._remotes.to_workspace(leaf.path, uri, self._place.workspace))
        artifact = Artifact(
            # A reimported artifact is a new one: tasks that read it are not cached.
            name=(f"{self._facts.job_id}/" if importer.reimport else "") + f"{leaf.path}/{output}",
            uri=uri,
            schema=schema.schema_title or "system.Artifact",
            version=schema.schema_version or "0.0.1",
            metadata=self.fill(leaf.path, shown, given),
            custom_path=path,
        )
        return Bundle(artifacts={output: artifact})


def _check_reach(
    task: str,
    spec: ir.PipelineDeploymentConfig.PipelineContainerSpec,
    away: Mapping[str, str],
) -> None:
    """Refuse a command that names the path of an artifact that no store can fetch."""
    for word in (*spec.command, *spec.args) if away else ():
        for one in placeholders.check(word):
            if (one.kind, one.field) == ("inputs.artifacts", "path") and one.name in away:
                raise remote_artifacts.unreachable(task, away[one.name])


def _of(spec: ir.ValueOrRuntimeParameter, given: Mapping[str, Any]) -> Any:
    """Resolve the value of an importer's field."""
    kind = spec.WhichOneof("value")
    if kind == "runtime_parameter":
        return given.get(spec.runtime_parameter)
    if kind == "constant":
        return values.from_proto(spec.constant)
    old = spec.constant_value
    return getattr(old, old.WhichOneof("value")) if old.WhichOneof("value") else None


def time_text(at: datetime) -> str:
    """Format a time for placeholders: ISO 8601, in UTC, to the second."""
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


def _paths(inputs: Bundle) -> list[Path]:
    found = []
    for value in inputs.artifacts.values():
        for one in value if isinstance(value, list) else [value]:
            path = executor_io.place_of(one)
            if path is not None:
                found.append(path)
    return found
