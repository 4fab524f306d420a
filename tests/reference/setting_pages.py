"""The page of the settings: environment variables, the cluster file, and the chart's values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from infra.instance_types import InstanceType
from infra.kubernetes.cluster import ClusterConfig
from infra.settings import Settings, of_the_stack, variable
from tests.reference import markdown
from tests.reference.error_sources import ROOT

_VALUES = ROOT / "infra" / "kubernetes" / "chart" / "values.yaml"
_INTRODUCTION = """\
# Settings

## Environment variables

The stack reads them when it starts, and its runs have its values. A command that finds a running
stack uses the stack's values, and names variables of its own shell that differ; only those marked
*caller's* are read in each shell. An empty variable has its default. The value of an access key
may be `secret:NAME`, a Prefect Secret block. A value that does not parse is refused:
[`BadInput`](errors.md#badinput).
"""
_OTHERS = """\
### Variables of single commands, and of servers

"""
# What is read beside the settings: where it is named, and what it means.
_OTHER_VARIABLES = {
    "MODELYARD_STORAGE_SECRET": (
        "modelyard/commands/storage.py",
        "The secret of `modelyard storage add --key-id`, instead of a prompt.",
    ),
    "MODELYARD_STORAGE_TOKEN": (
        "modelyard/commands/storage.py",
        "The session token of `modelyard storage add --session-token`, instead of a prompt.",
    ),
    "MODELYARD_NOTIFY_SECRET": (
        "modelyard/commands/notify.py",
        "The URL or the password of `modelyard notify add`, instead of a prompt.",
    ),
    "MODELYARD_CREDENTIAL": (
        "infra/door/credential.py",
        "The credential of the servers on a cluster; a local stack keeps its own in the home.",
    ),
    "MODELYARD_MLFLOW_URL": (
        "infra/connection.py", "Where browsers find MLflow, if not by `MLFLOW_TRACKING_URI`.",
    ),
    "MODELYARD_WEB_URL": ("infra/connection.py", "Where browsers find Modelyard's own pages."),
    "MODELYARD_HEALTH_PORT": (
        "modelyard/kubernetes_worker.py",
        "Port of a cluster worker's liveness probe; none if empty.",
    ),
    "MODELYARD_HEALTH_HOST": (
        "modelyard/kubernetes_worker.py",
        "Address that the probe's server binds to; 127.0.0.1 if empty.",
    ),
    "PREFECT_API_URL": (
        "infra/connection.py", "Without a local stack: the Prefect API that commands use.",
    ),
    "MLFLOW_TRACKING_URI": (
        "infra/connection.py", "Without a local stack: the MLflow server that commands use.",
    ),
}  # fmt: skip
_CLUSTER = """\
## The cluster file

The YAML file that `MODELYARD_CLUSTER` names configures the pods of all runs on Kubernetes; see
[The cluster file](../cluster-settings.md) for an example, and `modelyard doctor` to check it. An
unknown or invalid field is refused: [`ClusterInvalid`](errors.md#clusterinvalid).
"""
_TYPES = """\
## The file of instance types

`MODELYARD_INSTANCE_TYPES` names a YAML file with a mapping of names to shapes. One of a
[built-in type](parameters.md#instance-types)'s name replaces that.
"""
_CHART = """\
## Values of the Helm chart

The chart is in `infra/kubernetes/chart`; see [Kubernetes](../kubernetes.md). Required are
`image.repository` and `storage.artifacts`. No value is a secret: they name Secrets that exist.
"""


def write() -> str:
    """Write the page."""
    header = ("Variable", "Default", "Meaning")
    lines = [_INTRODUCTION, *markdown.table(header, _settings())]
    lines += [_OTHERS, *markdown.table(("Variable", "Meaning"), _others())]
    lines += [_CLUSTER, *markdown.table(("Field", "Default", "Meaning"), _fields(ClusterConfig))]
    lines += [_TYPES, *markdown.table(("Field", "Default", "Meaning"), _fields(InstanceType))]
    return "\n".join([*lines, _CHART, *_chart()])


def _settings() -> Iterator[tuple[str, str, str]]:
    heeded = of_the_stack()
    for name, field in Settings.model_fields.items():
        default = "`~/.modelyard`" if name == "home" else _default(field)
        callers = "" if variable(name) in heeded or name == "database_url" else " *(caller's)*"
        yield markdown.code(variable(name)), default, _meaning(field) + callers


def _others() -> Iterator[tuple[str, str]]:
    for name, (module, meaning) in _OTHER_VARIABLES.items():
        if name not in (ROOT / module).read_text():
            raise LookupError(f"{module} does not read {name}")
        yield markdown.code(name), markdown.text(meaning)


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        yield markdown.code(name), _default(field), _meaning(field)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value: Any = field.default
    if value in (None, "", {}, []) or isinstance(value, SecretStr):
        return ""
    if isinstance(value, float):
        value = f"{value:g}"
    return markdown.code(value if isinstance(value, str) else json.dumps(value))


def _meaning(field: FieldInfo) -> str:
    return markdown.text(field.description or "")


_LINE = re.compile(r"( *)(\w+):(?: +([^#]*[^# ]))? *(?:# *(.*))?$")


def _chart() -> Iterator[str]:
    """The values with their comments, in a section for each block of the file."""
    for title, comment, rows in _sections():
        if comment or title:
            yield from (f"### {title}", "")
        if comment:
            yield from (markdown.text(comment), "")
        yield from markdown.table(("Value", "Default", "Meaning"), rows)


def _sections() -> Iterator[tuple[str, str, list[tuple[str, str, str]]]]:
    blocks = _VALUES.read_text().split("\n\n")
    for block in blocks:
        comments = [line.lstrip("# ") for line in block.splitlines() if line.startswith("#")]
        rows = list(_rows(block))
        if rows:
            title = rows[0][0].strip("`").partition(".")[0]
            yield title, " ".join(comments), rows


def _rows(block: str) -> Iterator[tuple[str, str, str]]:
    path: list[str] = []
    above = ""
    for line in block.splitlines():
        stripped = line.lstrip()
        if stripped.startswith("#"):
            above = f"{above} {stripped.lstrip('# ')}".strip() if line.startswith(" ") else ""
            continue
        match = _LINE.match(line)
        if match is None:
            continue
        indent, key, value, comment = match.groups()
        path = [*path[: len(indent) // 2], key]
        if value is not None:
            shown = "" if value in {'""', "{}", "[]", "null"} else markdown.code(value)
            meaning = comment or above
            yield markdown.code(".".join(path)), shown, markdown.text(meaning)
        above = ""
