"""Descriptions of a task in a graph: executor, sources of its inputs, outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from pipelines import bootstrap, values
from pipelines.drawing import model, text
from pipelines.pipeline import Pipeline

_REGARDLESS = ir.PipelineTaskSpec.TriggerPolicy.TriggerStrategy.ALL_UPSTREAM_TASKS_COMPLETED
_LONGEST = 300
_PARSED = "parseJson(string_value)"  # before a selector; what it selects from is always parsed


def kind(task: ir.PipelineTaskSpec, pipeline: Pipeline) -> str:
    """Kind of a task's box."""
    if task.WhichOneof("iterator"):
        return model.LOOP
    if is_exit(task):
        return model.EXIT
    component = pipeline.component(task.component_ref.name)
    if component.WhichOneof("implementation") == "dag":
        return model.CONDITION if task.trigger_policy.condition else model.DAG
    executor = pipeline.executor(component.executor_label)
    return model.IMPORTER if executor.WhichOneof("spec") == "importer" else model.TASK


def is_exit(task: ir.PipelineTaskSpec) -> bool:
    """Whether a task is an exit task, which runs however others ended."""
    if task.trigger_policy.strategy != _REGARDLESS:
        return False
    asks = (one.WhichOneof("kind") for one in task.inputs.parameters.values())
    return "task_final_status" in asks or any(
        name.startswith("exit-handler") for name in task.dependent_tasks
    )


def note(task: ir.PipelineTaskSpec) -> str:
    """Describe a task's condition or loop items."""
    which = task.WhichOneof("iterator")
    if which == "parameter_iterator":
        items = task.parameter_iterator.items
        source = text.channel(items.input_parameter) or _raw(items.raw)
        return _cut(f"for each item of {source}{_limit(task)}")
    if which == "artifact_iterator":
        source = text.channel(task.artifact_iterator.items.input_artifact)
        return _cut(f"for each artifact of {source}{_limit(task)}")
    if task.trigger_policy.condition:
        return _cut(f"if {text.condition(task.trigger_policy.condition)}")
    if task.trigger_policy.strategy == _REGARDLESS:
        return "runs however those before it end"
    return ""


def _raw(raw: str) -> str:
    """The items of a loop as the pipeline has them, or how many there are."""
    try:
        items = json.loads(raw)
    except ValueError:
        return raw
    shown = json.dumps(items, ensure_ascii=False)
    if len(shown) > 40 and isinstance(items, list):
        return f"a list of {len(items)}"
    return shown


def _limit(task: ir.PipelineTaskSpec) -> str:
    limit = task.iterator_policy.parallelism_limit
    return f", {limit} at once" if limit else ""


def runs(component: ir.ComponentSpec, pipeline: Pipeline) -> tuple[str, tuple[str, ...]]:
    """Describe a component's executor, and list the packages that it installs."""
    if component.WhichOneof("implementation") != "executor_label":
        return "", ()
    executor = pipeline.executor(component.executor_label)
    if executor.WhichOneof("spec") == "importer":
        uri = executor.importer.artifact_uri
        if uri.WhichOneof("value") == "runtime_parameter":
            return f"from the input {uri.runtime_parameter}", ()
        return _cut(f"from {_shown(values.from_proto(uri.constant))}"), ()
    spec = executor.container
    installs = bootstrap.component([*spec.command, *spec.args]).installs
    named = [one for install in installs for one in install.requirements]
    return _cut(spec.image), tuple(map(_cut, named))


def inputs(task: ir.PipelineTaskSpec, calls: Mapping[str, str]) -> dict[str, str]:
    """Describe the source of each input of a task.

    Args:
        task: The task.
        calls: What the tasks beside it are called, by their keys.
    """
    found = {name: _parameter(one, calls) for name, one in task.inputs.parameters.items()}
    for name, artifact in task.inputs.artifacts.items():
        if artifact.WhichOneof("kind") == "task_output_artifact":
            made = artifact.task_output_artifact
            found[name] = f"{text.channel(made.output_artifact_key)} of {_of(made, calls)}"
        else:
            found[name] = _outer(artifact.component_input_artifact)
    return {_cut(text.channel(name)): _cut(where) for name, where in sorted(found.items())}


def _of(made: Any, calls: Mapping[str, str]) -> str:
    """The task that something comes from."""
    return calls.get(made.producer_task, str(made.producer_task))


def _parameter(one: ir.TaskInputsSpec.InputParameterSpec, calls: Mapping[str, str]) -> str:
    which = one.WhichOneof("kind")
    if which == "task_output_parameter":
        made = one.task_output_parameter
        where = f"{text.channel(made.output_parameter_key)} of {_of(made, calls)}"
    elif which == "component_input_parameter":
        where = _outer(one.component_input_parameter)
    elif which == "task_final_status":
        where = f"how {_of(one.task_final_status, calls)} has ended"
    elif which == "runtime_value":
        where = _shown(values.from_proto(one.runtime_value.constant))
    else:
        where = ""
    selector: str = one.parameter_expression_selector
    return where + selector.removeprefix(_PARSED)


def _outer(name: str) -> str:
    """An input of the group around a task."""
    label = text.channel(name)
    return label if label == "item" or label.endswith("[]") else f"the input {label}"


def outputs(component: ir.ComponentSpec) -> tuple[dict[str, str], tuple[str, ...]]:
    """List the type of each output of a component, and which are artifacts."""
    declared = component.output_definitions
    kinds = ir.ParameterType.ParameterTypeEnum
    found = {
        name: kinds.Name(one.parameter_type).removesuffix("_TYPE").replace("_", " ").lower()
        for name, one in declared.parameters.items()
    }
    for name, artifact in declared.artifacts.items():
        schema = artifact.artifact_type.schema_title or "system.Artifact"
        found[name] = f"list of {schema}" if artifact.is_artifact_list else schema
    shown = {_cut(text.channel(name)): _cut(found[name]) for name in sorted(found)}
    return shown, tuple(sorted(_cut(text.channel(name)) for name in declared.artifacts))


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _cut(label: str) -> str:
    line = text.plain(label[: 2 * _LONGEST])
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
