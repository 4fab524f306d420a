"""The schemas of Kubernetes: unknown fields, types, what is required.

They are those that the API server publishes; a walk of our own over them says what is wrong at
which field, in the server's words, and drops what it would drop.
"""

from __future__ import annotations

import base64
import functools
import importlib.resources
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as _field
from typing import Any

from tests.cluster.kinds import KINDS

VERSION = "v1.36.0"
_REFERENCE = "#/$defs/"
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


@functools.cache
def _definitions() -> dict[str, Any]:
    folder = importlib.resources.files("kubernetes_validate") / "kubernetes-json-schema"
    text = (folder / f"{VERSION}-local" / "_definitions.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)["$defs"]
    return found


def of(kind: str) -> Mapping[str, Any]:
    """The schema of a kind."""
    schema: Mapping[str, Any] = _definitions()[KINDS[kind].definition]
    return schema


def resolved(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema, behind its reference if it is one; what stands beside the reference stays."""
    reference = schema.get("$ref")
    if reference is None:
        return schema
    beside = {key: value for key, value in schema.items() if key.startswith("x-")}
    name = reference.removeprefix(_REFERENCE)
    return {**_definitions()[name], **beside, "named": name}


def field(schema: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The schema of a field; empty where nothing is known of it."""
    found = (schema.get("properties") or {}).get(key) or schema.get("additionalProperties") or {}
    return resolved(found) if isinstance(found, Mapping) else {}


@dataclass
class Findings:
    """What a look at an object found."""

    unknown: list[str] = _field(default_factory=list)
    """Fields that no schema has."""
    misfits: list[str] = _field(default_factory=list)
    """Values of another type than the field's, in words."""
    required: list[str] = _field(default_factory=list)
    """Fields that must be there and are not."""
    unsupported: list[tuple[str, str, list[str]]] = _field(default_factory=list)
    """Values that are none of a field's: field, value, what there is."""


def looked_at(kind: str, obj: Mapping[str, Any]) -> tuple[dict[str, Any], Findings]:
    """The object without nulls and unknown fields, and what is wrong with it."""
    findings = Findings()
    pruned = _walk(obj, of(kind), "", findings)
    return (pruned if isinstance(pruned, dict) else {}), findings


def _walk(value: Any, schema: Mapping[str, Any], at: str, findings: Findings) -> Any:
    if schema.get("named") == _QUANTITY or "oneOf" in schema:
        if not isinstance(value, (str, int, float)) or isinstance(value, bool):
            findings.misfits.append(f"{at}: expected a text or a number, not {_type(value)}")
        return value
    wanted = schema.get("type")
    types = [one for one in (wanted if isinstance(wanted, list) else [wanted]) if one]
    types = [one for one in types if one != "null"]
    if types and _type(value) not in types and not (types == ["number"] and _number(value)):
        findings.misfits.append(f"{at}: expected {types[0]}, not {_type(value)}")
        return value
    if isinstance(value, Mapping):
        return dict(_mapping(value, schema, at, findings))
    if isinstance(value, list):
        items = resolved(schema.get("items", {}))
        return [_walk(item, items, f"{at}[{i}]", findings) for i, item in enumerate(value)]
    if schema.get("format") == "date-time" and not _TIME.fullmatch(str(value)):
        findings.misfits.append(f"{at}: parsing time {value!r}: it is not of RFC 3339")
    if schema.get("format") == "byte" and not _is_base64(str(value)):
        findings.misfits.append(f"{at}: illegal base64 data")
    if schema.get("format") == "int32" and not -(2**31) <= value < 2**31:
        findings.misfits.append(f"{at}: {value} is beyond int32")
    choices = [one for one in schema.get("enum", ()) if one is not None]
    if choices and value not in choices:
        findings.unsupported.append((at, str(value), [str(one) for one in choices]))
    return value


def _mapping(
    value: Mapping[str, Any], schema: Mapping[str, Any], at: str, findings: Findings
) -> Iterator[tuple[str, Any]]:
    known = schema.get("properties")
    for key in schema.get("required", ()):
        if value.get(key) is None:
            findings.required.append(f"{at}.{key}".lstrip("."))
    for key, item in value.items():
        path = f"{at}.{key}".lstrip(".")
        if known is not None and key not in known:
            findings.unknown.append(path)
        elif item is not None:
            yield key, _walk(item, field(schema, key), path, findings)


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except ValueError:
        return False
    return True


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _type(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    return {str: "string", dict: "object", list: "array"}.get(type(value), "null")
