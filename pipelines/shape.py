"""Check of plain data against a protocol buffer's descriptor: all faults with their places.

The parser of protocol buffers stops at the first fault and names only part of its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from infra.suggestions import suggest_names
from pipelines.faults import FaultCollector, shorten

_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: 31,
    FieldDescriptor.CPPTYPE_INT64: 63,
}
_FLOATS = {FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT}
_DURATION = re.compile(r"-?\d{1,12}(\.\d{1,9})?s\Z")
_WHOLE = re.compile(r"-?\d{1,19}\Z")

# Fields that other releases of the SDK write, without a meaning for the engine.
_ELSEWHERE = {
    "ml_pipelines.PipelineTaskInfo": {"taskName"},
    "ml_pipelines.PipelineConfig": {
        "semaphoreKey", "mutexName", "resourceTtl", "pipelineRunParallelism", "maxActiveRuns",
        "pipelineVersionConcurrencyLimit",
    },
    "ml_pipelines.TaskConfigPassthroughType.TaskConfigPassthroughTypeEnum": {
        "KUBERNETES_RESOURCE_CLAIMS",
    },
}  # fmt: skip


def check(data: Any, descriptor: Descriptor, place: str, faults: FaultCollector) -> None:
    """Collect the faults that keep ``data`` from being parsed as ``descriptor``'s message."""
    wellknown = _WELL_KNOWN.get(descriptor.full_name)
    if wellknown is not None:
        wellknown(data, place, faults)
    elif not isinstance(data, dict):
        faults.add(place, f"It is {_kind(data)}, no mapping.", "Write name: value lines.")
    else:
        _message(data, descriptor, place, faults)


def at(place: str, key: object) -> str:
    """Build the place of a key in a mapping."""
    return f"{place}.{key}" if place else str(key)


def _message(
    data: dict[str, Any], descriptor: Descriptor, place: str, faults: FaultCollector
) -> None:
    fields = {**descriptor.fields_by_name, **descriptor.fields_by_camelcase_name}
    seen: dict[str, str] = {}
    for key, value in data.items():
        there = at(place, key)
        described = fields.get(key)
        if described is None and key in _ELSEWHERE.get(descriptor.full_name, ()):
            continue
        if described is None:
            names = (one.camelcase_name for one in descriptor.fields)
            faults.add(
                there, "There is no such field.", suggest_names(names, key, "It is left empty.")
            )
            continue
        choice = described.containing_oneof
        slot = choice.name if choice is not None else described.name
        if value is not None and slot in seen:
            faults.add(there, f"It excludes {seen[slot]}, which is there as well.", "Drop one.")
        elif value is not None:
            seen[slot] = key
        _field(value, described, there, faults)


def _field(value: Any, described: FieldDescriptor, place: str, faults: FaultCollector) -> None:
    if value is None:
        return
    message = described.message_type
    if message is not None and message.GetOptions().map_entry:
        if not isinstance(value, dict):
            faults.add(place, f"It is {_kind(value)}, no mapping.", "Write name: value lines.")
            return
        of = message.fields_by_name["value"]
        for key, one in value.items():
            _one(one, of, at(place, key), faults)
    elif described.is_repeated:
        if not isinstance(value, list):
            faults.add(place, f"It is {_kind(value)}, no list.", "Write - value lines.")
            return
        for number, one in enumerate(value):
            _one(one, described, f"{place}[{number}]", faults)
    else:
        _one(value, described, place, faults)


def _one(value: Any, described: FieldDescriptor, place: str, faults: FaultCollector) -> None:
    if described.message_type is not None:
        check(value, described.message_type, place, faults)
    elif described.enum_type is not None:
        _enum(value, described.enum_type, place, faults)
    elif described.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        _expect(isinstance(value, bool), value, "true or false", place, faults)
    elif described.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        _expect(isinstance(value, str), value, "a string", place, faults, "Put it in quotes.")
    elif described.cpp_type in _INTEGERS:
        fits = _fits(value, _INTEGERS[described.cpp_type])
        _expect(fits, value, "a whole number that fits", place, faults)
    elif described.cpp_type in _FLOATS:
        _expect(_is_number(value), value, "a number", place, faults)


def _expect(
    holds: bool, value: Any, wanted: str, place: str, faults: FaultCollector, remedy: str = ""
) -> None:
    if not holds:
        faults.add(place, f"It is {shorten(value)}, not {wanted}.", remedy)


def _fits(value: Any, bits: int) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, str):
        return bool(_WHOLE.match(value)) and abs(int(value)) < 2**bits
    return isinstance(value, int | float) and value == int(value) and abs(value) < 2**bits


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _enum(value: Any, described: EnumDescriptor, place: str, faults: FaultCollector) -> None:
    if isinstance(value, str):
        right = value in described.values_by_name or value in _ELSEWHERE.get(
            described.full_name, ()
        )
    else:
        right = _fits(value, 31) and int(value) in described.values_by_number
    if not right:
        names = [one for one in described.values_by_name if not one.endswith("_UNSPECIFIED")]
        faults.add(place, f"It is {shorten(value)}.", f"Give one of: {', '.join(names)}.")


def _kind(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list) else shorten(value)


# Well-known messages, which are plain values in JSON


def _struct(data: Any, place: str, faults: FaultCollector) -> None:
    if not isinstance(data, dict):
        faults.add(place, f"It is {_kind(data)}, no mapping.", "Write name: value lines.")
    else:
        _value(data, place, faults)


def _list(data: Any, place: str, faults: FaultCollector) -> None:
    if not isinstance(data, list):
        faults.add(place, f"It is {_kind(data)}, no list.", "Write - value lines.")
    else:
        _value(data, place, faults)


def _value(data: Any, place: str, faults: FaultCollector) -> None:
    """Check a JSON value; refuse a number that a double does not hold exactly."""
    inside: Iterable[tuple[str, Any]] = ()
    if isinstance(data, dict):
        inside = ((at(place, key), value) for key, value in data.items())
    elif isinstance(data, list):
        inside = ((f"{place}[{number}]", value) for number, value in enumerate(data))
    elif isinstance(data, int) and int(float(data)) != data:
        faults.add(
            place, f"{data} has more digits than a double can hold.", "Write it as a string."
        )
    for there, value in inside:
        _value(value, there, faults)


def _duration(data: Any, place: str, faults: FaultCollector) -> None:
    right = isinstance(data, str) and bool(_DURATION.match(data))
    _expect(right, data, "a duration", place, faults, "Write seconds, such as 30s.")


_WELL_KNOWN: dict[str, Callable[[Any, str, FaultCollector], None]] = {
    "google.protobuf.Struct": _struct,
    "google.protobuf.ListValue": _list,
    "google.protobuf.Value": _value,
    "google.protobuf.Duration": _duration,
}
