"""Base job template of a cluster's pools: the job variables of a deployment or a run.

Resources, image and mounts are not job variables but the run's parameter ``resources``. What all
runs have in common is the cluster's configuration.
"""

from __future__ import annotations

from typing import Any

TYPE = "modelyard-kubernetes"

# Each becomes a field of the worker's job configuration of the same name.
_VARIABLES: dict[str, dict[str, Any]] = {
    "image": {
        "title": "Image",
        "description": "The container image of runs whose own parameters name none; without, "
        "the cluster's.",
        "type": "string",
        "default": "",
    },
    "env": {
        "title": "Environment variables",
        "description": "Further variables of the run's pods. Nothing secret: a secret is a "
        "Secret of the cluster, which its configuration names.",
        "type": "object",
        "additionalProperties": {"type": "string"},
        "default": {},
    },
    "priority_class": {
        "title": "Priority class",
        "description": "The priority class of the pods; without, the cluster's.",
        "type": "string",
        "default": "",
    },
}


def template() -> dict[str, Any]:
    """Build the template, as Prefect takes it."""
    return {
        "job_configuration": {name: f"{{{{ {name} }}}}" for name in _VARIABLES},
        "variables": {"type": "object", "properties": dict(_VARIABLES)},
    }
