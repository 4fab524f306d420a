"""The pools: made, brought up to date, and changed only where nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.exceptions import ObjectNotFound
from prefect.utilities.templating import apply_values

from infra import work_pools
from infra.errors import ConflictError
from infra.home import Home
from infra.kubernetes import pool_template
from infra.work_pools import CLUSTER_TYPE, PROCESS_TYPE, PoolKind

BOTH = ["gpu", "cpu"]


class Prefect:
    """Prefect's pools, with the runs that go on in them and their deployments."""

    def __init__(self) -> None:
        self.pools: dict[str, SimpleNamespace] = {}
        self.running: dict[str, list[str]] = {}
        self.deployments: dict[UUID, str | None] = {}
        self.written: list[str] = []

    async def read_work_pool(self, name: str) -> SimpleNamespace:
        if name not in self.pools:
            raise ObjectNotFound(Exception())
        return self.pools[name]

    async def create_work_pool(self, asked: Any) -> None:
        assert asked.name not in self.pools
        self.written.append(f"create {asked.name}")
        self.pools[asked.name] = SimpleNamespace(
            name=asked.name, type=asked.type, base_job_template=asked.base_job_template,
            concurrency_limit=asked.concurrency_limit,
        )  # fmt: skip

    async def update_work_pool(self, name: str, asked: Any) -> None:
        self.written.append(f"update {name}")
        self.pools[name].base_job_template = asked.base_job_template

    async def delete_work_pool(self, name: str) -> None:
        self.written.append(f"delete {name}")
        del self.pools[name]
        for one, pool in self.deployments.items():
            if pool == name:
                self.deployments[one] = None

    async def read_flow_runs(self, *, work_pool_filter: Any, **_: Any) -> list[SimpleNamespace]:
        (pool,) = work_pool_filter.name.any_
        return [SimpleNamespace(name=name) for name in self.running.get(pool, [])]

    async def read_deployments(
        self, *, work_pool_filter: Any, limit: int, offset: int, **_: Any
    ) -> list[SimpleNamespace]:
        (pool,) = work_pool_filter.name.any_
        mine = [SimpleNamespace(id=one) for one, own in self.deployments.items() if own == pool]
        return mine[offset : offset + limit]

    async def update_deployment(self, one: UUID, asked: Any) -> None:
        self.deployments[one] = asked.work_pool_name


@pytest.fixture
def prefect() -> Prefect:
    return Prefect()


def _register(prefect: Prefect, home: Home, kind: PoolKind | None = None) -> list[str]:
    return asyncio.run(work_pools.register(prefect, home, kind))  # type: ignore[arg-type]


def _types(prefect: Prefect) -> set[str]:
    return {pool.type for pool in prefect.pools.values()}


@pytest.mark.parametrize(
    ("kind", "type_"),
    [(None, PROCESS_TYPE), ("local", PROCESS_TYPE), ("kubernetes", CLUSTER_TYPE)],
)
def test_pools_are_made_once(
    prefect: Prefect, home: Home, kind: PoolKind | None, type_: str
) -> None:
    assert _register(prefect, home, kind) == BOTH
    assert _register(prefect, home, kind) == BOTH

    assert _types(prefect) == {type_}
    assert prefect.written == ["create gpu", "create cpu"]


def test_a_clusters_pool_stays_one_unless_that_is_asked_for(prefect: Prefect, home: Home) -> None:
    _register(prefect, home, "kubernetes")
    _register(prefect, home)

    assert _types(prefect) == {CLUSTER_TYPE}
    _register(prefect, home, "local")
    assert _types(prefect) == {PROCESS_TYPE}


def test_somebody_elses_pool_is_left_alone(prefect: Prefect, home: Home) -> None:
    _register(prefect, home)
    theirs = SimpleNamespace(name="gpu", type="docker", base_job_template={})
    prefect.pools["gpu"] = theirs
    prefect.written.clear()
    _register(prefect, home)

    assert prefect.pools["gpu"] is theirs
    assert prefect.written == []


