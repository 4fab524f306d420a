"""Validation of a whole pipeline, from the root to every reachable executor."""

from __future__ import annotations

from pipelines.faults import FaultCollector, PipelineFault
from pipelines.pipeline import Pipeline
from pipelines.validation import dags, definitions, executors, tasks
from pipelines.validation.survey import Survey


def check(pipeline: Pipeline) -> None:
    """Refuse a pipeline that cannot run.

    Raises:
        PipelineInvalidError: With all faults.
    """
    found = FaultCollector()
    found.found = faults(pipeline)
    found.raise_any(f"The pipeline {pipeline.name}")


def faults(pipeline: Pipeline) -> list[PipelineFault]:
    """List all faults of a pipeline. Unreachable components are not checked."""
    found = FaultCollector()
    survey = Survey(pipeline)
    dags.check_root(survey, found)
    for name in survey.reached:
        component = pipeline.component(name)
        place = survey.place(name)
        definitions.check(component, place, found)
        kind = component.WhichOneof("implementation")
        if kind == "dag":
            for key, task in sorted(component.dag.tasks.items()):
                tasks.check(survey, name, key, task, found)
            dags.check(survey, name, found)
        elif kind == "executor_label":
            executors.check(survey, name, found)
        else:
            found.add(place, "It has neither a dag nor an executorLabel.", "Give it one.")
    executors.check_platform(survey, found)
    return found.found
