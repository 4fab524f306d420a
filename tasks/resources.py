"""What a run is given to work with, and the refusal of what this machine cannot give."""

from __future__ import annotations

import os
from pathlib import PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from infra import gpus, instance_types, settings
from infra.errors import BadInputError, DiskFullError
from infra.home import Home
from infra.settings import Settings
from tasks.parameters import Text

MOST_NODES = 256
MOST_PROCESSES = 64

# Each is a process with the script's imports in it: many more than cores only wear them out.
_LOCAL_PROCESSES = 16
_LOCAL_PROCESSES_PER_CORE = 4


def _choices(schema: dict[str, Any]) -> None:
    schema["enum"] = ["", *sorted(instance_types.table(settings.load()))]


class Resources(BaseModel):
    """The machines that a run works on."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    instance_type: Text = Field(
        "",
        description=f"The shape of each machine, such as {instance_types.DEFAULT} (which is the "
        "default) or gpu.a100. A run sees the GPUs that its type has, and no others.",
        json_schema_extra=_choices,
    )
    nodes: int = Field(
        1, ge=1, le=MOST_NODES, description="How many machines work together on it."
    )
    torchrun: bool = Field(
        False, description="Start the script with PyTorch's torchrun on each machine."
    )
    processes_per_node: int = Field(
        1, ge=1, le=MOST_PROCESSES, description="How many processes of the script on each machine."
    )
    image: Text = Field(
        "", description="The container image to run in. This machine's own pools use none."
    )
    data_storage_gib: float = Field(
        0, ge=0, le=1e9, description="Room for data on each machine, in GiB; 0 for what is usual."
    )
    allow_cpu: bool = Field(
        False, description="Run without GPUs where there are not as many as the type has."
    )
    share_gpus: bool = Field(
        False, description="Use GPUs together with other runs that say so too."
    )

    @property
    def processes(self) -> int:
        """How many processes of the script there are in all."""
        return self.nodes * self.processes_per_node


class PipelineResources(BaseModel):
    """The machines that a pipeline's components share."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    instance_type: Text = Field(
        "",
        description=f"The shape of each machine; without, {instance_types.DEFAULT}.",
        json_schema_extra=_choices,
    )
    nodes: int = Field(
        1, ge=1, le=MOST_NODES,
        description="How many machines the components are spread over. This machine's own pools "
        "have one.",
    )  # fmt: skip
    data_storage_gib: float = Field(
        0, ge=0, le=1e9, description="Room for data on each machine, in GiB; 0 for what is usual."
    )
    allow_cpu: bool = Field(
        False, description="Run without GPUs where there are not as many as the type has."
    )

    def on_one_machine(self) -> Resources:
        """What of it each machine must have."""
        return Resources(
            instance_type=self.instance_type,
            data_storage_gib=self.data_storage_gib,
            allow_cpu=self.allow_cpu,
        )


def gpu_count(resources: Resources, configured: Settings) -> int:
    """How many GPUs the run asks for in all.

    Raises:
        BadInputError: If there is no such instance type.
    """
    return resources.nodes * instance_types.find(resources.instance_type, configured).gpus


def most_processes() -> int:
    """How many processes of scripts this machine takes at once."""
    return max(_LOCAL_PROCESSES, _LOCAL_PROCESSES_PER_CORE * (os.cpu_count() or 1))


def check(resources: Resources, entry_point: str, home: Home, configured: Settings) -> None:
    """Refuse what this machine does not have.

    Raises:
        BadInputError: With a code of its own for each fault.
        DiskFullError: If the home's disk has less room than the run asks for.
    """
    if resources.torchrun and PurePosixPath(entry_point).suffix != ".py":
        raise BadInputError(
            f"torchrun starts Python scripts, and the entry point is {entry_point!r}.",
            "Give a .py file, or leave resources.torchrun out.",
            code="TorchrunNeedsPython",
        )
    most = most_processes()
    if resources.processes > most:
        raise BadInputError(
            f"The run wants {resources.nodes} nodes with {resources.processes_per_node} processes "
            f"each, and this machine takes {most} processes in all.",
            "Ask for fewer nodes, or fewer processes on each.",
            code="NodesTooMany",
        )
    wanted = gpu_count(resources, configured)
    gpus.check(wanted, configured, allow_cpu=resources.allow_cpu)
    free = home.free_bytes() / 2**30
    if free < resources.data_storage_gib:
        raise DiskFullError(
            f"The run asks for {resources.data_storage_gib:g} GiB of data storage, and the disk "
            f"of {home.root} has {free:.1f} GiB left.",
            "Make room, or lower resources.data_storage_gib.",
        )
