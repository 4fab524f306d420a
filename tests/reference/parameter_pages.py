"""The page of the flows' parameters."""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from flows import catalogue
from infra import instance_types
from infra.settings import Settings
from modelyard import flow_help
from modelyard.flow_help import FlowParameterView
from tasks import flow_requests
from tests.reference import markdown

_INTRODUCTION = """\
# Parameters of the flows

The same in a file for `-f`, as `-p KEY=VALUE`, in the form of Prefect's UI, in a schedule, and in
Python. A dotted name is a field of a group: `-p resources.nodes=2`, or in a file

```yaml
resources:
  nodes: 2
```

What is left out, empty or null has its default. Fields of lists have
[tables of their own](#fields-of-lists-and-groups). `modelyard run FLOW --help` prints the same in
a terminal. A value of another type, or out of its limits, is refused before anything is started:
[`ParameterInvalid`](errors.md#parameterinvalid) and codes of its own for most of them.
"""
_INSTANCE_TYPES = """\
Locally only the number of GPUs applies. On a cluster the type is what each pod requests; the label
is that of `nvidia.com/gpu.product`. `MODELYARD_INSTANCE_TYPES` names a file with
[types of your own](../training-contract.md#instance-types-and-gpus).
"""
_FIELDS = re.compile(r"\{[^}]+\}")
_CHANGEABLE = "`modelyard runs update RUN -p KEY=VALUE` changes these of a run that is active: {}."
_CHANGEABLE_AT_RETRY = (
    "`modelyard runs update RUN -p KEY=VALUE` changes these of a run that failed, timed out or "
    "was stopped, for its retry: {}."
)
_TEMPLATED = (
    "`template` names a [training template](../experiments-and-templates.md), which gives the "
    "fields that are left out."
)


def write() -> str:
    """Write the page."""
    lines = [_INTRODUCTION]
    lines += [f"- [`{name}`](#{name}): {_summary(name)}" for name in flow_requests.names()] + [""]
    for name in flow_requests.names():
        lines += [f"## {name}", "", _summary(name), ""]
        spec = catalogue.find(name).spec
        if spec.templated:
            lines += [_TEMPLATED, ""]
        if spec.changeable:
            lines += [_CHANGEABLE.format(", ".join(map(markdown.code, spec.changeable))), ""]
        if spec.changes_at_retry:
            names = ", ".join(map(markdown.code, spec.changes_at_retry))
            lines += [_CHANGEABLE_AT_RETRY.format(names), ""]
        lines += _table(flow_requests.find(name))
    lines += ["## Fields of lists and groups", ""]
    for name, model in sorted(_ALL.items()):
        lines += [f"### {name}", "", markdown.text(markdown.docstring(model).summary), ""]
        lines += _table(model)
    lines += ["## Instance types", "", _INSTANCE_TYPES, *_instance_types()]
    return "\n".join(lines)


def _instance_types() -> Iterator[str]:
    built_in = instance_types.load_all(Settings(instance_types=None, instance_types_settings=""))
    rows = (
        (
            markdown.code(name), f"{shape.cpu:g}", f"{shape.memory_gib:g}", str(shape.gpus or ""),
            ", ".join(map(markdown.code, shape.node_selector.values())),
        )
        for name, shape in built_in.items()
    )  # fmt: skip
    return markdown.table(("Name", "CPUs", "Memory, GiB", "GPUs", "GPU label of its nodes"), rows)


def _summary(flow: str) -> str:
    return markdown.text(markdown.docstring(catalogue.find(flow).fn).summary)


def _table(model: type[BaseModel]) -> Iterator[str]:
    rows = (
        (
            markdown.code(one.name), _type(model, one), _default(one),
            markdown.text(one.description),
        )
        for one in flow_help.fields_of(model)
    )  # fmt: skip
    return markdown.table(("Parameter", "Type", "Default", "Meaning"), rows)


def _type(model: type[BaseModel], parameter: FlowParameterView) -> str:
    """Its type in words with its limits; of a list of groups, a link to their fields."""
    if parameter.name.endswith("instance_type"):
        return "[instance type](#instance-types)"
    field = model.model_fields.get(parameter.name)
    links = [
        f"[{one.__name__}](#{one.__name__.lower()})" for one in _models(field and field.annotation)
    ]
    words = _FIELDS.sub(lambda _: links[0], parameter.type).replace(" | ", ", ")
    return f"{words}; {parameter.limits}" if parameter.limits else words


def _default(parameter: FlowParameterView) -> str:
    if parameter.required:
        return "required"
    if parameter.default in (None, "", [], {}):
        return ""
    return markdown.code(json.dumps(parameter.default, ensure_ascii=False))


def _groups(flow: str) -> Mapping[str, type[BaseModel]]:
    """The models of a flow's lists, and of its groups that may be left out."""
    fields = flow_requests.find(flow).model_fields.values()
    nested = [one.annotation for one in fields if not _is_model(one.annotation)]
    return {model.__name__: model for one in nested for model in _models(one)}


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if _is_model(annotation):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models(argument)


_ALL = {name: model for flow in flow_requests.names() for name, model in _groups(flow).items()}
