"""Runs the leaves of a pipeline: containers through a launcher, importers by itself."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from infra.errors import BadInputError, ModelyardError
from pipelines import container, executor_io, placeholders, platform, values
from pipelines.artifacts import Artifact, Bundle
from pipelines.execution import Leaf
from pipelines.launchers.base import Launcher
from pipelines.pipeline import Pipeline
from pipelines.place import Place
from pipelines.placeholders import Context, Facts

# A line that a task has printed, with the task's path.
Log = Callable[[str, str], None]


class ComponentFailedError(ModelyardError):
    """A component has ended badly."""

    code = "ComponentFailed"


class Components:
    """Runs the leaves of one run. Several threads may use it at once."""

    def __init__(
        self,
        pipeline: Pipeline,
        launcher: Launcher,
        place: Place,
        facts: Facts,
        log: Log,
        cancelled: threading.Event,
    ) -> None:
        """Be ready.

        Args:
            pipeline: The pipeline.
            launcher: Runs its containers.
            place: Where the run has its files.
            facts: What placeholders tell of the run.
            log: Told each line that a component prints.
            cancelled: When set, what runs is ended.
        """
        self._pipeline = pipeline
        self._launcher = launcher
        self._place = place
        self._facts = facts
        self._log = log
        self._cancelled = cancelled

    def fill(self, path: str, value: Any, parameters: Mapping[str, Any]) -> Any:
        """A constant of a task with its placeholders filled."""
        context = Context(
            parameters=parameters, declared=frozenset(parameters), facts=self._told(path)
        )
        return placeholders.fill_constant(value, context)

    def _told(self, path: str) -> Facts:
        name = next(part for part in reversed(path.split("/")) if not part.isdigit())
        task_id = hashlib.sha256(f"{self._facts.job_id}/{path}".encode()).hexdigest()[:32]
        return replace(self._facts, task_name=name, task_id=task_id)

    def run(self, leaf: Leaf) -> Bundle:
        """Run a leaf to its end; what it hands on.

        Raises:
            BadInputError: If it could never run so, or has written malformed outputs.
            ComponentFailedError: If it ended badly.
        """
        component = self._pipeline.component(leaf.component)
        executor = self._pipeline.executor(component.executor_label)
        kind = executor.WhichOneof("spec")
        if kind == "importer":
            return self._import(leaf, component, executor.importer)
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
            leaf.path, component, folder=folder, artifacts=self._place.artifacts
        )
        executor_io.prepare(outputs)
        settings = self._pipeline.kubernetes.get(component.executor_label)
        job = container.job(
            spec,
            self._context(leaf, component, outputs),
            name=leaf.path,
            folder=folder,
            inputs=_paths(leaf.inputs),
            outputs=outputs.paths,
            kubernetes=platform.resolve(platform.read(settings), leaf.given, leaf.beside)
            if settings
            else {},
        )
        self._launcher.check(job)
        ended = self._launcher.run(job, lambda line: self._log(leaf.path, line), self._cancelled)
        if ended.code != 0:
            raise ComponentFailedError(
                ended.reason or f"It ended with the exit status {ended.code}.",
                "The run's log has what it printed.",
            )
        return executor_io.read(outputs, component)

    def _context(
        self, leaf: Leaf, component: ir.ComponentSpec, outputs: executor_io.Outputs
    ) -> Context:
        declared = component.input_definitions
        return Context(
            parameters=leaf.inputs.parameters,
            artifacts=leaf.inputs.artifacts,
            declared=frozenset((*declared.parameters, *declared.artifacts)),
            output_file=str(outputs.file),
            output_parameters={name: str(path) for name, path in outputs.parameters.items()},
            output_artifacts=outputs.artifacts,
            facts=self._told(leaf.path),
            executor_input=lambda: executor_io.executor_input(leaf.inputs, outputs),
        )

    def _import(
        self,
        leaf: Leaf,
        component: ir.ComponentSpec,
        importer: ir.PipelineDeploymentConfig.ImporterSpec,
    ) -> Bundle:
        """Take what lies at an address as an artifact; it is not copied."""
        given = leaf.inputs.parameters
        asked = importer.artifact_uri
        if asked.WhichOneof("value") == "runtime_parameter":
            uri = given.get(asked.runtime_parameter)
        else:
            uri = values.from_proto(asked.constant)
        uri = self.fill(leaf.path, uri, given)
        if not isinstance(uri, str) or not uri:
            raise BadInputError(
                f"The task {leaf.path} imports from {uri!r}, which is no address.",
                "Give it the path or the URI of what is to be imported.",
                code="ImportInvalid",
            )
        told = {name: values.from_proto(one) for name, one in importer.metadata.fields.items()}
        schema = importer.type_schema
        artifact = Artifact(
            name=f"{leaf.path}/artifact",
            uri=uri,
            schema=schema.schema_title or "system.Artifact",
            version=schema.schema_version or "0.0.1",
            metadata=self.fill(leaf.path, told, given),
        )
        return Bundle(artifacts=dict.fromkeys(component.output_definitions.artifacts, artifact))


def time_text(at: datetime) -> str:
    """An instant as placeholders tell it: ISO 8601, in UTC, to the second."""
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


def _paths(inputs: Bundle) -> list[Path]:
    found = []
    for value in inputs.artifacts.values():
        for one in value if isinstance(value, list) else [value]:
            path = executor_io.local_path(one.uri)
            if path is not None:
                found.append(path)
    return found
