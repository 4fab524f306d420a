"""Validation of DAGs: dependencies and outputs."""

from __future__ import annotations

from collections.abc import Mapping

from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from infra.suggestions import suggest_names
from pipelines import graph
from pipelines.faults import FaultCollector
from pipelines.pipeline import ROOT
from pipelines.validation import definitions
from pipelines.validation.compatibility import artifacts_fit, parameters_fit
from pipelines.validation.survey import DEEPEST, Survey
from pipelines.values import ParameterType

MOST_TASKS = 100_000


def check_root(survey: Survey, faults: FaultCollector) -> None:
    """Collect faults of the pipeline as a whole."""
    root = survey.pipeline.spec.root
    if root.WhichOneof("implementation") == "executor_label":
        faults.add(ROOT, "It is not a DAG.", "Compile a function with @dsl.pipeline.")
    elif root.WhichOneof("implementation") == "dag" and not root.dag.tasks:
        faults.add("root.dag", "It has no tasks.", "Give the pipeline one.")
    _check_recursion(survey, faults)
    size, depth = survey.extent
    if size > MOST_TASKS:
        faults.add(ROOT, f"It has more than {MOST_TASKS} tasks.", "Use smaller loops.")
    if depth > DEEPEST:
        faults.add(ROOT, f"Its DAGs are nested more than {DEEPEST} levels deep.", "Flatten them.")


def _check_recursion(survey: Survey, faults: FaultCollector) -> None:
    """Collect components that run themselves, directly or through others."""
    done: set[str] = set()
    for start in survey.reached:
        above: list[str] = []
        # What is still to be looked at: a component, or None where one is left again.
        ahead: list[str | None] = [start]
        while ahead:
            name = ahead.pop()
            if name is None:
                done.add(above.pop())
                continue
            if name in above:
                round_trip = " → ".join([*above[above.index(name) :], name])
                faults.add(survey.place(name), f"It runs itself: {round_trip}.", "Use a loop.")
                continue
            if name in done:
                continue
            above.append(name)
            ahead.append(None)
            used = {task.component_ref.name for _, task in survey.tasks(name)}
            ahead += [one for one in sorted(used) if survey.known(one) is not None]


def check(survey: Survey, name: str, faults: FaultCollector) -> None:
    """Collect faults of a component's DAG."""
    component = survey.pipeline.component(name)
    place = f"{survey.place(name)}.dag"
    _check_cycles(survey, component.dag, place, faults)
    _Outputs(survey, component, f"{place}.outputs", faults).check()


def _check_cycles(survey: Survey, dag: ir.DagSpec, place: str, faults: FaultCollector) -> None:
    waits = {
        task: {one for one in above if one in dag.tasks}
        for task, above in graph.upstream(dag, survey.pipeline).items()
    }
    while cycle := _cycle(waits):
        members = " → ".join([*cycle, cycle[0]])
        faults.add(f"{place}.tasks", f"They wait for each other: {members}.", "Break the cycle.")
        for one in cycle:
            del waits[one]


def _cycle(waits: Mapping[str, set[str]]) -> list[str]:
    """Find a dependency cycle, each task waiting for the next; empty if there is none."""
    left = {task: {one for one in above if one in waits} for task, above in waits.items()}
    waited: dict[str, set[str]] = {}
    for task, above in left.items():
        for one in above:
            waited.setdefault(one, set()).add(task)
    free = [task for task, above in left.items() if not above]
    while free:
        ended = free.pop()
        del left[ended]
        for task in waited.get(ended, ()):
            left[task].discard(ended)
            if not left[task]:
                free.append(task)
    path: list[str] = []
    task = min(left, default="")
    while task and task not in path:
        path.append(task)
        task = min(left[task])
    return path[path.index(task) :] if task else []


