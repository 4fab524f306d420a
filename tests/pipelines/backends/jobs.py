"""Python components to run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from infra.workloads.base import Workload

# What the KFP compiler writes, but for the source.
BOOTSTRAP = """
if ! [ -x "$(command -v pip)" ]; then
    python3 -m ensurepip || python3 -m ensurepip --user || apt-get install python3-pip
fi

PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip install --quiet --no-warn-script-location %s && "$0" "$@"
"""  # noqa: E501
EPHEMERAL = """program_path=$(mktemp -d)

printf "%s" "$0" > "$program_path/ephemeral_component.py"
_KFP_RUNTIME=true python3 -m kfp.dsl.executor_main                         --component_module_path                         "$program_path/ephemeral_component.py"                         "$@"
"""  # noqa: E501
_IMPORTS = "\nimport kfp\nfrom kfp import dsl\nfrom kfp.dsl import *\nfrom typing import *\n\n"


def python(
    folder: Path, source: str, packages: str = "'kfp==2.17.0' '--no-deps'", **others: Any
) -> Workload:
    """A job that is a lightweight component, whose function is ``run``."""
    folder.mkdir(parents=True, exist_ok=True)
    told = {"inputs": {}, "outputs": {"outputFile": str(folder / "output.json")}}
    first = ("sh", "-c", BOOTSTRAP % packages) if packages else ()
    return Workload(
        name="the-task",
        image="python:3.11",
        command=(*first, "sh", "-ec", EPHEMERAL, _IMPORTS + source),
        arguments=("--executor_input", json.dumps(told), "--function_to_execute", "run"),
        folder=folder,
        **others,
    )


def output(folder: Path) -> Any:
    """What the component's function has returned."""
    return json.loads((folder / "output.json").read_text())["parameterValues"]["Output"]
