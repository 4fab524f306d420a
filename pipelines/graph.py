"""Which tasks of a DAG wait for which."""

from __future__ import annotations

from kfp.pipeline_spec import pipeline_spec_pb2 as ir


def upstream(dag: ir.DagSpec) -> dict[str, frozenset[str]]:
    """The tasks that each task of a DAG waits for: those it names, and those it has inputs from.

    The compiler does not name all of the latter.
    """
    return {
        name: frozenset((*task.dependent_tasks, *producers(task)))
        for name, task in dag.tasks.items()
    }


def producers(task: ir.PipelineTaskSpec) -> set[str]:
    """The tasks whose outputs, or whose end, a task has as inputs."""
    found = set()
    for parameter in task.inputs.parameters.values():
        kind = parameter.WhichOneof("kind")
        if kind in {"task_output_parameter", "task_final_status"}:
            found.add(getattr(parameter, kind).producer_task)
    for artifact in task.inputs.artifacts.values():
        if artifact.WhichOneof("kind") == "task_output_artifact":
            found.add(artifact.task_output_artifact.producer_task)
    return found
