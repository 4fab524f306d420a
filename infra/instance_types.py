"""Instance types: named machine shapes, as configuration.

On a cluster a type sizes the pod. Locally every type is this machine, and only its GPU count
applies: a run is pinned to that many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from infra.errors import BadInputError
from infra.settings import Settings

DEFAULT = "cpu.small"


class InstanceType(BaseModel):
    """Shape of one node."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cpu: float = Field(gt=0, description="Number of cores.")
    memory_gib: float = Field(gt=0, description="Memory in GiB.")
    gpus: int = Field(0, ge=0, description="Number of GPUs.")
    gpu_kind: str = Field("", description="Model of the GPUs, for display.")
    gpu_resource: str = Field(
        "nvidia.com/gpu", description="Extended resource of such a GPU on a cluster."
    )
    node_selector: dict[str, str] = Field(
        {}, description="Labels of the nodes that have such GPUs."
    )
    tolerations: list[dict[str, Any]] = Field(
        [], description="Tolerations of those nodes' taints."
    )
    shared_memory_gib: float | None = Field(
        None,
        ge=0,
        description="Size of /dev/shm in GiB; a quarter of the memory by default, 0 for the "
        "node's default.",
    )

    @property
    def dev_shm_gib(self) -> float:
        """Size of /dev/shm in GiB; 0 for the node's default.

        That is 64 MiB, which are too few for the workers of a data loader.
        """
        configured = self.shared_memory_gib
        return self.memory_gib / 4 if configured is None else configured


def _gpu(kind: str, count: int, cpu: float, memory_gib: float, product: str) -> InstanceType:
    return InstanceType(
        cpu=cpu,
        memory_gib=memory_gib,
        gpus=count,
        gpu_kind=kind,
        node_selector={"nvidia.com/gpu.product": product},
        tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    )


_BUILT_IN: Mapping[str, InstanceType] = {
    "cpu.small": InstanceType(cpu=2, memory_gib=8),
    "cpu.medium": InstanceType(cpu=4, memory_gib=16),
    "cpu.large": InstanceType(cpu=8, memory_gib=32),
    "cpu.xlarge": InstanceType(cpu=16, memory_gib=64),
    "gpu.t4": _gpu("T4", 1, 4, 16, "Tesla-T4"),
    "gpu.l4": _gpu("L4", 1, 8, 32, "NVIDIA-L4"),
    "gpu.a100": _gpu("A100", 1, 12, 128, "NVIDIA-A100-SXM4-80GB"),
    "gpu.a100x8": _gpu("A100", 8, 96, 1024, "NVIDIA-A100-SXM4-80GB"),
    "gpu.h100": _gpu("H100", 1, 16, 192, "NVIDIA-H100-80GB-HBM3"),
    "gpu.h100x8": _gpu("H100", 8, 128, 1536, "NVIDIA-H100-80GB-HBM3"),
    "gpu.h200": _gpu("H200", 1, 16, 192, "NVIDIA-H200"),
    "gpu.h200x8": _gpu("H200", 8, 128, 1536, "NVIDIA-H200"),
}


def load_all(settings: Settings) -> dict[str, InstanceType]:
    """Load every instance type by name: the built-in ones, then those of the settings.

    Raises:
        BadInputError: With the code ``InstanceTypesInvalid``, if the latter are invalid.
    """
    configured, file = settings.instance_types_settings, settings.instance_types
    given = _read("MODELYARD_INSTANCE_TYPES_SETTINGS", lambda: configured)
    if file is not None:
        given |= _read(str(file), file.read_text)
    return {**_BUILT_IN, **given}


def _read(where: str, text: Callable[[], str]) -> dict[str, InstanceType]:
    try:
        found = yaml.safe_load(text()) or {}
        if not isinstance(found, dict):
            raise TypeError("it is not a mapping")
        return {str(name): InstanceType(**shape) for name, shape in found.items()}
    except (OSError, yaml.YAMLError, TypeError, ValueError) as error:
        raise BadInputError(
            f"The instance types in {where} cannot be read: {error}.",
            "Write a mapping such as gpu.mine: {cpu: 8, memory_gib: 64, gpus: 1}.",
            code="InstanceTypesInvalid",
        ) from error


def find(name: str, settings: Settings) -> InstanceType:
    """Find the instance type ``name``; the default one if it is empty.

    Raises:
        BadInputError: With the code ``InstanceTypeUnknown``.
    """
    known = load_all(settings)
    try:
        return known[name or DEFAULT]
    except KeyError:
        raise BadInputError(
            f"There is no instance type {name!r}.",
            f"There are: {', '.join(sorted(known))}; MODELYARD_INSTANCE_TYPES may name a file "
            "with more.",
            code="InstanceTypeUnknown",
        ) from None
