"""Resolution of a task's inputs and a DAG's outputs: references replaced by values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from infra.errors import ModelyardError
from pipelines import selection, values
from pipelines.artifacts import Artifact, Bundle
from pipelines.states import DONE, TaskResult

_ABSENT = object()
_JOB = "{{$.pipeline_job_resource_name}}"
_FIELD_OF_ITEM = re.compile(r"-subvar-(\w+)$")

# Fills the placeholders in a constant, with the other parameters of its task.
Fill = Callable[[Any, Mapping[str, Any]], Any]


class InputMissingError(ModelyardError):
    """A required input of a task has no value."""

    code = "InputMissing"


def inputs(
    name: str,
    task: ir.PipelineTaskSpec,
    component: ir.ComponentSpec,
    given: Bundle,
    ends: Mapping[str, TaskResult],
    fill: Fill,
) -> Bundle:
    """Resolve the inputs of a task.

    Args:
        name: The task's name in its DAG.
        task: The task.
        component: What it runs.
        given: What its DAG is given.
        ends: How the tasks of the DAG have ended that it waits for.
        fill: Fills placeholders in constants.

    Raises:
        InputMissingError: If something that it cannot do without was not handed on.
        BadInputError: If a selector or a placeholder of it cannot be followed.
    """
    constants: dict[str, Any] = {}
    found: dict[str, Any] = {}
    for key, spec in sorted(task.inputs.parameters.items()):
        value = _parameter(spec, given, ends, fill)
        if value is _ABSENT:
            continue
        if spec.parameter_expression_selector and not _selected_before(spec):
            value = selection.select(value, spec.parameter_expression_selector)
        (constants if spec.WhichOneof("kind") == "runtime_value" else found)[key] = value
    filled = {key: fill(value, {**constants, **found}) for key, value in constants.items()}
    parameters = _completed(name, component, {**found, **filled}, task, fill)
    return Bundle(parameters, _artifacts(name, task, component, given, ends))


def check_settings(
    name: str, settings: Iterable[tuple[str, str]], ends: Mapping[str, TaskResult]
) -> None:
    """Check that the outputs to which a task's Kubernetes settings refer exist.

    Args:
        name: The task's name in its DAG.
        settings: The outputs that they are, by the names of the tasks and of the outputs.
        ends: How the tasks of the DAG have ended that it waits for.

    Raises:
        InputMissingError: If one of those tasks has not ended well.
    """
    for producer, key in sorted(settings):
        if ends[producer].state not in DONE:
            raise InputMissingError(
                f"The task {name} has no value for a setting of Kubernetes: {key} of {producer}.",
                "What hands it on was skipped or failed.",
            )


def _parameter(
    spec: ir.TaskInputsSpec.InputParameterSpec,
    given: Bundle,
    ends: Mapping[str, TaskResult],
    fill: Fill,
) -> Any:
    kind = spec.WhichOneof("kind")
    if kind == "component_input_parameter":
        return given.parameters.get(spec.component_input_parameter, _ABSENT)
    if kind == "task_output_parameter":
        wanted = spec.task_output_parameter
        outputs = ends[wanted.producer_task].outputs
        return outputs.parameters.get(wanted.output_parameter_key, _ABSENT)
    if kind == "task_final_status":
        return _status(spec.task_final_status.producer_task, ends, fill)
    runtime = spec.runtime_value
    if runtime.WhichOneof("value") == "runtime_parameter":
        return given.parameters.get(runtime.runtime_parameter, _ABSENT)
    if runtime.WhichOneof("value") == "constant":
        return values.from_proto(runtime.constant)
    old = runtime.constant_value
    return getattr(old, old.WhichOneof("value")) if old.WhichOneof("value") else _ABSENT


def _selected_before(spec: ir.TaskInputsSpec.InputParameterSpec) -> bool:
    """Whether a selector repeats one that was applied to the DAG's input.

    Within a branch of a loop some compilers ask once more for the field ``b`` of an input that is
    this field already, as the suffix says that they have given its name.
    """
    field = _FIELD_OF_ITEM.search(spec.component_input_parameter)
    return field is not None and (
        spec.parameter_expression_selector == f'parseJson(string_value)["{field[1]}"]'
    )


def _status(task: str, ends: Mapping[str, TaskResult], fill: Fill) -> dict[str, Any]:
    end = ends[task]
    return {
        "state": end.final_status,
        "pipelineJobResourceName": fill(_JOB, {}),
        "pipelineTaskName": task,
        "error": {"message": end.reason} if end.reason else {},
    }


def _completed(
    name: str,
    component: ir.ComponentSpec,
    found: dict[str, Any],
    task: ir.PipelineTaskSpec,
    fill: Fill,
) -> dict[str, Any]:
    """Add the component's defaults to the parameters, each of its type.

    A default is the pipeline's own text, so its placeholders are filled; what is handed on stays.
    """
    iterated = task.parameter_iterator.item_input
    given = {key: value for key, value in found.items() if value is not None}
    for key, spec in sorted(component.input_definitions.parameters.items()):
        if found.get(key) is None:
            found.pop(key, None)
            if spec.HasField("default_value"):
                found[key] = fill(values.from_proto(spec.default_value), given)
            elif not spec.is_optional and key != iterated:
                raise InputMissingError(
                    f"The task {name} has no value for its parameter {key}.",
                    "What hands it on was skipped, failed, or was not given.",
                )
        else:
            place = f"{name}.{key}"
            found[key] = values.coerce(found[key], spec.parameter_type, place, spec.literals)
    return found


def _artifacts(
    name: str,
    task: ir.PipelineTaskSpec,
    component: ir.ComponentSpec,
    given: Bundle,
    ends: Mapping[str, TaskResult],
) -> dict[str, Artifact | list[Artifact]]:
    found: dict[str, Artifact | list[Artifact]] = {}
    for key, spec in sorted(task.inputs.artifacts.items()):
        if spec.WhichOneof("kind") == "component_input_artifact":
            value = given.artifacts.get(spec.component_input_artifact)
        else:
            wanted = spec.task_output_artifact
            value = ends[wanted.producer_task].outputs.artifacts.get(wanted.output_artifact_key)
        if value is not None:
            found[key] = value
    iterated = task.artifact_iterator.item_input
    for key, declared in sorted(component.input_definitions.artifacts.items()):
        if key not in found and not declared.is_optional and key != iterated:
            raise InputMissingError(
                f"The task {name} has no artifact for its input {key}.",
                "What hands it on was skipped, failed, or was not given.",
            )
    return found


def outputs(dag: ir.DagSpec, ends: Mapping[str, TaskResult]) -> Bundle:
    """Resolve the outputs of a DAG, without those of skipped tasks.

    Raises:
        ModelyardError: If none of several alternatives exists.
    """
    parameters: dict[str, Any] = {}
    for key, spec in sorted(dag.outputs.parameters.items()):
        one_of = spec.WhichOneof("kind") == "value_from_oneof"
        chosen = (
            spec.value_from_oneof.parameter_selectors if one_of else [spec.value_from_parameter]
        )
        pairs = [(one.producer_subtask, one.output_parameter_key) for one in chosen]
        _put(parameters, key, pairs, ends, lambda task: ends[task].outputs.parameters)
    artifacts: dict[str, Artifact | list[Artifact]] = {}
    for key, handed in sorted(dag.outputs.artifacts.items()):
        pairs = [(one.producer_subtask, one.output_artifact_key)
                 for one in handed.artifact_selectors]  # fmt: skip
        _put(artifacts, key, pairs, ends, lambda task: ends[task].outputs.artifacts)
    return Bundle(parameters, artifacts)


def _put(
    found: dict[str, Any],
    key: str,
    selectors: list[tuple[str, str]],
    ends: Mapping[str, TaskResult],
    of: Callable[[str], Mapping[str, Any]],
) -> None:
    """Add the output of the only task that a DAG output names, or of the one that ran."""
    if len(selectors) > 1:
        states = {task: ends[task].state for task, _ in selectors}
        found[key] = selection.one_of(selectors, states, of)
        return
    for task, name in selectors:
        handed = of(task)
        if name in handed:
            found[key] = handed[name]
