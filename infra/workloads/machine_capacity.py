"""What this machine has, against what a workload asks for."""

from __future__ import annotations

import psutil

from infra.errors import BadInputError
from infra.workloads.base import Workload


def check(workload: Workload, *, cpus: int, memory: int | None = None) -> None:
    """Refuse a workload that needs more than there is.

    A limit above what there is harms nobody, so only what is asked for as a minimum counts.

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
