"""What a run is given to work with, and the refusal of what this machine cannot give."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from infra import gpus, instance_types, settings, site
from infra.errors import BadInputError, DiskFullError
from infra.home import Home
from infra.settings import Settings
from infra.storage import store
from tasks.parameters import Text

MOST_NODES = 256
MOST_PROCESSES = 64
MOST_MOUNTS = 20

# Each is a process with the script's imports in it: many more than cores only wear them out.
_LOCAL_PROCESSES = 16
_LOCAL_PROCESSES_PER_CORE = 4

_MOUNT = re.compile(r"(?:nas://)?([A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)(?::/?)?", re.I)


def _choices(schema: dict[str, Any]) -> None:
    schema["enum"] = ["", *sorted(instance_types.load_all(settings.load()))]


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
    boot_storage_gib: float = Field(
        0, ge=0, le=1e9,
        description="Room on each machine for what the run writes outside its own folders, in "
        "GiB; 0 for what is usual.",
    )  # fmt: skip
    data_storage_gib: float = Field(
        0, ge=0, le=1e9, description="Room for data on each machine, in GiB; 0 for what is usual."
    )
    mounts: list[str] = Field(
        [], max_length=MOST_MOUNTS,
        description="Network folders that the run has beside those that it names elsewhere: "
        "nas://ID, or the ID alone.",
    )  # fmt: skip
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
    """How many GPUs the run asks of this machine: of one node, where the others have their own.

    Raises:
        BadInputError: If there is no such instance type.
    """
    nodes = 1 if site.has_several_pods() else resources.nodes
    return nodes * instance_types.find(resources.instance_type, configured).gpus


def mount_ids(mounts: Iterable[str]) -> list[str]:
    """The ids of network folders that are given as ``nas://ID`` or as ``ID``.

    Raises:
        BadInputError: With the code ``MountInvalid`` if one is given otherwise.
    """
    found = []
    for mount in mounts:
        match = _MOUNT.fullmatch(mount)
        if match is None:
            raise BadInputError(
                f"resources.mounts: {mount[:200]!r} names no network folder.",
                "Write nas://ID, or the ID alone; a run names folders below it as nas://ID:/path.",
                code="MountInvalid",
            )
        found.append(match[1])
    return list(dict.fromkeys(found))


def most_processes() -> int:
    """How many processes of scripts this machine takes at once."""
    return max(_LOCAL_PROCESSES, _LOCAL_PROCESSES_PER_CORE * (os.cpu_count() or 1))


def check(resources: Resources, entry_point: str, home: Home, configured: Settings) -> None:
    """Refuse what the run's machines do not have, as far as this one can tell.

    Within :func:`infra.site.validating_for_remote` it checks little: the run's machines
    have GPUs, processors and disks of their own.

    Raises:
        BadInputError: With a code of its own for each fault.
        NotFoundError: If a network folder is not mounted here, with the code ``NasNotMounted``.
        DiskFullError: If the home's disk has less room than the run asks for.
    """
    if resources.torchrun and PurePosixPath(entry_point).suffix != ".py":
        raise BadInputError(
            f"torchrun starts Python scripts, and the entry point is {entry_point!r}.",
            "Give a .py file, or leave resources.torchrun out.",
            code="TorchrunNeedsPython",
        )
    mounts = mount_ids(resources.mounts)
    wanted = gpu_count(resources, configured)
    if site.is_validating_for_remote():
        return
    for mount in mounts:
        store(f"nas://{mount}:/")
    _check_processes(resources)
    gpus.check(wanted, configured, allow_cpu=resources.allow_cpu)
    if not site.in_pod():  # which the cluster has given the room; its file system takes some
        _check_room(resources, home)


def _check_processes(resources: Resources) -> None:
    most = most_processes()
    nodes = 1 if site.has_several_pods() else resources.nodes
    if nodes * resources.processes_per_node > most:
        raise BadInputError(
            f"The run wants {nodes} nodes with {resources.processes_per_node} processes "
            f"each, and this machine takes {most} processes in all.",
            "Ask for fewer nodes, or fewer processes on each.",
            code="NodesTooMany",
        )


def _check_room(resources: Resources, home: Home) -> None:
    free = home.free_bytes() / 2**30
    asked = {
        "data_storage_gib": resources.data_storage_gib,
        "boot_storage_gib": resources.boot_storage_gib,
    }
    if free < sum(asked.values()):
        names = [name for name, size in asked.items() if size]
        raise DiskFullError(
            f"The run asks for {sum(asked.values()):g} GiB of storage, and the disk "
            f"of {home.root} has {free:.1f} GiB left.",
            f"Make room, or lower {' and '.join(f'resources.{name}' for name in names)}.",
        )
