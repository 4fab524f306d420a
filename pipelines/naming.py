"""Display names of tasks, loops and branches, beside the keys that identify them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from pipelines.drawing import text

_LONGEST = 200
_NUMBERED = re.compile(r"-[0-9]+\Z")


def display_name(key: str, task: ir.PipelineTaskSpec) -> str:
    """Return a task's display name, on one line; empty where a compiler made it.

    Compilers write the task's key where no name is given, or the name of its component.

    Args:
        key: What the task is called in its DAG, and so in paths.
        task: The task.
    """
    name = text.plain(task.task_info.name[: 4 * _LONGEST])
    component = task.component_ref.name.removeprefix("comp-")
    made = {key, component, _NUMBERED.sub("", component), task.component_ref.name}
    if name.replace("_", "-") in {one.replace("_", "-") for one in made}:
        return ""
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…"


def display_name_or_key(key: str, task: ir.PipelineTaskSpec) -> str:
    """Return a task's display name, or else its key."""
    return display_name(key, task) or text.plain(key)


def labels(dag: ir.DagSpec) -> dict[str, str]:
    """Build unique labels of a DAG's tasks: display names, with keys where shared."""
    return make_unique({key: display_name_or_key(key, task) for key, task in dag.tasks.items()})


def make_unique(names: Mapping[str, str]) -> dict[str, str]:
    """Make names unique by adding the key to equal ones."""
    many = Counter(names.values())
    return {
        key: name if many[name] == 1 or name == key else f"{name} ({text.plain(key)})"
        for key, name in names.items()
    }
