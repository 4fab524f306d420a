"""Task configuration passed to a component as an input.

A component that starts a workload elsewhere may ask for its resources, its variables and its
settings of Kubernetes, to hand them on. What it asks for holds for its task itself only if it
says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from infra.workloads.base import ResourceRequest, Workload
from pipelines import placeholders
from pipelines.container import Container, ResourceSpec
from pipelines.placeholders import PlaceholderContext

_Field = ir.TaskConfigPassthroughType
# What each of them is in the settings of Kubernetes.
_PARTS = {
    _Field.KUBERNETES_AFFINITY: ("affinity",),
    _Field.KUBERNETES_TOLERATIONS: ("tolerations",),
    _Field.KUBERNETES_NODE_SELECTOR: ("nodeSelector",),
    _Field.KUBERNETES_VOLUMES: ("volumes", "volumeMounts"),
    _Field.ENV: ("env",),
}


def config_inputs(
    component: ir.ComponentSpec,
    container: Container,
    settings: Mapping[str, Any],
    context: PlaceholderContext,
) -> dict[str, Any]:
    """Build the inputs of type TaskConfig, in the form that the SDK's executor reads.

    Args:
        component: The component.
        container: Its container.
        settings: Its settings of Kubernetes, resolved.
        context: What placeholders in the container mean.

    Raises:
        BadInputError: If a placeholder cannot be filled.
    """
    inputs = component.input_definitions.parameters
    names = [
        name for name, spec in inputs.items()
        if spec.parameter_type == ir.ParameterType.TASK_CONFIG
    ]  # fmt: skip
    if not names:
        return {}
    asked = {one.field for one in component.task_config_passthroughs}

    def filled(text: str) -> str:
        return "".join(placeholders.fill([text], context)).strip() if text else ""

    config = {
        part: settings[part]
        for field, parts in _PARTS.items()
        for part in parts
        if field in asked and part in settings
    }
    if _Field.ENV in asked:
        without_passthroughs = [
            {"name": one.name, "value": filled(one.value)} for one in container.env
        ]
        config["env"] = [*without_passthroughs, *config.get("env", [])]
    config["resources"] = (
        _resources(container.resources, filled) if _Field.RESOURCES in asked else {}
    )
    return dict.fromkeys(names, config)


def without_passthroughs(component: ir.ComponentSpec, workload: Workload) -> Workload:
    """Drop the settings from a workload that its component only passes on."""
    applies = {one.field: one.apply_to_task for one in component.task_config_passthroughs}
    away = {field for field, applied in applies.items() if not applied}
    parts = {part for field in away for part in _PARTS.get(field, ())}
    return replace(
        workload,
        kubernetes={key: value for key, value in workload.kubernetes.items() if key not in parts},
        environment={} if _Field.ENV in away else workload.environment,
        resources=ResourceRequest() if _Field.RESOURCES in away else workload.resources,
    )


def _resources(asked: ResourceSpec, filled: Callable[[str], str]) -> dict[str, dict[str, str]]:
    """Convert resources to a Kubernetes container's limits and requests."""
    limits = {
        "cpu": filled(asked.resource_cpu_limit) or _number(asked.cpu_limit),
        "memory": filled(asked.resource_memory_limit) or _number(asked.memory_limit, "G"),
    }
    requests = {
        "cpu": filled(asked.resource_cpu_request) or _number(asked.cpu_request),
        "memory": filled(asked.resource_memory_request) or _number(asked.memory_request, "G"),
    }
    accelerator = asked.accelerator
    kind = filled(accelerator.resource_type or accelerator.type)
    if kind:
        limits[kind] = filled(accelerator.resource_count) or _number(accelerator.count)
    found = {
        "limits": {key: amount for key, amount in limits.items() if amount},
        "requests": {key: amount for key, amount in requests.items() if amount},
    }
    return {kind: amounts for kind, amounts in found.items() if amounts}


def _number(value: float, unit: str = "") -> str:
    return f"{value:.12g}{unit}" if value else ""
