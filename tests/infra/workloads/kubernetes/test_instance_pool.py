"""Room on instances, in threads that wait for each other's events and for no clock."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from infra.errors import BadInputError
from infra.instance_types import InstanceType
from infra.workloads.base import ResourceRequest, Workload
from infra.workloads.kubernetes.instance_pool import InstancePool
from infra.workloads.kubernetes.job_manifest import ANY_NODE, InstanceSpec
from tests.infra.workloads.kubernetes.shapes import job

SHAPE = InstanceType(cpu=4, memory_gib=8, gpus=1)


def _pool(count: int = 1) -> InstancePool:
    return InstancePool(InstanceSpec("mine", SHAPE, count))


def _asking(**resources: Any) -> Workload:
    return job(resources=ResourceRequest(**resources))


class Holder:
    """One that holds room in a thread until it is released."""

    def __init__(self, pool: InstancePool, workload: Workload) -> None:
        self.waits, self.has = threading.Event(), threading.Event()
        self.lines: list[str] = []
        self.cancelled = threading.Event()
        self._release = threading.Event()
        self._pool = pool
        self._threads = ThreadPoolExecutor(1)
        self.found = self._threads.submit(self._hold, workload)

    def _hold(self, workload: Workload) -> bool:
        with self._pool.room(workload, self._said, self.cancelled) as found:
            self.has.set()
            self._release.wait(30)
            return found

    def _said(self, line: str) -> None:
        self.lines.append(line)
        self.waits.set()

    def release(self) -> bool:
        self._release.set()
        return self.found.result(30)


@pytest.mark.parametrize(
    "resources",
    [{"cpu": 3}, {"cpu_request": 2.5}, {"memory": 5 * 2**30}, {"memory_request": 5 * 2**30},
     {"accelerator": "nvidia.com/gpu", "accelerators": 1}],
    ids=str,
)  # fmt: skip
def test_no_more_pods_are_there_at_once_than_the_instances_have_room_for(
    resources: dict[str, Any],
) -> None:
    pool = _pool(count=2)
    first, second = (Holder(pool, _asking(**resources)) for _ in range(2))
    assert first.has.wait(30)
    assert second.has.wait(30)

    third = Holder(pool, _asking(**resources))
    assert third.waits.wait(30)
    assert third.lines == ["Waiting for room on the run's instances: 2 of mine."]
    assert not third.has.is_set()

    assert first.release()
    assert third.has.wait(30)
    assert second.release()
    assert third.release()


def test_what_says_nothing_of_itself_has_room_beside_others() -> None:
    """Eight at once: 8 GiB, and a GiB for the containers that stage."""
    pool = _pool()
    holders = [Holder(pool, job()) for _ in range(8)]
    assert all(one.has.wait(30) for one in holders)

    ninth = Holder(pool, job())
    assert ninth.waits.wait(30)
    assert all(one.release() for one in [*holders, ninth])


def test_a_small_one_does_not_overtake_a_large_one() -> None:
    pool = _pool()
    first = Holder(pool, _asking(cpu=2))
    assert first.has.wait(30)
    large = Holder(pool, _asking(cpu=4))
    assert large.waits.wait(30)
    small = Holder(pool, _asking(cpu=1))
    assert small.waits.wait(30)

    assert first.release()
    assert large.has.wait(30)
    assert not small.has.is_set()
    assert large.release()
    assert small.release()


def test_one_that_is_stopped_while_it_waits_gets_no_room() -> None:
    pool = _pool()
    first = Holder(pool, _asking(cpu=4))
    assert first.has.wait(30)
    stopped, after = Holder(pool, _asking(cpu=4)), Holder(pool, _asking(cpu=4))
    assert stopped.waits.wait(30)

    stopped.cancelled.set()
    assert stopped.has.wait(30)
    assert not stopped.release()
    assert first.release()
    assert after.release()


@pytest.mark.parametrize(
    "resources",
    [{"cpu": 5}, {"memory": 9 * 2**30}, {"accelerator": "nvidia.com/gpu", "accelerators": 2}],
    ids=str,
)
def test_what_no_instance_has_is_refused(resources: dict[str, Any]) -> None:
    with pytest.raises(BadInputError, match="an instance of mine has 4, 8 GiB and 1") as caught:
        _pool(count=9).check(_asking(**resources))

    assert caught.value.code == "ResourcesUnavailable"
    _pool().check(_asking(cpu=4, memory=8 * 2**30))


def test_without_a_type_all_have_room() -> None:
    pool = InstancePool(ANY_NODE)
    pool.check(_asking(cpu=1000))
    holders = [Holder(pool, _asking(cpu=1000)) for _ in range(3)]

    assert all(one.has.wait(30) for one in holders)
    assert all(one.release() for one in holders)
