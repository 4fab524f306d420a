"""Dependencies between the tasks of a DAG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from pipelines.pipeline import Pipeline

_OUTPUT = "taskOutputParameter"


def upstream(dag: ir.DagSpec, pipeline: Pipeline | None = None) -> dict[str, frozenset[str]]:
    """Compute the upstream tasks of each task of a DAG.

    Those are the tasks that it names, those that it has inputs from, and those whose outputs are
    values of its settings of Kubernetes. The compiler does not name all of the latter two.

    Args:
        dag: The DAG.
        pipeline: The pipeline that it is of; without it, settings are not looked at.
    """
    found = {}
    for name, task in dag.tasks.items():
        settings = settings_outputs(pipeline, task) if pipeline is not None else ()
        handing = (producer for producer, _ in settings)
        found[name] = frozenset((*task.dependent_tasks, *producers(task), *handing))
    return found


def unconditional_tasks(pipeline: Pipeline) -> Iterator[tuple[str, str]]:
    """Generate the tasks that every run reaches, whatever its arguments.

    Those are the ones without a condition that are in no loop, whose list may be empty.

    Yields:
        The task's path in the run, and the name of its component.
    """
    dags = [("", pipeline.spec.root.dag)]
    while dags:
        above, dag = dags.pop()
        for name, task in sorted(dag.tasks.items()):
            if task.trigger_policy.condition or task.WhichOneof("iterator"):
                continue
            path, component = f"{above}{name}", task.component_ref.name
            if pipeline.component(component).WhichOneof("implementation") == "dag":
                dags.append((f"{path}/", pipeline.component(component).dag))
            else:
                yield path, component


def producers(task: ir.PipelineTaskSpec) -> set[str]:
    """List the tasks whose outputs, or whose final status, are inputs of a task."""
    found = set()
    for parameter in task.inputs.parameters.values():
        kind = parameter.WhichOneof("kind")
        if kind in {"task_output_parameter", "task_final_status"}:
            found.add(getattr(parameter, kind).producer_task)
    for artifact in task.inputs.artifacts.values():
        if artifact.WhichOneof("kind") == "task_output_artifact":
            found.add(artifact.task_output_artifact.producer_task)
    return found


def settings_outputs(pipeline: Pipeline, task: ir.PipelineTaskSpec) -> set[tuple[str, str]]:
    """List the outputs that a task's Kubernetes settings refer to, as (task, name)."""
    name = task.component_ref.name
    if name not in pipeline.spec.components:
        return set()
    label = pipeline.component(name).executor_label
    return set(_outputs(pipeline.kubernetes.get(label)))


def _outputs(config: Any) -> Iterator[tuple[str, str]]:
    """Find the outputs that settings name; the settings may be invalid."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            if key == _OUTPUT and isinstance(value, Mapping):
                producer, output = value.get("producerTask"), value.get("outputParameterKey")
                if isinstance(producer, str) and isinstance(output, str):
                    yield producer, output
            elif key != "runtimeValue":  # a constant is data, whatever is in it
                yield from _outputs(value)
    elif isinstance(config, list):
        for one in config:
            yield from _outputs(one)
