"""Validation of a component's declared inputs and outputs: names and defaults."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, TypeAlias

from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from infra.errors import BadInputError
from pipelines import values
from pipelines.faults import FaultCollector

_LONGEST = 200
_UNSAFE = re.compile(r"[/\\\x00-\x1f\x7f]")
_OLD_TYPES = {1: values.ParameterType.NUMBER_INTEGER, 2: values.ParameterType.NUMBER_DOUBLE,
              3: values.ParameterType.STRING}  # fmt: skip

Parameter: TypeAlias = ir.ComponentInputsSpec.ParameterSpec | ir.ComponentOutputsSpec.ParameterSpec

WORDS = {
    values.ParameterType.NUMBER_INTEGER: "a whole number",
    values.ParameterType.NUMBER_DOUBLE: "a number",
    values.ParameterType.STRING: "a string",
    values.ParameterType.BOOLEAN: "true or false",
    values.ParameterType.LIST: "a list",
    values.ParameterType.STRUCT: "a mapping",
    values.ParameterType.TASK_FINAL_STATUS: "a task's final status",
    values.ParameterType.TASK_CONFIG: "a task's configuration",
}


def parameter_type(spec: Parameter) -> values.ParameterType:
    """Return a parameter's type, also in the spelling of the IR's first versions."""
    if spec.parameter_type:
        return values.ParameterType(spec.parameter_type)
    return _OLD_TYPES.get(spec.type, values.ParameterType.UNSPECIFIED)


def check(component: ir.ComponentSpec, place: str, faults: FaultCollector) -> None:
    """Collect faults of a component's declarations."""
    inputs, outputs = component.input_definitions, component.output_definitions
    for part, spec in (("inputDefinitions", inputs), ("outputDefinitions", outputs)):
        for kind in ("parameters", "artifacts"):
            check_names(getattr(spec, kind), f"{place}.{part}.{kind}", faults)
        for twice in sorted(set(spec.parameters) & set(spec.artifacts)):
            there = f"{place}.{part}.artifacts.{twice}"
            faults.add(there, "There is a parameter of this name as well.", "Rename one.")
    if component.WhichOneof("implementation") == "dag":
        check_names(component.dag.tasks, f"{place}.dag.tasks", faults)
    for name, parameter in sorted(inputs.parameters.items()):
        _check_default(parameter, f"{place}.inputDefinitions.parameters.{name}", faults)


def check_names(names: Iterable[str], place: str, faults: FaultCollector) -> None:
    """Collect names that are invalid as file names: tasks and outputs become files."""
    for name in sorted(names):
        if not name.strip() or name in {".", ".."} or _UNSAFE.search(name):
            problem = f"The name {name!r} has a character that names of files cannot have."
            faults.add(f"{place}.{name}", problem, "Use letters, digits, - and _.")
        elif len(name.encode()) > _LONGEST:
            problem = f"The name is longer than {_LONGEST} bytes."
            faults.add(f"{place}.{name[:30]}…", problem, "Shorten it.")


def _check_default(
    spec: ir.ComponentInputsSpec.ParameterSpec, place: str, faults: FaultCollector
) -> None:
    if not spec.HasField("default_value"):
        return
    default = values.from_proto(spec.default_value)
    if default is None and spec.is_optional:
        return
    problem = mismatch(default, spec)
    if problem:
        faults.add(f"{place}.defaultValue", problem, "Give a default of the parameter's type.")


def mismatch(value: Any, spec: ir.ComponentInputsSpec.ParameterSpec) -> str:
    """Describe why a value does not fit a parameter, without showing it; "" if it fits."""
    wanted = parameter_type(spec)
    if wanted == values.ParameterType.UNSPECIFIED:
        return ""
    literals = [values.from_proto(one) for one in spec.literals]
    try:
        values.validate(value, wanted, "It", literals)
    except BadInputError as error:
        if error.code == "ParameterNotAllowed":
            return f"{error.message} {error.hint}"
        return f"It is {kind(value)}, where {WORDS[wanted]} is wanted."
    return ""


def kind(value: Any) -> str:
    """Name the type of a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return "a string"
    return "a list" if isinstance(value, list) else "a mapping"
