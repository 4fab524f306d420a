"""The inputs and outputs that a component declares: their names, and their defaults."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, TypeAlias

from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from infra.errors import BadInputError
from pipelines import values
from pipelines.faults import Faults

_LONGEST = 200
_UNSAFE = re.compile(r"[/\\\x00-\x1f\x7f]")
_OLD_TYPES = {1: values.ParameterType.NUMBER_INTEGER, 2: values.ParameterType.NUMBER_DOUBLE,
              3: values.ParameterType.STRING}  # fmt: skip

Parameter: TypeAlias = ir.ComponentInputsSpec.ParameterSpec | ir.ComponentOutputsSpec.ParameterSpec

WORDS = {
    values.ParameterType.NUMBER_INTEGER: "a whole number",
    values.ParameterType.NUMBER_DOUBLE: "a number",
    values.ParameterType.STRING: "a text",
    values.ParameterType.BOOLEAN: "true or false",
    values.ParameterType.LIST: "a list",
    values.ParameterType.STRUCT: "a mapping",
    values.ParameterType.TASK_FINAL_STATUS: "a task's final status",
    values.ParameterType.TASK_CONFIG: "a task's configuration",
}


def parameter_type(spec: Parameter) -> values.ParameterType:
    """A parameter's type, also where it is written as the first versions of the IR did."""
    if spec.parameter_type:
        return values.ParameterType(spec.parameter_type)
    return _OLD_TYPES.get(spec.type, values.ParameterType.UNSPECIFIED)


def check(component: ir.ComponentSpec, place: str, faults: Faults) -> None:
    """Note what is wrong with what a component declares."""
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


def check_names(names: Iterable[str], place: str, faults: Faults) -> None:
    """Note names that could not be those of files: tasks and outputs become folders and files."""
    for name in sorted(names):
        if not name.strip() or name in {".", ".."} or _UNSAFE.search(name):
            problem = f"The name {name!r} has a character that names of files cannot have."
            faults.add(f"{place}.{name}", problem, "Use letters, digits, - and _.")
        elif len(name.encode()) > _LONGEST:
            problem = f"The name is longer than {_LONGEST} bytes."
            faults.add(f"{place}.{name[:30]}…", problem, "Shorten it.")


def _check_default(spec: ir.ComponentInputsSpec.ParameterSpec, place: str, faults: Faults) -> None:
    if not spec.HasField("default_value"):
        return
    default = values.from_proto(spec.default_value)
    if default is None and spec.is_optional:
        return
    problem = mismatch(default, spec)
    if problem:
        faults.add(f"{place}.defaultValue", problem, "Give a default of the parameter's type.")


def mismatch(value: Any, spec: ir.ComponentInputsSpec.ParameterSpec) -> str:
    """Why a value cannot be that of a parameter, without the value itself; "" if it can."""
    wanted = parameter_type(spec)
    if wanted == values.ParameterType.UNSPECIFIED:
        return ""
    literals = [values.from_proto(one) for one in spec.literals]
    try:
        values.checked(value, wanted, "It", literals)
    except BadInputError as error:
        if error.code == "ParameterNotAllowed":
            return f"{error.message} {error.hint}"
        return f"It is {kind(value)}, where {WORDS[wanted]} is wanted."
    return ""


def kind(value: Any) -> str:
    """What a value is, in a word."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return "a text"
    return "a list" if isinstance(value, list) else "a mapping"