class _Outputs:
    """Check of a DAG's outputs."""

    def __init__(
        self, survey: Survey, component: ir.ComponentSpec, place: str, faults: FaultCollector
    ) -> None:
        self._survey = survey
        self._component = component
        self._place = place
        self._faults = faults

    def check(self) -> None:
        declared = self._component.output_definitions
        outputs = self._component.dag.outputs
        for kind in ("parameters", "artifacts"):
            chosen, wanted = getattr(outputs, kind), getattr(declared, kind)
            for key in sorted(set(wanted) - set(chosen)):
                self._faults.add(
                    f"{self._place}.{kind}.{key}", "It is declared, but nothing hands it on.",
                    "Select an output of a task.",
                )  # fmt: skip
            for key in sorted(set(chosen) - set(wanted)):
                remedy = suggest_names(wanted, key, "It declares none.")
                there = f"{self._place}.{kind}.{key}"
                self._faults.add(there, "The component declares no such output.", remedy)
        for key, parameter in sorted(outputs.parameters.items()):
            self._check_parameter(key, parameter)
        for key, artifact in sorted(outputs.artifacts.items()):
            self._check_artifact(key, artifact)

    def _made(self, task: str, place: str) -> ir.ComponentOutputsSpec | None:
        tasks = self._component.dag.tasks
        if task not in tasks:
            problem = f"There is no task {task!r} in this DAG."
            self._faults.add(
                f"{place}.producerSubtask", problem, suggest_names(tasks, task, "It has none.")
            )
            return None
        component = self._survey.known(tasks[task].component_ref.name)
        return component.output_definitions if component is not None else None

    def _check_parameter(self, key: str, spec: ir.DagOutputsSpec.DagOutputParameterSpec) -> None:
        place = f"{self._place}.parameters.{key}"
        kind = spec.WhichOneof("kind")
        if kind == "value_from_oneof":
            selectors = [
                (one, f"{place}.valueFromOneof.parameterSelectors[{number}]")
                for number, one in enumerate(spec.value_from_oneof.parameter_selectors)
            ]
        else:
            selectors = (
                [(spec.value_from_parameter, f"{place}.valueFromParameter")] if kind else []
            )
        if not selectors:
            self._faults.add(place, "It selects nothing.", "Select an output of a task.")
        declared = self._component.output_definitions.parameters
        for one, there in selectors:
            made = self._made(one.producer_subtask, there)
            name = one.output_parameter_key
            if made is None:
                continue
            if name not in made.parameters:
                problem = f"{one.producer_subtask} has no output parameter {name!r}."
                remedy = suggest_names(made.parameters, name, "It has none.")
                self._faults.add(f"{there}.outputParameterKey", problem, remedy)
            elif key in declared:
                given = definitions.parameter_type(made.parameters[name])
                wanted = definitions.parameter_type(declared[key])
                # The compiler declares as a list what is collected somewhere, in a loop or not.
                if wanted != ParameterType.LIST and not parameters_fit(given, wanted):
                    words = definitions.WORDS
                    problem = f"It hands on {words[given]}, and declares {words[wanted]}."
                    self._faults.add(there, problem, "Declare what is handed on.")

    def _check_artifact(self, key: str, spec: ir.DagOutputsSpec.DagOutputArtifactSpec) -> None:
        place = f"{self._place}.artifacts.{key}"
        if not spec.artifact_selectors:
            self._faults.add(place, "It selects nothing.", "Select an output of a task.")
        declared = self._component.output_definitions.artifacts
        for number, one in enumerate(spec.artifact_selectors):
            there = f"{place}.artifactSelectors[{number}]"
            made = self._made(one.producer_subtask, there)
            name = one.output_artifact_key
            if made is None:
                continue
            if name not in made.artifacts:
                problem = f"{one.producer_subtask} has no output artifact {name!r}."
                remedy = suggest_names(made.artifacts, name, "It has none.")
                self._faults.add(f"{there}.outputArtifactKey", problem, remedy)
            elif key in declared:
                given, wanted = made.artifacts[name].artifact_type, declared[key].artifact_type
                if not artifacts_fit(given, wanted):
                    problem = (
                        f"It hands on a {given.schema_title}, and declares a "
                        f"{wanted.schema_title}."
                    )
                    self._faults.add(there, problem, "Declare what is handed on.")
