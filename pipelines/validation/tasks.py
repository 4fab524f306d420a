"""Validation of tasks: inputs, conditions, loops and policies."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from infra.errors import BadInputError
from infra.suggestions import suggest_names
from pipelines import conditions, placeholders, selection, values
from pipelines.faults import FaultCollector
from pipelines.validation import definitions
from pipelines.validation.compatibility import artifacts_fit, parameters_fit
from pipelines.validation.survey import Survey, bare, is_added, item_input
from pipelines.values import ParameterType

WORKSPACE = "{{$.workspace_path}}"
NO_WORKSPACE = "It wants the workspace, which the pipeline does not have."
MEND_WORKSPACE = "Give the pipeline a dsl.PipelineConfig with a dsl.WorkspaceConfig."
# What a constant may have filled in; other braces in it are its own.
_OURS = re.compile(
    r"\{\{\$\.(?:inputs\b|outputs\b|outputMetadataUri\b|workspace_path\b|pipeline_)[^\n{}]*\}\}"
)
# The compiler hands these to a task beside its component's inputs.
_SETTINGS = {
    "base_image", "cpu_limit", "cpu_request", "memory_limit", "memory_request",
    "accelerator_type", "accelerator_count", "accelerator_limit",
}  # fmt: skip
_COMPLETED = ir.PipelineTaskSpec.TriggerPolicy.ALL_UPSTREAM_TASKS_COMPLETED
_LIST = ParameterType.LIST
_LOOPABLE = {ParameterType.LIST, ParameterType.STRING, ParameterType.UNSPECIFIED}
_ELSEWHERE = "A task of another DAG is reached through an input of this one."


def check(
    survey: Survey, inside: str, name: str, task: ir.PipelineTaskSpec, faults: FaultCollector
) -> None:
    """Collect faults of a task of the component ``inside``."""
    place = f"{survey.place(inside)}.dag.tasks.{name}"
    runs = task.component_ref.name
    component = survey.known(runs)
    if component is None:
        problem = f"There is no component {runs!r}." if runs else "It names no component."
        remedy = suggest_names(survey.pipeline.spec.components, runs)
        faults.add(f"{place}.componentRef.name", problem, remedy)
    else:
        one = _Task(survey, inside, name, task, component, place, faults)
        one.check_parameters()
        one.check_artifacts()
        one.check_iterator()
        one.check_condition()
    siblings = survey.pipeline.component(inside).dag.tasks
    for number, wanted in enumerate(task.dependent_tasks):
        if wanted not in siblings:
            there = f"{place}.dependentTasks[{number}]"
            faults.add(
                there, f"There is no task {wanted!r} in this DAG.", suggest_names(siblings, wanted)
            )
    _check_policies(task, place, faults)


def _check_policies(task: ir.PipelineTaskSpec, place: str, faults: FaultCollector) -> None:
    retry = task.retry_policy
    wrong = {
        "maxRetryCount": retry.max_retry_count < 0,
        "backoffFactor": retry.backoff_factor < 0,
        "backoffDuration": retry.backoff_duration.ToNanoseconds() < 0,
        "backoffMaxDuration": retry.backoff_max_duration.ToNanoseconds() < 0,
    }
    for field, is_wrong in wrong.items():
        if is_wrong:
            faults.add(f"{place}.retryPolicy.{field}", "It is below 0.", "Give 0 or more.")
    if task.iterator_policy.parallelism_limit < 0:
        there = f"{place}.iteratorPolicy.parallelismLimit"
        faults.add(there, "It is below 0.", "Give 0 for no limit.")


@dataclass(frozen=True)
class _Task:
    """Check of a task whose component exists."""

    survey: Survey
    inside: str
    name: str
    task: ir.PipelineTaskSpec
    component: ir.ComponentSpec
    place: str
    faults: FaultCollector

    @property
    def _above(self) -> ir.ComponentInputsSpec:
        return self.survey.pipeline.component(self.inside).input_definitions

    @property
    def _siblings(self) -> Mapping[str, ir.PipelineTaskSpec]:
        tasks: Mapping[str, ir.PipelineTaskSpec]
        tasks = self.survey.pipeline.component(self.inside).dag.tasks
        return tasks

    # Parameters

    def check_parameters(self) -> None:
        declared = self.component.input_definitions.parameters
        given = self.task.inputs.parameters
        for key, spec in sorted(given.items()):
            place = f"{self.place}.inputs.parameters.{key}"
            if key not in declared and not self._is_extra(key):
                self._unknown(place, key, "parameter", self.component.input_definitions)
                continue
            wanted = declared.get(key)
            found = self._parameter(spec, wanted, place)
            self._check_selector(spec, place)
            if wanted is None or found is None or spec.parameter_expression_selector:
                continue
            target = definitions.parameter_type(wanted)
            loose = (self.task.component_ref.name, key) in self.survey.loose
            if not loose and not parameters_fit(found, target):
                words = definitions.WORDS
                problem = f"It is given {words[found]}, where {words[target]} is wanted."
                self.faults.add(place, problem, "Hand on what is wanted, or change its type.")
        for key, missing in sorted(declared.items()):
            self._check_default(key, missing)
            needed = not (missing.is_optional or missing.HasField("default_value"))
            if needed and key not in given and key != item_input(self.task):
                place = f"{self.place}.inputs.parameters.{key}"
                self.faults.add(place, "The component wants it, but the task is not given it.",
                                "Give it, or give the parameter a default.")  # fmt: skip

    def _check_default(self, key: str, spec: ir.ComponentInputsSpec.ParameterSpec) -> None:
        name = self.task.component_ref.name
        place = f"components.{name}.inputDefinitions.parameters.{key}.defaultValue"
        for placeholder in _placeholders(values.from_proto(spec.default_value)):
            self._check_placeholder(placeholder, place)

    def _is_extra(self, key: str) -> bool:
        """Whether an undeclared input is meant for placeholders."""
        if is_added(key) or key in _SETTINGS:
            return True
        mark = f"inputs.parameters['{key}']"
        label = self.component.executor_label
        executors = self.survey.pipeline.deployment.executors
        texts = [json_format.MessageToJson(self.task.inputs, ensure_ascii=False)]
        if label and label in executors:
            texts.append(json_format.MessageToJson(executors[label], ensure_ascii=False))
        return any(mark in text for text in texts)

    def _unknown(self, place: str, key: str, kind: str, declared: ir.ComponentInputsSpec) -> None:
        other = declared.artifacts if kind == "parameter" else declared.parameters
        if key in other:
            wanted = "an artifact" if kind == "parameter" else "a parameter"
            self.faults.add(place, f"The component has it as {wanted}.", "Hand on one.")
            return
        mine = declared.parameters if kind == "parameter" else declared.artifacts
        name = self.task.component_ref.name
        self.faults.add(
            place, f"The component {name} has no such {kind}.", suggest_names(mine, key)
        )

    def _parameter(
        self,
        spec: ir.TaskInputsSpec.InputParameterSpec,
        wanted: ir.ComponentInputsSpec.ParameterSpec | None,
        place: str,
    ) -> ParameterType | None:
        """Return the source's type; None where unknown, or where a fault was collected."""
        kind = spec.WhichOneof("kind")
        if kind == "component_input_parameter":
            return self._from_above(spec.component_input_parameter, place)
        if kind == "task_output_parameter":
            one = spec.task_output_parameter
            return self._from_task(one.producer_task, one.output_parameter_key, wanted, place)
        if kind == "task_final_status":
            self._check_status(spec.task_final_status.producer_task, wanted, place)
            return None
        if kind == "runtime_value":
            if spec.runtime_value.WhichOneof("value") == "runtime_parameter":
                return self._from_above(spec.runtime_value.runtime_parameter, place)
            self._check_constant(spec.runtime_value, wanted, place)
            return None
        self.faults.add(place, "Nothing is given.", "Give a value, or leave the input out.")
        return None

    def _from_above(self, name: str, place: str) -> ParameterType | None:
        declared = self._above.parameters
        if name in declared:
            if (self.inside, name) in self.survey.loose:
                return None
            return definitions.parameter_type(declared[name])
        item = item_input(self.task)
        if item and bare(name) == bare(item):  # a loop's own item, as the compiler writes it
            return None
        if name in self._above.artifacts:
            self.faults.add(place, f"{name} is an artifact of {self.inside}, no parameter.")
        else:
            problem = f"{self.inside} has no input parameter {name!r}."
            self.faults.add(place, problem, suggest_names(declared, name))
        return None

    def _from_task(
        self,
        producer: str,
        key: str,
        wanted: ir.ComponentInputsSpec.ParameterSpec | None,
        place: str,
    ) -> ParameterType | None:
        made = self._producer(producer, place)
        if made is None:
            return None
        outputs = made.output_definitions
        if key in outputs.parameters:
            found = definitions.parameter_type(outputs.parameters[key])
            # Older compilers declare what a loop has collected as the type of one iteration's.
            listed = wanted is not None and definitions.parameter_type(wanted) == _LIST
            return None if listed and not self._is_plain(producer) else found
        if key in outputs.artifacts:
            self.faults.add(place, f"{key} of {producer} is an artifact, no parameter.")
        else:
            remedy = suggest_names(outputs.parameters, key, "It has no output parameters.")
            self.faults.add(place, f"{producer} has no output parameter {key!r}.", remedy)
        return None

    def _producer(self, name: str, place: str) -> ir.ComponentSpec | None:
        if name not in self._siblings:
            remedy = f"{suggest_names(self._siblings, name)} {_ELSEWHERE}"
            self.faults.add(place, f"There is no task {name!r} in this DAG.", remedy)
            return None
        return self.survey.known(self._siblings[name].component_ref.name)

    def _check_status(
        self, producer: str, wanted: ir.ComponentInputsSpec.ParameterSpec | None, place: str
    ) -> None:
        self._producer(producer, place)
        if self.task.trigger_policy.strategy != _COMPLETED:
            problem = "Only an exit task can have the final status of other tasks as its input."
            remedy = "Use it as the exit task of dsl.ExitHandler."
            self.faults.add(f"{place}.taskFinalStatus", problem, remedy)
        allowed = {
            ParameterType.TASK_FINAL_STATUS, ParameterType.STRUCT, ParameterType.STRING,
            ParameterType.UNSPECIFIED,
        }  # fmt: skip
        if wanted is not None and definitions.parameter_type(wanted) not in allowed:
            words = definitions.WORDS[definitions.parameter_type(wanted)]
            self.faults.add(place, f"It is given a task's status, where {words} is wanted.")

    def _check_constant(
        self,
        runtime: ir.ValueOrRuntimeParameter,
        wanted: ir.ComponentInputsSpec.ParameterSpec | None,
        place: str,
    ) -> None:
        kind = runtime.WhichOneof("value")
        if kind is None:
            self.faults.add(place, "Its runtimeValue is empty.", "Give a constant.")
            return
        if kind != "constant":
            return
        value = values.from_proto(runtime.constant)
        there = f"{place}.runtimeValue.constant"
        filled = _placeholders(value)
        for placeholder in filled:
            self._check_placeholder(placeholder, there)
        if wanted is None or (filled and isinstance(value, str)):
            return
        if value is None and (wanted.is_optional or wanted.HasField("default_value")):
            return
        problem = definitions.mismatch(value, wanted)
        if problem:
            self.faults.add(there, problem, "Give a value of the input's type.")

    def _check_placeholder(self, text: str, place: str) -> None:
        if text == WORKSPACE and not self.survey.has_workspace:
            self.faults.add(place, NO_WORKSPACE, MEND_WORKSPACE)
        try:
            found = placeholders.check_constant(text)
        except BadInputError as error:
            self.faults.add_error(place, error)
            return
        there = {*self.task.inputs.parameters, *self.component.input_definitions.parameters}
        for one in found:
            if one.kind == "inputs.parameters" and one.name not in there:
                problem = f"The task has no input parameter {one.name!r}."
                self.faults.add(place, problem, suggest_names(there, one.name))

    def _check_selector(self, spec: ir.TaskInputsSpec.InputParameterSpec, place: str) -> None:
        if spec.parameter_expression_selector:
            try:
                selection.check(spec.parameter_expression_selector)
            except BadInputError as error:
                self.faults.add_error(f"{place}.parameterExpressionSelector", error)

    # Artifacts

    def check_artifacts(self) -> None:
        declared = self.component.input_definitions.artifacts
        given = self.task.inputs.artifacts
        for key, spec in sorted(given.items()):
            place = f"{self.place}.inputs.artifacts.{key}"
            if key not in declared:
                self._unknown(place, key, "artifact", self.component.input_definitions)
                continue
            self._check_artifact(spec, declared[key], place)
        for key, missing in sorted(declared.items()):
            if not missing.is_optional and key not in given and key != item_input(self.task):
                place = f"{self.place}.inputs.artifacts.{key}"
                problem = "The component wants it, but the task is not given it."
                self.faults.add(place, problem, "Give it, or make it optional.")

    def _check_artifact(
        self,
        spec: ir.TaskInputsSpec.InputArtifactSpec,
        wanted: ir.ComponentInputsSpec.ArtifactSpec,
        place: str,
    ) -> None:
        kind = spec.WhichOneof("kind")
        if kind is None:
            self.faults.add(place, "Nothing is given.", "Give an artifact, or leave it out.")
            return
        found: ir.ComponentInputsSpec.ArtifactSpec | ir.ComponentOutputsSpec.ArtifactSpec | None
        if kind == "component_input_artifact":
            found = self._artifact_above(spec.component_input_artifact, place)
            certain = False
        else:
            one = spec.task_output_artifact
            found = self._artifact_of(one.producer_task, one.output_artifact_key, place)
            certain = found is not None and self._is_plain(one.producer_task)
        if found is None:
            return
        if not artifacts_fit(found.artifact_type, wanted.artifact_type):
            titles = [one.artifact_type.schema_title for one in (found, wanted)]
            problem = f"It is given a {titles[0]}, where a {titles[1]} is wanted."
            self.faults.add(place, problem, "Hand on what is wanted, or change its type.")
        if certain and found.is_artifact_list != wanted.is_artifact_list:
            many, one_of = "a list of artifacts", "one artifact"
            words = (many, one_of) if found.is_artifact_list else (one_of, many)
            self.faults.add(place, f"It is given {words[0]}, where {words[1]} is wanted.")

    def _is_plain(self, producer: str) -> bool:
        """Whether a task is neither a loop nor a DAG, so its outputs have their declared types."""
        task = self._siblings[producer]
        component = self.survey.known(task.component_ref.name)
        return bool(component and component.executor_label and not item_input(task))

    def _artifact_above(self, name: str, place: str) -> ir.ComponentInputsSpec.ArtifactSpec | None:
        declared = self._above.artifacts
        if name in declared:
            return declared[name]
        item = item_input(self.task)
        if not (item and bare(name) == bare(item)):
            problem = f"{self.inside} has no input artifact {name!r}."
            self.faults.add(
                place, problem, suggest_names(declared, name, "It has no input artifacts.")
            )
        return None

    def _artifact_of(
        self, producer: str, key: str, place: str
    ) -> ir.ComponentOutputsSpec.ArtifactSpec | None:
        made = self._producer(producer, place)
        if made is None:
            return None
        outputs = made.output_definitions
        if key in outputs.artifacts:
            return outputs.artifacts[key]
        if key in outputs.parameters:
            self.faults.add(place, f"{key} of {producer} is a parameter, no artifact.")
        else:
            remedy = suggest_names(outputs.artifacts, key, "It has no output artifacts.")
            self.faults.add(place, f"{producer} has no output artifact {key!r}.", remedy)
        return None

    # When, and how often

    def check_iterator(self) -> None:
        kind = self.task.WhichOneof("iterator")
        if kind is None:
            return
        parameter = kind == "parameter_iterator"
        place = f"{self.place}.{'parameterIterator' if parameter else 'artifactIterator'}"
        item = item_input(self.task)
        inputs = self.component.input_definitions
        declared = set(inputs.parameters if parameter else inputs.artifacts)
        if not item:
            self.faults.add(f"{place}.itemInput", "It is missing.", "Name the item's input.")
        elif item not in declared:
            problem = f"The component {self.task.component_ref.name} has no input {item!r}."
            self.faults.add(f"{place}.itemInput", problem, suggest_names(declared, item))
        if parameter:
            self._check_items(f"{place}.items")
        else:
            name = self.task.artifact_iterator.items.input_artifact
            if name not in self.task.inputs.artifacts:
                remedy = suggest_names(
                    self.task.inputs.artifacts, name, "It is given no artifacts."
                )
                there = f"{place}.items.inputArtifact"
                self.faults.add(there, f"The task has no input {name!r}.", remedy)

    def _check_items(self, place: str) -> None:
        items = self.task.parameter_iterator.items
        kind = items.WhichOneof("kind")
        if kind is None:
            self.faults.add(place, "There are no items.", "Give raw, or an inputParameter.")
        elif kind == "raw":
            try:
                given = values.from_json(items.raw)
            except ValueError:
                given = None
            if not isinstance(given, list):
                self.faults.add(
                    f"{place}.raw", "It is not a list in JSON.", 'Write it like "[1]".'
                )
        else:
            declared = self.component.input_definitions.parameters
            name = items.input_parameter
            if name not in self.task.inputs.parameters and name not in declared:
                remedy = suggest_names(
                    self.task.inputs.parameters, name, "It is given no parameters."
                )
                there = f"{place}.inputParameter"
                self.faults.add(there, f"The task has no input {name!r}.", remedy)
            elif name in declared:
                found = definitions.parameter_type(declared[name])
                if found not in _LOOPABLE:
                    problem = f"{name} is {definitions.WORDS[found]}, no list to loop over."
                    self.faults.add(f"{place}.inputParameter", problem)

    def check_condition(self) -> None:
        condition = self.task.trigger_policy.condition
        if not condition:
            return
        place = f"{self.place}.triggerPolicy.condition"
        try:
            named = conditions.names(condition)
        except BadInputError as error:
            self.faults.add_error(place, error)
            return
        there = {*self.task.inputs.parameters, *self.component.input_definitions.parameters}
        for name in sorted(named - there):
            self.faults.add(place, f"The task has no input {name!r}.", suggest_names(there, name))


def _placeholders(value: Any) -> list[str]:
    """List the placeholders of a value that KFP fills, in order."""
    return [match[0] for text in _texts(value) for match in _OURS.finditer(text)]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, one in value.items():
            yield key
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
