"""Arguments of a pipeline: validation, defaults, and the form's JSON schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from infra.errors import BadInputError
from infra.suggestions import did_you_mean
from infra.texts import is_storable
from pipelines import values
from pipelines.faults import FaultCollector
from pipelines.pipeline import Pipeline
from pipelines.validation import definitions
from pipelines.values import ParameterType

_Parameter: TypeAlias = ir.ComponentInputsSpec.ParameterSpec
_Artifact: TypeAlias = ir.ComponentInputsSpec.ArtifactSpec

_CODE = "ArgumentsInvalid"
# Types that only a task within a pipeline can have.
_INNER = {ParameterType.TASK_FINAL_STATUS, ParameterType.TASK_CONFIG}
_SCHEMAS: dict[ParameterType, dict[str, Any]] = {
    ParameterType.NUMBER_INTEGER: {"type": "integer"},
    ParameterType.NUMBER_DOUBLE: {"type": "number"},
    ParameterType.STRING: {"type": "string"},
    ParameterType.BOOLEAN: {"type": "boolean"},
    ParameterType.LIST: {"type": "array", "items": {}},
    ParameterType.STRUCT: {"type": "object", "additionalProperties": True},
}

_EXAMPLES = {
    ParameterType.NUMBER_INTEGER: "Write a whole number, such as 3.",
    ParameterType.NUMBER_DOUBLE: "Write a number, such as 0.5.",
    ParameterType.STRING: "Write it in quotes, such as '\"3\"'.",
    ParameterType.BOOLEAN: "Give true or false.",
    ParameterType.LIST: "Write it as JSON, such as '[1, 2]'.",
    ParameterType.STRUCT: "Write it as JSON, such as '{\"a\": 1}'.",
}


def arguments(
    pipeline: Pipeline, given: Mapping[str, Any], *, coerce: bool = False
) -> dict[str, Any]:
    """The arguments of a run: what is given, and the defaults of the rest.

    An input artifact of the pipeline is given as its address, or as a list of addresses. An
    optional input that has no default, and is not given or is null, is left out.

    Args:
        pipeline: The pipeline.
        given: What the caller gives, by the names of the pipeline's inputs.
        coerce: Whether texts are read as what they should be, as on a command line: JSON, and
            for a truth value also True and False.

    Raises:
        PipelineInvalidError: With the code ``ArgumentsInvalid``, and all that is wrong.
    """
    faults = FaultCollector()
    inputs = pipeline.spec.root.input_definitions
    parameters = _givable(inputs)
    for name in sorted(set(given) - set(parameters) - set(inputs.artifacts)):
        names = [*parameters, *inputs.artifacts]
        faults.add(name, "The pipeline has no such input.", did_you_mean(name, names))
    found: dict[str, Any] = {}
    for name, parameter in parameters.items():
        value = given.get(name)
        if value is None:
            value = _default(parameter, name, faults)
        elif not (coerce and isinstance(value, str)):
            value = _checked(value, parameter, name, faults)
        else:
            value = _read(value, parameter, name, faults)
        if value is not None:
            found[name] = value
    for name, artifact in sorted(inputs.artifacts.items()):
        address = _address(given.get(name), artifact, name, faults)
        if address is not None:
            found[name] = address
    takes = ", ".join([*parameters, *inputs.artifacts]) or "nothing"
    faults.raise_any(
        f"What the pipeline {pipeline.name} is given",
        f"Fix the values; the pipeline takes {takes}.",
        code=_CODE,
    )
    return found


def string_inputs(pipeline: Pipeline) -> set[str]:
    """Names of the inputs that are strings, or URIs of artifacts."""
    inputs = pipeline.spec.root.input_definitions
    found = {
        name for name, one in _givable(inputs).items()
        if definitions.parameter_type(one) == ParameterType.STRING
    }  # fmt: skip
    return found | {name for name, one in inputs.artifacts.items() if not one.is_artifact_list}


def form(pipeline: Pipeline) -> dict[str, Any]:
    """JSON schema of the arguments: required ones first, each with its position."""
    inputs = pipeline.spec.root.input_definitions
    fields = {name: _field(one) for name, one in _givable(inputs).items()}
    fields |= {name: _artifact_field(one) for name, one in inputs.artifacts.items()}
    required = sorted(name for name, one in fields.items() if "default" not in one)
    ordered = [*required, *sorted(set(fields) - set(required))]
    properties = {
        name: {"title": name, "position": position, **fields[name]}
        for position, name in enumerate(ordered)
    }
    return {
        "title": "Arguments",
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _givable(inputs: ir.ComponentInputsSpec) -> dict[str, _Parameter]:
    return {
        name: inputs.parameters[name]
        for name in sorted(inputs.parameters)
        if definitions.parameter_type(inputs.parameters[name]) not in _INNER
    }


def _default(parameter: _Parameter, name: str, faults: FaultCollector) -> Any:
    if parameter.HasField("default_value"):
        return values.from_proto(parameter.default_value)
    if not parameter.is_optional:
        word = definitions.WORDS.get(definitions.parameter_type(parameter), "a value")
        faults.add(name, "It is missing.", f"Give {word}.")
    return None


def _checked(value: Any, parameter: _Parameter, name: str, faults: FaultCollector) -> Any:
    wanted = definitions.parameter_type(parameter)
    problem = definitions.mismatch(value, parameter)
    if problem:
        faults.add(name, problem, "" if parameter.literals else _EXAMPLES.get(wanted, ""))
        return None
    if not _is_storable(value, name, faults):
        return None
    return values.validate(value, wanted, name)


def _is_storable(value: Any, name: str, faults: FaultCollector) -> bool:
    if is_storable(value):
        return True
    problem = "It has a NUL character, or half of a surrogate pair, which no database takes."
    faults.add(name, problem, "Take it out.")
    return False


def _read(text: str, parameter: _Parameter, name: str, faults: FaultCollector) -> Any:
    """Parse an argument of the command line."""
    wanted = definitions.parameter_type(parameter)
    try:
        value = values.from_output_file(text, wanted)
    except BadInputError:
        words = definitions.WORDS.get(wanted, "JSON")
        faults.add(name, f"The text is not {words}.", _EXAMPLES.get(wanted, ""))
        return None
    return _checked(value, parameter, name, faults)


def _address(value: Any, artifact: _Artifact, name: str, faults: FaultCollector) -> Any:
    if value is None:
        if not artifact.is_optional:
            faults.add(name, "The artifact is missing.", "Give its address.")
        return None
    if artifact.is_artifact_list:
        right = isinstance(value, list) and all(_is_address(one) for one in value)
        wanted = "a list of addresses of artifacts"
    else:
        right, wanted = _is_address(value), "the address of an artifact"
    if not right:
        problem = f"It is {definitions.kind(value)}, where {wanted} is wanted."
        faults.add(name, problem)
        return None
    return value if _is_storable(value, name, faults) else None


def _is_address(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _field(parameter: _Parameter) -> dict[str, Any]:
    schema = dict(_SCHEMAS.get(definitions.parameter_type(parameter), {}))
    if parameter.literals:
        schema["enum"] = [values.from_proto(one) for one in parameter.literals]
    if parameter.HasField("default_value"):
        schema["default"] = values.from_proto(parameter.default_value)
    elif parameter.is_optional:
        schema = {"anyOf": [schema, {"type": "null"}], "default": None} if schema else {
            "default": None
        }  # fmt: skip
    if parameter.description:
        schema["description"] = parameter.description
    return schema


def _artifact_field(artifact: _Artifact) -> dict[str, Any]:
    one: dict[str, Any] = {"type": "string"}
    schema = {"type": "array", "items": one} if artifact.is_artifact_list else one
    if artifact.is_optional:
        schema = {"anyOf": [schema, {"type": "null"}], "default": None}
    title = artifact.artifact_type.schema_title or "artifact"
    kinds = "Addresses" if artifact.is_artifact_list else "The address"
    schema["description"] = artifact.description or f"{kinds} of a {title}."
    return schema
