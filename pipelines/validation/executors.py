"""Validation of executors: containers, importers, resources, Kubernetes settings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TypeAlias

from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from infra.errors import BadInputError
from infra.suggestions import suggest_names
from pipelines import claims, placeholders, platform
from pipelines.container import quantity
from pipelines.faults import FaultCollector
from pipelines.platform_forms import ValueSource
from pipelines.validation.survey import Survey
from pipelines.validation.tasks import MEND_WORKSPACE, NO_WORKSPACE, WORKSPACE

_Container: TypeAlias = ir.PipelineDeploymentConfig.PipelineContainerSpec
_MARK = "{{$"
_VARIABLE = re.compile(r"[^=\x00]+\Z")
_LATEST = 2**31 - 1
_PLATFORM = "platforms.kubernetes"
_UNSUPPORTED = {
    "resolver": "Artifacts of earlier runs are not looked up (a resolver).",
    "custom_job": "Jobs of Google's AI Platform are not run (a custom job).",
}


def check(survey: Survey, name: str, faults: FaultCollector) -> None:
    """Collect faults of a component's executor."""
    component = survey.pipeline.component(name)
    label = component.executor_label
    executors = survey.pipeline.deployment.executors
    if label not in executors:
        place = f"{survey.place(name)}.executorLabel"
        faults.add(place, f"There is no executor {label!r}.", suggest_names(executors, label))
        return
    executor = executors[label]
    place = f"deploymentSpec.executors.{label}"
    kind = executor.WhichOneof("spec")
    if kind == "container":
        _ExecutorCheck(survey, name, executor.container, f"{place}.container", faults).check()
    elif kind == "importer":
        _check_importer(survey, component, executor.importer, f"{place}.importer", faults)
    elif kind is None:
        faults.add(place, "It is empty.", "Give it a container or an importer.")
    else:
        there = f"{place}.{'resolver' if kind == 'resolver' else 'customJob'}"
        faults.add(there, _UNSUPPORTED[kind], "Use a component with a container instead.")


class _ExecutorCheck:
    """Check of a container."""

    def __init__(
        self,
        survey: Survey,
        name: str,
        container: _Container,
        place: str,
        faults: FaultCollector,
    ) -> None:
        self._survey = survey
        self._container = container
        self._place = place
        self._faults = faults
        component = survey.pipeline.component(name)
        inputs, outputs = component.input_definitions, component.output_definitions
        self._names = {
            "inputs.parameters": survey.added[name] | set(inputs.parameters),
            "inputs.artifacts": set(inputs.artifacts),
            "outputs.parameters": set(outputs.parameters),
            "outputs.artifacts": set(outputs.artifacts),
        }
        self._names["present"] = set().union(*self._names.values())

    def check(self) -> None:
        if not self._container.image.strip():
            self._faults.add(f"{self._place}.image", "There is no image.", "Give one.")
        if claims.is_claim(self._container.image):
            return
        for there, text in _texts(self._container):
            self._check_text(text, f"{self._place}.{there}")
        for number, variable in enumerate(self._container.env):
            if not _VARIABLE.match(variable.name):
                there = f"{self._place}.env[{number}].name"
                self._faults.add(there, f"{variable.name!r} is not a name of a variable.")
        if self._container.HasField("lifecycle"):
            there = f"{self._place}.lifecycle"
            self._faults.add(there, "Hooks of containers are not run.", "Drop them.")
        _check_resources(self._container.resources, f"{self._place}.resources", self._faults)

    def _check_text(self, text: str, place: str) -> None:
        for one in _placeholders(self._survey, text, place, self._faults):
            names = self._names.get(one.kind)
            if names is not None and one.name not in names:
                what = "input or output" if one.kind == "present" else one.kind.replace("s.", " ")
                problem = f"The component has no {what.removesuffix('s')} {one.name!r}."
                self._faults.add(place, problem, suggest_names(names, one.name))


def _texts(container: _Container) -> Iterator[tuple[str, str]]:
    """Strings of a container that may contain placeholders, each with its place."""
    yield "image", container.image
    for part in ("command", "args"):
        for number, word in enumerate(getattr(container, part)):
            yield f"{part}[{number}]", word
    for number, variable in enumerate(container.env):
        yield f"env[{number}].value", variable.value
    for name, text in _quantities(container.resources):
        yield f"resources.{name}", text
    yield "resources.accelerator.resourceType", container.resources.accelerator.resource_type


def _quantities(
    resources: ir.PipelineDeploymentConfig.PipelineContainerSpec.ResourceSpec,
) -> Iterator[tuple[str, str]]:
    yield "resourceCpuLimit", resources.resource_cpu_limit
    yield "resourceCpuRequest", resources.resource_cpu_request
    yield "resourceMemoryLimit", resources.resource_memory_limit
    yield "resourceMemoryRequest", resources.resource_memory_request
    yield "accelerator.resourceCount", resources.accelerator.resource_count


