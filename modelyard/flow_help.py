"""Help of ``modelyard run FLOW --help``: the flow's parameters, by the schema of its request.

Neither Prefect nor the flow is imported.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from rich.text import Text

from modelyard import output
from modelyard.output import console
from registry.views import JsonObject, View
from tasks import flow_requests
from tasks.parameters import form_fields

_VERBS = {"run", "call"}
_WIDEST = 100
_LARGEST_SHOWN = 100_000  # a larger bound is one of storage, which nobody reaches
_NONE = {"type": "null"}


class FlowParameterView(View):
    """A parameter of a flow.

    Attributes:
        name: Its name, dotted where it is in a group, as ``-p`` takes it.
        type: JSON's type, ``list of ...``, or the values that it may have, separated by `` | ``.
        limits: Bounds of its value or its length, such as ``1 to 256``; "" for none.
        required: Whether it must be given.
        default: Its default.
        description: Its help text.
    """

    name: str
    type: str
    limits: str
    required: bool
    default: Any
    description: str


@dataclass(frozen=True)
class _Schema:
    """The schema of a request, and of the groups in it."""

    fields: Mapping[str, Any]
    required: Sequence[str]
    groups: Mapping[str, Any]

    def group(self, field: Mapping[str, Any]) -> JsonObject | None:
        """Return the schema of a group of fields; None for another field."""
        reference = str(field.get("$ref", "")).rpartition("/")[2]
        found: JsonObject | None = self.groups.get(reference)
        return found if found and "properties" in found else None

    def resolve(self, field: Mapping[str, Any]) -> Mapping[str, Any]:
        reference = str(field.get("$ref", "")).rpartition("/")[2]
        found: Mapping[str, Any] = self.groups.get(reference, field)
        return found


def flow_of(arguments: Sequence[str]) -> str | None:
    """Return the flow whose parameters a command line asks for; None for another one."""
    if len(arguments) < 2 or arguments[0] not in _VERBS or "--help" not in arguments:
        return None
    return None if arguments[1].startswith("-") else arguments[1]


def parameters(flow: str) -> list[FlowParameterView]:
    """List the parameters of a flow in the order of its form.

    Raises:
        NotFoundError: If there is no such flow.
    """
    return fields_of(flow_requests.find(flow))


def fields_of(model: type[BaseModel]) -> list[FlowParameterView]:
    """List the fields of a request, or of a group in one, in the order of its form."""
    schema = model.model_json_schema()
    fields = {name: schema["properties"][name] for name in form_fields(model)}
    return list(_listed(_Schema(fields, schema.get("required", ()), schema.get("$defs", {}))))


def _listed(schema: _Schema, prefix: str = "") -> Iterator[FlowParameterView]:
    for name, field in schema.fields.items():
        group = schema.group(field)
        if group:
            inner = _Schema(group["properties"], group.get("required", ()), schema.groups)
            yield from _listed(inner, f"{prefix}{name}.")
            continue
        yield FlowParameterView(
            name=f"{prefix}{name}",
            type=_type(schema, field),
            limits=_limits(field),
            required=name in schema.required,
            default=field.get("default"),
            description=" ".join(field.get("description", "").split()),
        )


def _type(schema: _Schema, field: Mapping[str, Any]) -> str:
    """Describe the type of a field in a word or a few."""
    field = schema.resolve(field)
    several = [one for one in field.get("anyOf", field.get("oneOf", ())) if one != _NONE]
    if several:
        return " or ".join(dict.fromkeys(_type(schema, one) for one in several))
    if "enum" in field:
        return " | ".join(str(value) for value in field["enum"] if value != "")
    if "const" in field:
        return str(field["const"])
    if field.get("type") == "array":
        return f"list of {_type(schema, field.get('items', {}))}"
    if "properties" in field:
        return f"{{{', '.join(field['properties'])}}}"
    return str(field.get("type", "any")).replace("object", "mapping")


def _limits(field: Mapping[str, Any]) -> str:
    """Describe the bounds of a field's value, or of its length."""
    several = [one for one in field.get("anyOf", ()) if one != _NONE]
    if len(several) == 1:
        return _limits(several[0])
    low, high = field.get("minimum"), field.get("maximum")
    above = field.get("exclusiveMinimum")
    bounds = [f"above {above:g}"] if above is not None else []
    if low is not None and high is not None and high <= _LARGEST_SHOWN:
        bounds.append(f"{low:g} to {high:g}")
    elif low is not None:
        bounds.append(f"{low:g} or more")
    elif high is not None and high <= _LARGEST_SHOWN:
        bounds.append(f"at most {high:g}")
    if "maxItems" in field:
        bounds.append(f"at most {field['maxItems']} items")
    return ", ".join(bounds)


def show(verb: str, flow: str, *, as_json: bool) -> None:
    """Print the parameters of a flow."""
    found = parameters(flow)
    if as_json:
        output.as_json(found)
        return
    console.print(
        f"Usage: modelyard {verb} {flow} [OPTIONS]\n\n"
        f"Parameters, by -p NAME=VALUE or as a mapping in the file of -f. The options\n"
        f"are listed by: modelyard {verb} --help\n",
        markup=False,
    )
    for one in found:
        facts = ", ".join(filter(None, [one.type, one.limits, *_default(one)]))
        head, *rest = _wrapped(f"{one.name}  {facts}", "  ") + _wrapped(one.description, "      ")
        console.print(Text.assemble("  ", (one.name, "bold"), head[len(one.name) + 2 :]))
        console.print("\n".join(rest), markup=False, end="\n" if rest else "")


def _wrapped(text: str, indent: str) -> list[str]:
    width = min(console.width, _WIDEST)
    return textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent="      ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _default(parameter: FlowParameterView) -> list[str]:
    if parameter.required:
        return ["required"]
    if parameter.default in (None, "", [], {}):
        return []
    return [f"default {json.dumps(parameter.default, ensure_ascii=False)}"]
