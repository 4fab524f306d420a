"""Values of parameters: types, conversion and formatting.

A value is plain JSON data. Protocol buffers know no whole numbers in their ``Value``, so that 3
and 3.0 are the same there; here a whole number stays one wherever it is read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from enum import IntEnum
from typing import Any, NoReturn

from google.protobuf import struct_pb2
from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from infra.errors import BadInputError

# Protocol buffers nest no deeper, so that nothing deeper could ever be handed on by KFP.
MOST_LEVELS = 100

# From here on protobuf's JSON, like JavaScript's, writes a number with an exponent.
_EXPONENT_FROM = 1e21

_Enum = ir.ParameterType.ParameterTypeEnum


class ParameterType(IntEnum):
    """Types of parameters, with their numbers in the IR."""

    UNSPECIFIED = _Enum.PARAMETER_TYPE_ENUM_UNSPECIFIED
    NUMBER_DOUBLE = _Enum.NUMBER_DOUBLE
    NUMBER_INTEGER = _Enum.NUMBER_INTEGER
    STRING = _Enum.STRING
    BOOLEAN = _Enum.BOOLEAN
    LIST = _Enum.LIST
    STRUCT = _Enum.STRUCT
    TASK_FINAL_STATUS = _Enum.TASK_FINAL_STATUS
    TASK_CONFIG = _Enum.TASK_CONFIG


_NAMES = {
    ParameterType.UNSPECIFIED: "a JSON value",
    ParameterType.NUMBER_DOUBLE: "a number",
    ParameterType.NUMBER_INTEGER: "a whole number",
    ParameterType.STRING: "a string",
    ParameterType.BOOLEAN: "true or false",
    ParameterType.LIST: "a list",
    ParameterType.STRUCT: "a mapping",
    ParameterType.TASK_FINAL_STATUS: "a task's final status, a mapping",
    ParameterType.TASK_CONFIG: "a task's configuration, a mapping",
}


def from_proto(value: struct_pb2.Value) -> Any:
    """Convert a protobuf value; integral numbers become ints, also in lists and structs."""
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        return _whole(value.number_value)
    if kind == "list_value":
        return [from_proto(item) for item in value.list_value.values]
    if kind == "struct_value":
        fields = value.struct_value.fields
        return {key: from_proto(fields[key]) for key in sorted(fields)}
    return None if kind in {None, "null_value"} else getattr(value, kind)


def protojson(value: Any) -> Any:
    """Format a value as protobuf's JSON: integral numbers as ints, keys in order."""
    if isinstance(value, float):
        return _whole(value)
    if isinstance(value, Mapping):
        return {key: protojson(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [protojson(item) for item in value]
    return value


def as_text(value: Any) -> str:
    """Format a value for a command line or a string, as KFP's launcher does.

    A text is left as it is, None is nothing, a number has no exponent, and lists and mappings
    are compact JSON with their keys in order.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _digits(value)
    return json.dumps(protojson(value), ensure_ascii=False, separators=(",", ":"))


def validate(value: Any, parameter_type: int, place: str, literals: Sequence[Any] = ()) -> Any:
    """Check a value of a component or a caller against a type.

    Args:
        value: The value; None is of no type.
        parameter_type: One of ``ParameterType``.
        place: What the value is of, for the error.
        literals: The values that are allowed, if only some are.

    Returns:
        The value; for NUMBER_INTEGER an int even if it was written as 3.0.

    Raises:
        BadInputError: ``ParameterTypeWrong``, or ``ParameterNotAllowed``.
    """
    wanted = _known(parameter_type, place)
    found = _of_type(value, wanted)
    if found is _WRONG:
        _refuse(value, wanted, place)
    _check_plain(found, place)
    if literals and not any(_same(found, literal) for literal in literals):
        allowed = ", ".join(as_text(literal) for literal in literals)
        raise BadInputError(
            f"{place} is not one of the allowed values.",
            f"Use one of {allowed}.",
            code="ParameterNotAllowed",
        )
    return found


def coerce(value: Any, parameter_type: int, place: str, literals: Sequence[Any] = ()) -> Any:
    """Convert a task's output to the type of another task's input.

    KFP's compiler declares the items of a loop and their fields as texts where it does not know
    better, and its backend then makes texts of them: what is handed to a STRING becomes its text,
    and a text that is the JSON of what is wanted becomes that again. Anything else must be of
    the type.

    Raises:
        BadInputError: As ``checked`` does.
    """
    wanted = _known(parameter_type, place)
    if wanted == ParameterType.STRING and value is not None and not isinstance(value, str):
        _check_plain(value, place)
        value = as_text(value)
    elif isinstance(value, str) and wanted not in {
        ParameterType.STRING,
        ParameterType.UNSPECIFIED,
    }:
        try:
            value = from_output_file(value, wanted)
        except BadInputError:
            _refuse(value, wanted, place)
    return validate(value, wanted, place, literals)


def from_output_file(text: str, parameter_type: int) -> Any:
    """Parse a parameter's output file: a string as it is, other types as JSON.

    Raises:
        BadInputError: ``OutputMalformed``.
    """
    wanted = _known(parameter_type, "The output")
    if wanted == ParameterType.STRING:
        return text
    if wanted == ParameterType.BOOLEAN:
        text = text.lower()  # Python's True is welcome, as it is in KFP
    try:
        found = _of_type(from_json(text), wanted)
    except ValueError:
        found = _WRONG
    if found is _WRONG:
        raise BadInputError(
            f"What was written should be {_NAMES[wanted]} as JSON.",
            "Write it with json.dumps, or declare the output as a string.",
            code="OutputMalformed",
        )
    return found


def from_json(text: str) -> Any:
    """Parse JSON strictly.

    Raises:
        ValueError: If it is none, if it has NaN or Infinity, which JSON has not, or if it nests
            deeper than protocol buffers do.
    """
    try:
        value = json.loads(text)
        _check_plain(value, "it")
    except RecursionError:
        raise ValueError("too deep") from None
    except BadInputError as error:
        raise ValueError(error.message) from None
    return value


_WRONG = object()  # the mark of what is not of its type; no value of JSON equals it


def _known(parameter_type: int, place: str) -> ParameterType:
    try:
        return ParameterType(parameter_type)
    except ValueError:
        raise BadInputError(
            f"{place} is of the parameter type {parameter_type}, which is not known.",
            "Compile the pipeline with a release of KFP that is supported.",
            code="ParameterTypeWrong",
        ) from None


def _of_type(value: Any, wanted: ParameterType) -> Any:
    """The value if it is of the type, whatever is inside it; otherwise ``_WRONG``."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if wanted == ParameterType.NUMBER_INTEGER:
        if isinstance(value, float):
            return int(value) if math.isfinite(value) and value.is_integer() else _WRONG
        return value if number else _WRONG
    right = {
        ParameterType.UNSPECIFIED: value is not None,
        ParameterType.NUMBER_DOUBLE: number,
        ParameterType.STRING: isinstance(value, str),
        ParameterType.BOOLEAN: isinstance(value, bool),
        ParameterType.LIST: isinstance(value, list),
    }.get(wanted, isinstance(value, dict))
    return value if right else _WRONG


def _refuse(value: Any, wanted: ParameterType, place: str) -> NoReturn:
    raise BadInputError(
        f"{place} is {_kind(value)}, but should be {_NAMES[wanted]}.",
        "Give a value of the type that is declared.",
        code="ParameterTypeWrong",
    )


def _kind(value: Any) -> str:
    """Name the type of a value. Values themselves are never shown: they may be secret."""
    if value is None:
        return "null"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a string",
             list: "a list", dict: "a mapping"}  # fmt: skip
    return names.get(type(value), f"a Python {type(value).__name__}")


def _check_plain(value: Any, place: str) -> None:
    """Refuse what JSON cannot hold, or protocol buffers cannot nest."""
    level = [value]
    for _ in range(MOST_LEVELS):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                if not all(isinstance(key, str) for key in item):
                    _refuse_plain(f"{place} has a mapping whose keys are not all strings.")
                inner += item.values()
            elif isinstance(item, list):
                inner += item
            elif isinstance(item, float) and not math.isfinite(item):
                _refuse_plain(f"{place} has a number that is not finite.")
            elif not (item is None or isinstance(item, bool | int | float | str)):
                _refuse_plain(f"{place} has {_kind(item)}, which is not JSON.")
        if not inner:
            return
        level = inner
    _refuse_plain(f"{place} nests deeper than {MOST_LEVELS} levels.")


def _refuse_plain(message: str) -> NoReturn:
    raise BadInputError(message, "Use plain JSON values.", code="ParameterTypeWrong")


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal in JSON, where true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)


def _whole(number: float) -> int | float:
    if number.is_integer() and abs(number) < _EXPONENT_FROM:
        return int(number)
    return number


def _digits(number: float) -> str:
    """Shortest exact digits of a number, without an exponent."""
    if not math.isfinite(number):
        return "NaN" if math.isnan(number) else "+Inf" if number > 0 else "-Inf"
    return f"{Decimal(repr(number)):f}".removesuffix(".0")