def _placeholders(
    survey: Survey, text: str, place: str, faults: FaultCollector
) -> list[placeholders.Placeholder]:
    """Parse and check the placeholders of a string."""
    if WORKSPACE in text and not survey.has_workspace:
        faults.add(place, NO_WORKSPACE, MEND_WORKSPACE)
    try:
        return placeholders.check(text)
    except BadInputError as error:
        faults.add_error(place, error)
        return []


def _check_resources(
    resources: ir.PipelineDeploymentConfig.PipelineContainerSpec.ResourceSpec,
    place: str,
    faults: FaultCollector,
) -> None:
    for name, text in _quantities(resources):
        if not text or _MARK in text:
            continue
        there = f"{place}.{name}"
        try:
            amount = quantity(text)
        except BadInputError:
            faults.add(there, f"{text[:50]!r} is not a quantity.", "Write it like 500m, 2 or 2Gi.")
            continue
        if name.startswith("accelerator") and amount != int(amount):
            faults.add(there, f"{text!r} is not a whole number.", "Give whole accelerators.")
    old = {
        "cpuLimit": resources.cpu_limit, "cpuRequest": resources.cpu_request,
        "memoryLimit": resources.memory_limit, "memoryRequest": resources.memory_request,
        "accelerator.count": resources.accelerator.count,
    }  # fmt: skip
    for name, number in old.items():
        if number < 0:
            faults.add(f"{place}.{name}", f"It is {number:g}, below 0.", "Give 0 or more.")


def _check_importer(
    survey: Survey,
    component: ir.ComponentSpec,
    importer: ir.PipelineDeploymentConfig.ImporterSpec,
    place: str,
    faults: FaultCollector,
) -> None:
    there = f"{place}.artifactUri"
    kind = importer.artifact_uri.WhichOneof("value")
    inputs = component.input_definitions.parameters
    if kind is None or (kind == "constant" and not importer.artifact_uri.constant.string_value):
        faults.add(there, "There is no address to import from.", "Give artifact_uri a string.")
    elif kind == "runtime_parameter" and importer.artifact_uri.runtime_parameter not in inputs:
        name = importer.artifact_uri.runtime_parameter
        faults.add(there, f"The component has no input {name!r}.", suggest_names(inputs, name))
    elif kind == "constant" and _MARK in importer.artifact_uri.constant.string_value:
        text = importer.artifact_uri.constant.string_value
        _placeholders(survey, text, f"{there}.constant", faults)
    if len(component.output_definitions.artifacts) != 1:
        faults.add(place, "Its component does not have just one output artifact.")
    if importer.download_to_workspace and not survey.has_workspace:
        faults.add(f"{place}.downloadToWorkspace", NO_WORKSPACE, MEND_WORKSPACE)


# The platform


def check_platform(survey: Survey, faults: FaultCollector) -> None:
    """Collect faults of the Kubernetes settings."""
    executors = survey.pipeline.deployment.executors
    for label, config in sorted(survey.pipeline.kubernetes.items()):
        place = f"{_PLATFORM}.deploymentSpec.executors.{label}"
        if label not in executors:
            faults.add(place, "There is no such executor.", suggest_names(executors, label))
            continue
        found = platform.faults(config, place)
        faults.found += found
        if not found:
            values = list(platform.values(platform.read(config)))
            _check_values(survey, label, values, place, faults)
    _check_config(survey.pipeline.config, f"{_PLATFORM}.pipelineConfig", faults)


def _check_values(
    survey: Survey, label: str, values: list[ValueSource], place: str, faults: FaultCollector
) -> None:
    """Collect dangling references, of any task that has the settings."""
    for inside, name, task in survey.uses():
        component = survey.known(task.component_ref.name)
        if component is None or component.executor_label != label:
            continue
        above = survey.pipeline.component(inside)
        inputs = above.input_definitions.parameters
        for value in values:
            wanted = value.component_input_parameter
            if wanted is not None and wanted not in inputs:
                problem = f"The task {name} is in {inside}, which has no input {wanted!r}."
                faults.add(place, problem, suggest_names(inputs, wanted))
            output = value.task_output_parameter
            if output is None:
                continue
            siblings = above.dag.tasks
            if output.producer_task not in siblings:
                problem = f"Beside the task {name} there is no task {output.producer_task!r}."
                faults.add(place, problem, suggest_names(siblings, output.producer_task))
                continue
            made = survey.known(siblings[output.producer_task].component_ref.name)
            key = output.output_parameter_key
            if made is not None and key not in made.output_definitions.parameters:
                problem = f"{output.producer_task} has no output parameter {key!r}."
                faults.add(place, problem, suggest_names(made.output_definitions.parameters, key))


def _check_config(config: Any, place: str, faults: FaultCollector) -> None:
    for key, value in sorted(config.items()):
        if key != "workspace" and not 0 <= value <= _LATEST:
            faults.add(f"{place}.{key}", f"It is {value}, no number of seconds.")
    workspace = config.get("workspace")
    if workspace is None:
        return
    size = workspace.get("size", "")
    try:
        quantity(size)
    except BadInputError:
        remedy = "Write it like 10Gi."
        faults.add(f"{place}.workspace.size", f"{size[:50]!r} is not a quantity.", remedy)
