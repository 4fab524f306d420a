"""Resource requests of runs, and their validation against this machine."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from pydantic import ConfigDict, Field

from infra import gpus, instance_types, settings, site
from infra.errors import BadInputError, DiskFullError
from infra.home import Home
from infra.parameter_models import ParameterModel
from infra.settings import Settings
from infra.storage import store
from tasks.parameters import Text

MOST_NODES = 256
MOST_PROCESSES = 64
MOST_MOUNTS = 20

# Each process imports the script's libraries: many more than the cores slow each other down.
_LOCAL_PROCESSES = 16
_LOCAL_PROCESSES_PER_CORE = 4

_MOUNT = re.compile(r"(?:nas://)?([A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)(?::/?)?", re.I)


def _choices(schema: dict[str, Any]) -> None:
    schema["enum"] = ["", *sorted(instance_types.load_all(settings.load()))]


class Resources(ParameterModel):
    """Machines and processes of a run."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    instance_type: Text = Field(
        default="",
        description=f"Instance type of each machine, such as {instance_types.DEFAULT} (the "
        "default) or gpu.a100. A run sees only the GPUs of its type.",
        json_schema_extra=_choices,
    )
    nodes: int = Field(
        default=1, ge=1, le=MOST_NODES, description="Number of machines of the run."
    )
    torchrun: bool = Field(
        default=False, description="Start the script with PyTorch's torchrun on each machine."
    )
    processes_per_node: int = Field(
        default=1,
        ge=1,
        le=MOST_PROCESSES,
        description="Number of the script's processes per machine.",
    )
    image: Text = Field(
        default="", description="Container image of the run; ignored by local pools."
    )
    boot_storage_gib: float = Field(
        default=0, ge=0, le=1e9,
        description="Ephemeral storage of each machine outside the run's folders, in GiB; 0 for "
        "the default.",
    )  # fmt: skip
    data_storage_gib: float = Field(
        default=0,
        ge=0,
        le=1e9,
        description="Storage for data on each machine, in GiB; 0 for the default.",
    )
    mounts: list[str] = Field(
        default=[], max_length=MOST_MOUNTS,
        description="NAS shares to mount, as nas://ID or ID. Shares that other parameters refer "
        "to "
        "are mounted automatically.",
    )  # fmt: skip
    allow_cpu: bool = Field(
        default=False, description="Run without GPUs if the machine or the cluster has too few."
    )
    share_gpus: bool = Field(
        default=False, description="Share GPUs with other runs that set this too."
    )

    @property
    def processes(self) -> int:
        """Total number of the script's processes."""
        return self.nodes * self.processes_per_node


class PipelineResources(ParameterModel):
    """Machines that the components of a pipeline share."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    instance_type: Text = Field(
        default="",
        description=f"Instance type of each machine; empty for {instance_types.DEFAULT}, and on a "
        "cluster for any.",
        json_schema_extra=_choices,
    )
    nodes: int = Field(
        default=1, ge=1, le=MOST_NODES,
        description="Number of machines of the instance type that the components share on a "
        "cluster; one in local pools.",
    )  # fmt: skip
    boot_storage_gib: float = Field(
        default=0, ge=0, le=1e9,
        description="Storage of each component outside its inputs and outputs, in GiB; 0 for the "
        "default.",
    )  # fmt: skip
    data_storage_gib: float = Field(
        default=0,
        ge=0,
        le=1e9,
        description="Storage for the inputs and outputs of each component, in GiB; 0 for the "
        "default.",
    )
    allow_cpu: bool = Field(
        default=False, description="Run without GPUs if the machine or the cluster has too few."
    )

    def on_one_machine(self) -> Resources:
        """Requirements of a single machine."""
        return Resources(
            instance_type=self.instance_type,
            boot_storage_gib=self.boot_storage_gib,
            data_storage_gib=self.data_storage_gib,
            allow_cpu=self.allow_cpu,
        )


def gpu_count(resources: Resources, configured: Settings) -> int:
    """Number of GPUs that the run needs on this machine, for all of its local nodes.

    Raises:
        BadInputError: If the instance type is unknown.
    """
    nodes = 1 if site.has_several_pods() else resources.nodes
    return nodes * instance_types.find(resources.instance_type, configured).gpus


def mount_ids(mounts: Iterable[str]) -> list[str]:
    """Parse ids of network folders, which are written as ``nas://ID`` or ``ID``.

    Raises:
        BadInputError: With the code ``MountInvalid``.
    """
    found = []
    for mount in mounts:
        match = _MOUNT.fullmatch(mount)
        if match is None:
            raise BadInputError(
                f"resources.mounts: {mount[:200]!r} is not a network folder.",
                "Write nas://ID, or the ID alone. Other parameters refer to folders in it as "
                "nas://ID:/path.",
                code="MountInvalid",
            )
        found.append(match[1])
    return list(dict.fromkeys(found))


def max_local_processes() -> int:
    """Largest number of script processes that this machine runs at once."""
    return max(_LOCAL_PROCESSES, _LOCAL_PROCESSES_PER_CORE * (os.cpu_count() or 1))


def check(resources: Resources, entry_point: str, home: Home, configured: Settings) -> None:
    """Refuse resources that the run's machines do not have.

    Within :func:`infra.site.validating_for_remote`, GPUs, processes and storage are not checked:
    the run's machines are unknown then.

    Raises:
        BadInputError: With a code of its own for each fault.
        NotFoundError: With the code ``NasNotMounted`` if a network folder is not mounted.
        DiskFullError: If the home's disk has less free space than requested.
    """
    if resources.torchrun and PurePosixPath(entry_point).suffix != ".py":
        raise BadInputError(
            f"torchrun needs a Python script, and the entry point is {entry_point!r}.",
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
    if not site.in_pod():  # the cluster has reserved a pod's storage
        _check_room(resources, home)


def torch_missing() -> BadInputError:
    """The error of torchrun in an environment without PyTorch."""
    return BadInputError(
        "torchrun is a part of PyTorch, which is not installed.",
        "Name torch in the requirements.txt beside the entry point, or install it in "
        "Modelyard's environment: make torch.",
        code="TorchMissing",
    )


def _check_processes(resources: Resources) -> None:
    most = max_local_processes()
    nodes = 1 if site.has_several_pods() else resources.nodes
    if nodes * resources.processes_per_node > most:
        raise BadInputError(
            f"The run requests {nodes} nodes with {resources.processes_per_node} processes "
            f"each, and this machine runs at most {most} processes.",
            "Request fewer nodes, or fewer processes on each.",
            code="NodesTooMany",
        )


def _check_room(resources: Resources, home: Home) -> None:
    free = home.free_bytes() / 2**30
    requested = {
        "data_storage_gib": resources.data_storage_gib,
        "boot_storage_gib": resources.boot_storage_gib,
    }
    if free < sum(requested.values()):
        names = [name for name, size in requested.items() if size]
        raise DiskFullError(
            f"The run requests {sum(requested.values()):g} GiB of storage, and the disk "
            f"of {home.root} has {free:.1f} GiB free.",
            f"Free space, or lower {' and '.join(f'resources.{name}' for name in names)}.",
        )
