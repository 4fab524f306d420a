"""Selection of fields of values, loop items, and outputs of iterations and branches."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from infra.errors import BadInputError, ModelyardError
from pipelines import evaluation, expressions, values
from pipelines.artifacts import Artifact, Bundle
from pipelines.states import DONE, TaskState

_FIELDS = ("string_value", "number_value", "bool_value", "struct_value", "list_value")
_NAMES = frozenset({*_FIELDS, "null_value"})

# What KFP's compiler writes: the field of an item, and fields and indexes within it.
_PATH = re.compile(
    rf"\s*(?:parseJson\(\s*(?P<json>string_value)\s*\)|(?P<field>{'|'.join(_FIELDS)}))"
    r"(?P<steps>(?:\s*\[\s*(?:\"[^\"\\]*\"|'[^'\\]*'|\d{1,9})\s*\]|\s*\.\s*[A-Za-z_]\w*)*)\s*"
)
_MOST_OF_PATH = 2_000
_STEP = re.compile(r"\[\s*(?:\"([^\"\\]*)\"|'([^'\\]*)'|(\d+))\s*\]|\.\s*([A-Za-z_]\w*)")

_Value = TypeVar("_Value")


class SelectionFailedError(ModelyardError):
    """A selector matches nothing, or no alternative exists."""

    code = "SelectionFailed"


# Fields of values


def check(expression: str) -> None:
    """Refuse a ``parameterExpressionSelector`` that can never be evaluated.

    Raises:
        BadInputError: ``SelectorInvalid``.
    """
    if not _path(expression):
        _parsed(expression)


def select(value: Any, expression: str) -> Any:
    """Evaluate a ``parameterExpressionSelector`` on a value.

    ``string_value`` is the value as text, whatever it is, so that ``parseJson(string_value)["A"]``
    finds a field of a mapping and of a text that holds one alike. Anything that CEL can say is
    understood; only fields and indexes keep whole numbers of any size.

    Raises:
        BadInputError: ``SelectorInvalid``.
        SelectionFailedError: If the value has not what is asked for.
    """
    if path := _path(expression):
        return _followed(value, path, expression)
    fields = _fields(value, expressions.doubled(value))
    try:
        return values.protojson(evaluation.evaluate(_parsed(expression), fields))
    except (expressions.ExpressionUndecidedError, OverflowError) as error:
        raise _failed(expression, str(error)) from None


def _path(expression: str) -> re.Match[str] | None:
    return _PATH.fullmatch(expression) if len(expression) <= _MOST_OF_PATH else None


def _parsed(expression: str) -> expressions.Expression:
    try:
        return expressions.parse(expression, _NAMES)
    except expressions.ExpressionInvalidError as error:
        raise BadInputError(
            f"The selector {expression[:200]} cannot be read: {error}.",
            'Write it as KFP does, such as parseJson(string_value)["field"].',
            code="SelectorInvalid",
        ) from None


def _fields(value: Any, same: Any) -> dict[str, Any]:
    """A value in the fields of protobuf's ``Value``: its own one, and always its text."""
    fields: dict[str, Any] = {"string_value": values.as_text(value)}
    if value is None:
        fields["null_value"] = None
    elif isinstance(value, bool):
        fields["bool_value"] = same
    elif isinstance(value, int | float):
        fields["number_value"] = same
    elif isinstance(value, Mapping):
        fields["struct_value"] = same
    elif isinstance(value, list):
        fields["list_value"] = same
    return fields


def _followed(value: Any, path: re.Match[str], expression: str) -> Any:
    fields = _fields(value, value)
    if path["json"]:
        found = _json(value, fields, expression)
    elif path["field"] in fields:
        found = fields[path["field"]]
    else:
        raise _failed(expression, f"the value has no {path['field']}")
    for double, single, index, name in _STEP.findall(path["steps"]):
        key = double or single or name
        if index and isinstance(found, list) and int(index) < len(found):
            found = found[int(index)]
        elif not index and isinstance(found, Mapping) and key in found:
            found = found[key]
        else:
            raise _failed(expression, f"there is no {index or key!r}")
    return found


def _json(value: Any, fields: Mapping[str, Any], expression: str) -> Any:
    if value is not None and not isinstance(value, str):
        return value  # it is what its JSON says
    try:
        return values.from_json(fields["string_value"])
    except ValueError:
        raise _failed(expression, "the value is not JSON") from None


def _failed(expression: str, why: str) -> SelectionFailedError:
    return SelectionFailedError(
        f"The selector {expression[:200]} finds nothing: {why}.",
        "Every item of a loop must have the fields that its tasks ask for.",
    )


# Items of loops


def items(iterator: ir.ParameterIteratorSpec, parameters: Mapping[str, Any]) -> list[Any]:
    """Resolve the items of a loop over parameters; they may be empty.

    Args:
        iterator: The loop's iterator: JSON of its own, or the name of an input.
        parameters: What the loop's task is given. An input may be a list, or a text that is the
            JSON of one.

    Raises:
        BadInputError: ``ItemsNotAList``.
    """
    if iterator.items.WhichOneof("kind") == "raw":
        return _list_of(iterator.items.raw, "The items of the loop")
    name = iterator.items.input_parameter
    if parameters.get(name) is None:
        raise _no_list(f"The loop's input {name}", "it has no value")
    return _list_of(parameters[name], f"The loop's input {name}")