@pytest.mark.parametrize("kind", [None, "local", "kubernetes"])
def test_a_template_is_brought_up_to_date(
    prefect: Prefect, home: Home, kind: PoolKind | None
) -> None:
    _register(prefect, home, kind)
    prefect.pools["gpu"].base_job_template = {"variables": {}, "job_configuration": {}}
    _register(prefect, home)

    assert prefect.written[2:] == ["update gpu"]
    assert prefect.pools["gpu"].base_job_template["variables"] != {}


def test_what_somebody_has_set_in_a_pool_stays(prefect: Prefect, home: Home) -> None:
    _register(prefect, home, "kubernetes")
    variables = prefect.pools["gpu"].base_job_template["variables"]["properties"]
    variables["image"]["default"] = "mine:1"
    variables["priority_class"]["description"] = "of an older release"
    prefect.pools["gpu"].concurrency_limit = 4
    _register(prefect, home, "kubernetes")

    now = prefect.pools["gpu"].base_job_template["variables"]["properties"]
    ours = pool_template.template()["variables"]["properties"]
    assert now["image"] == {**ours["image"], "default": "mine:1"}
    assert now["priority_class"] == ours["priority_class"]

    _register(prefect, home, "local")
    assert prefect.pools["gpu"].concurrency_limit == 4
    assert prefect.pools["gpu"].type == PROCESS_TYPE


def test_a_local_pools_command_is_this_homes(prefect: Prefect, home: Home) -> None:
    """And no run's: a pool of an older release, where it was a variable, is brought up to date."""
    _register(prefect, home)
    older = prefect.pools["gpu"].base_job_template
    older["job_configuration"]["command"] = "{{ command }}"
    older["variables"]["properties"]["command"] = {"default": "of another home"}
    _register(prefect, home)

    template = prefect.pools["gpu"].base_job_template
    assert "command" not in template["variables"]["properties"]
    values = {"command": "sh -c evil", "working_dir": "/tmp"}
    configuration = apply_values(template["job_configuration"], values)
    assert str(home.root) in configuration["command"]
    assert "evil" not in configuration["command"]


def test_a_pool_that_changes_its_kind_keeps_its_deployments(prefect: Prefect, home: Home) -> None:
    _register(prefect, home)
    prefect.deployments = {uuid4(): "gpu" for _ in range(201)} | {uuid4(): "cpu", uuid4(): "mine"}
    before = dict(prefect.deployments)
    _register(prefect, home, "kubernetes")

    assert prefect.deployments == before
    assert _types(prefect) == {CLUSTER_TYPE}
    assert prefect.pools["gpu"].base_job_template == pool_template.template()


def test_one_in_which_runs_go_on_does_not_and_neither_does_the_other(
    prefect: Prefect, home: Home
) -> None:
    _register(prefect, home)
    prefect.running["cpu"] = [f"run-{number}" for number in range(7)]
    with pytest.raises(ConflictError) as raised:
        _register(prefect, home, "kubernetes")

    assert raised.value.code == "PoolBusy"
    assert "run-4, ..." in raised.value.message
    assert "runs stop" in raised.value.hint
    assert _types(prefect) == {PROCESS_TYPE}
    _register(prefect, home, "local")  # nothing changes its kind


def test_which_are_this_machines(prefect: Prefect, home: Home) -> None:
    _register(prefect, home)
    prefect.pools["cpu"].type = CLUSTER_TYPE
    found = work_pools.list_local(prefect, ("gpu", "cpu", "gone"))  # type: ignore[arg-type]

    assert asyncio.run(found) == ("gpu",)


class TestIsRemote:
    @pytest.fixture(autouse=True)
    def _client(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def read(name: str) -> SimpleNamespace:
            types = {"cluster": CLUSTER_TYPE, "here": PROCESS_TYPE}
            if name not in types:
                raise ObjectNotFound(Exception())
            return SimpleNamespace(type=types[name])

        client = SimpleNamespace(read_work_pool=read)
        monkeypatch.setattr(work_pools, "prefect_client", lambda: contextlib.nullcontext(client))

    @pytest.mark.parametrize(
        ("pool", "remote"),
        [("cluster", True), ("here", False), ("gone", False), ("", False), (None, False)],
    )
    def test_whose_machines_runs_are_on(self, pool: str | None, remote: bool) -> None:
        assert work_pools.is_remote(pool) is remote
