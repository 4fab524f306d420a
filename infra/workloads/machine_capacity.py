"""Resource requests of workloads against the capacity of this machine."""

from __future__ import annotations

import psutil

from infra.errors import BadInputError
from infra.workloads.base import Workload


def check(workload: Workload, *, cpus: int, memory: int | None = None) -> None:
    """Refuse a workload whose requests exceed the capacity. Its limits may.

    Raises:
        BadInputError: With the code ``ResourcesUnavailable``.
    """
    there = psutil.virtual_memory().total if memory is None else memory
    asked = workload.resources
    faults = []
    if asked.cpu_request > cpus:
        faults.append(f"{asked.cpu_request:g} cores, and this machine has {cpus}")
    if asked.memory_request > there:
        wanted, have = asked.memory_request / 2**30, there / 2**30
        faults.append(f"{wanted:.1f} GiB of memory, and this machine has {have:.1f} GiB")
    if faults:
        raise BadInputError(
            f"{workload.name} asks for {'; '.join(faults)}.",
            "Lower the component's requests, or run the pipeline where there is more.",
            code="ResourcesUnavailable",
        )