def artifact_items(
    iterator: ir.ArtifactIteratorSpec, artifacts: Mapping[str, Artifact | list[Artifact]]
) -> list[Artifact]:
    """Resolve the items of a loop over artifacts; they may be empty.

    Raises:
        BadInputError: ``ItemsNotAList``.
    """
    name = iterator.items.input_artifact
    found = artifacts.get(name)
    if not isinstance(found, list):
        why = "it is one artifact" if found else "it has no value"
        raise _no_list(f"The loop's input {name}", why)
    return list(found)


def iterations(
    task: ir.PipelineTaskSpec, inputs: Bundle, component: ir.ComponentSpec
) -> list[Bundle]:
    """Build the inputs of each iteration: those of the loop's task, and one item.

    The whole list is given to those loops alone whose tasks ask for it, or else a loop would keep
    as many lists as it has items.

    Args:
        task: The loop's task.
        inputs: What it is given.
        component: What each iteration runs.

    Raises:
        BadInputError: ``ItemsNotAList``.
    """
    parameters, artifacts = dict(inputs.parameters), dict(inputs.artifacts)
    if task.WhichOneof("iterator") == "artifact_iterator":
        over = task.artifact_iterator
        each = artifact_items(over, artifacts)
        if not _is_asked_for(over.items.input_artifact, component):
            del artifacts[over.items.input_artifact]
        return [Bundle(parameters, {**artifacts, over.item_input: one}) for one in each]
    iterator = task.parameter_iterator
    values_of = items(iterator, parameters)
    if not _is_asked_for(iterator.items.input_parameter, component):
        parameters.pop(iterator.items.input_parameter, None)
    return [Bundle({**parameters, iterator.item_input: one}, artifacts) for one in values_of]


def _is_asked_for(name: str, component: ir.ComponentSpec) -> bool:
    """Whether anything within a component uses an input of it."""
    if component.WhichOneof("implementation") != "dag":
        return True
    return any(
        name in {one.component_input_parameter, one.runtime_value.runtime_parameter}
        for task in component.dag.tasks.values()
        for one in task.inputs.parameters.values()
    ) or any(
        name == one.component_input_artifact
        for task in component.dag.tasks.values()
        for one in task.inputs.artifacts.values()
    )


def _list_of(found: Any, place: str) -> list[Any]:
    if isinstance(found, str):
        try:
            found = values.from_json(found)
        except ValueError:
            raise _no_list(place, "it is a string that is not JSON") from None
    if not isinstance(found, list):
        raise _no_list(place, "it is something else")
    return list(found)


def _no_list(place: str, why: str) -> BadInputError:
    return BadInputError(
        f"{place} should be a list, but {why}.",
        "Loop over a list, or over a string that is the JSON of one.",
        code="ItemsNotAList",
    )


# Outputs of iterations and of branches


def collect_outputs(
    definitions: ir.ComponentOutputsSpec, iterations_outputs: Sequence[Bundle]
) -> Bundle:
    """Collect a loop's outputs: of each the list over its iterations, in their order.

    An iteration that has no such output, because what makes it was skipped, is left out. Loops
    within loops make lists of lists of parameters, whose components take ``List[List[...]]``;
    artifacts stay one flat list however deep the loops are, because the IR has no other.

    Args:
        definitions: The outputs of the loop's component.
        iterations_outputs: What each iteration hands on.
    """
    parameters = {
        name: [one.parameters[name] for one in iterations_outputs if name in one.parameters]
        for name in definitions.parameters
    }
    artifacts: dict[str, Artifact | list[Artifact]] = {
        name: [
            artifact
            for one in iterations_outputs
            if name in one.artifacts
            for artifact in _listed(one.artifacts[name])
        ]
        for name in definitions.artifacts
    }
    return Bundle(parameters, artifacts)


def _listed(found: Artifact | list[Artifact]) -> list[Artifact]:
    return found if isinstance(found, list) else [found]


def one_of(
    selectors: Sequence[tuple[str, str]],
    states: Mapping[str, TaskState],
    outputs: Callable[[str], Mapping[str, _Value]],
) -> _Value:
    """Return the output of the one of several tasks that ran.

    A task that was skipped is passed over even if an output of it is known, and so is one that
    ran without producing the output.

    Args:
        selectors: Tasks, and the names of their outputs.
        states: How the tasks have ended.
        outputs: The outputs of a task, by name.

    Raises:
        SelectionFailedError: ``NothingSelected``.
    """
    for task, name in selectors:
        if states.get(task) in DONE and name in (handed := outputs(task)):
            return handed[name]
    tasks = ", ".join(dict.fromkeys(task for task, _ in selectors))
    raise SelectionFailedError(
        f"None of {tasks} has run, so there is no output to choose.",
        "One branch of an alternative must run: add a branch for what is left.",
        code="NothingSelected",
    )
