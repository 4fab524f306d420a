"""Room on the instances of a run, which the pods of its workloads share."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from infra.errors import BadInputError
from infra.instance_types import InstanceType
from infra.kubernetes.quantities import GIB
from infra.workloads.base import Log, Workload
from infra.workloads.kubernetes import job_manifest
from infra.workloads.kubernetes.job_manifest import InstanceSpec

_CANCELLED_SECONDS = 1.0  # how soon a waiting workload sees that it is stopped


class _Amounts(NamedTuple):
    """Amounts in whole numbers, which add up without a rest."""

    millicores: int
    octets: int
    gpus: int

    def fits(self, free: _Amounts) -> bool:
        return all(mine <= there for mine, there in zip(self, free, strict=True))

    def plus(self, other: _Amounts, sign: int = 1) -> _Amounts:
        return _Amounts(*(one + sign * two for one, two in zip(self, other, strict=True)))


class InstancePool:
    """Grants pods room on the instances of a run, in the order in which they ask.

    Each pod is on one instance. An :class:`InstanceSpec` without a shape grants all at once.
    Several threads may use it.
    """

    def __init__(self, spec: InstanceSpec) -> None:
        self._spec = spec
        whole = [_whole(spec.shape)] * spec.count if spec.shape else []
        self._free = whole
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    def check(self, workload: Workload) -> None:
        """Refuse a workload that asks for more than one instance has.

        Raises:
            BadInputError: With the code ``ResourcesUnavailable``.
        """
        shape = self._spec.shape
        if shape is None or _asked(workload).fits(_whole(shape)):
            return
        cpu, memory, gpus = job_manifest.requests(workload)
        raise BadInputError(
            f"{workload.name} requests {cpu:g} cores, {memory / GIB:g} GiB of memory and {gpus} "
            f"GPUs; an instance of {self._spec.type_name} has {shape.cpu:g}, "
            f"{shape.memory_gib:g} GiB and {shape.gpus}.",
            "Choose a larger resources.instance_type, or lower what the component requests.",
            code="ResourcesUnavailable",
        )

    @contextmanager
    def room(self, workload: Workload, log: Log, cancelled: threading.Event) -> Iterator[bool]:
        """Hold room for a workload's pod; yields False if it is stopped while it waits."""
        if self._spec.shape is None:
            yield True
            return
        asked = _asked(workload)
        found = self._take(asked, log, cancelled)
        try:
            yield found is not None
        finally:
            if found is not None:
                with self._changed:
                    self._free[found] = self._free[found].plus(asked)
                    self._changed.notify_all()

    def _take(self, asked: _Amounts, log: Log, cancelled: threading.Event) -> int | None:
        """Wait for room; the number of the instance, None if the workload is stopped before."""
        ticket, waits = object(), False
        with self._changed:
            self._queue.append(ticket)
            try:
                while not cancelled.is_set():
                    # The first in line alone: small ones would never leave room for a large one.
                    number = self._first_fit(asked) if self._queue[0] is ticket else None
                    if number is not None:
                        self._free[number] = self._free[number].plus(asked, -1)
                        return number
                    if not waits:
                        waits = True
                        count, name = self._spec.count, self._spec.type_name
                        log(f"Waiting for room on the run's instances: {count} of {name}.")
                    self._changed.wait(_CANCELLED_SECONDS)
                return None
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()

    def _first_fit(self, asked: _Amounts) -> int | None:
        return next((n for n, free in enumerate(self._free) if asked.fits(free)), None)


def _whole(shape: InstanceType) -> _Amounts:
    return _Amounts(round(shape.cpu * 1000), round(shape.memory_gib * GIB), shape.gpus)


def _asked(workload: Workload) -> _Amounts:
    cpu, memory, gpus = job_manifest.requests(workload)
    return _Amounts(round(cpu * 1000), round(memory), gpus)
