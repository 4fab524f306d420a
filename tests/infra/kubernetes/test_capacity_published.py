"""What a worker tells of its cluster, and what is read of it."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

from infra.kubernetes import capacity_published
from infra.kubernetes.capacity import Capacity, NodeCapacity, Quota

FULL = Capacity(
    quotas=(Quota(name="q", hard={"requests.nvidia.com/gpu": 2.0}, used={"pods": 1.0}),),
    nodes=(NodeCapacity(labels={"nvidia.com/gpu.product": "A"}, allocatable={"cpu": 8.0}),),
    most_gpus=4,
    local_data=False,
    tolerations=({"key": "gpu", "operator": "Exists"},),
)


class Prefect:
    """Prefect's variables."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}
        self.written = 0

    def read_variable_by_name(self, name: str) -> SimpleNamespace | None:
        if name not in self.kept:
            return None
        return SimpleNamespace(name=name, value=json.loads(self.kept[name]))

    def keep(self, asked: Any) -> None:
        assert len(json.dumps(asked.value)) <= 5000
        self.kept[asked.name] = json.dumps(asked.value)
        self.written += 1


class Asynchronous:
    """The same for a worker."""

    def __init__(self, prefect: Prefect) -> None:
        self._prefect = prefect

    async def read_variable_by_name(self, name: str) -> SimpleNamespace | None:
        return self._prefect.read_variable_by_name(name)

    async def create_variable(self, asked: Any) -> None:
        assert asked.name not in self._prefect.kept
        self._prefect.keep(asked)

    async def update_variable(self, asked: Any) -> None:
        assert asked.name in self._prefect.kept
        self._prefect.keep(asked)


def _publish(prefect: Prefect, capacity: Capacity, pool: str = "gpu") -> None:
    asyncio.run(capacity_published.publish(Asynchronous(prefect), pool, capacity))  # type: ignore[arg-type]


def _read(prefect: Prefect, pool: str = "gpu") -> Capacity | None:
    return capacity_published.read(prefect, pool)  # type: ignore[arg-type]


def test_what_is_told_is_read_again_and_written_when_it_changes() -> None:
    prefect = Prefect()
    for capacity in (FULL, FULL, Capacity(), Capacity(nodes=())):
        _publish(prefect, capacity)
        assert _read(prefect) == capacity
    assert prefect.written == 3


def test_each_pool_has_its_own() -> None:
    prefect = Prefect()
    _publish(prefect, FULL, "gpu")

    assert _read(prefect, "cpu") is None
    assert capacity_published.variable("My Pool") == "modelyard_capacity_my_pool"


def test_more_kinds_of_nodes_than_a_variable_holds_are_left_to_the_cluster() -> None:
    prefect = Prefect()
    nodes = tuple(
        NodeCapacity(labels={"kind": f"{n:050}"}, allocatable={"cpu": n}) for n in range(100)
    )
    _publish(prefect, FULL.model_copy(update={"nodes": nodes}))

    assert _read(prefect) == FULL.model_copy(update={"nodes": None})


def test_what_another_release_has_told_refuses_nothing() -> None:
    prefect = Prefect()
    prefect.kept[capacity_published.variable("gpu")] = json.dumps({"quotas": "many"})

    assert _read(prefect) is None
