"""Against a real Prefect."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.objects import FlowRun
from prefect.states import Pending, Running, Scheduled

from registry.runs import pool_queues
from tests import prefect_server

pytestmark = pytest.mark.usefixtures("prefect_api")


@pytest.fixture
def pool() -> prefect_server.Pool:
    return prefect_server.Pool.made("flows.catalogue:nothing")


@pytest.fixture
def client() -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as made:
        yield made


def _heard(client: SyncPrefectClient, pool: prefect_server.Pool) -> None:
    client.request(
        "POST", "/work_pools/{work_pool_name}/workers/heartbeat",
        path_params={"work_pool_name": pool.name},
        json={"name": "w", "heartbeat_interval_seconds": 30},
    )  # fmt: skip


def _change(client: SyncPrefectClient, pool: prefect_server.Pool, change: WorkPoolUpdate) -> None:
    client.request(
        "PATCH", "/work_pools/{work_pool_name}", path_params={"work_pool_name": pool.name},
        json=change.model_dump(mode="json", exclude_unset=True),
    )  # fmt: skip


def _waits(client: SyncPrefectClient, run: FlowRun) -> str:
    return pool_queues.waits(client, prefect_server.read(run))


def test_a_pool_without_workers_a_paused_and_a_full_one_are_told(
    client: SyncPrefectClient, pool: prefect_server.Pool
) -> None:
    run, other = pool.run(), pool.run()
    assert _waits(client, run).startswith(f"No worker of its pool {pool.name}")

    _heard(client, pool)
    assert _waits(client, run) == ""

    _change(client, pool, WorkPoolUpdate(concurrency_limit=1))
    assert _waits(client, run) == ""
    prefect_server.set_state(other, Pending())
    assert _waits(client, run) == f"Its pool {pool.name} runs as many as it may at once: 1."

    _change(client, pool, WorkPoolUpdate(is_paused=True))
    assert "is paused" in _waits(client, run)


@pytest.mark.parametrize(
    "state",
    [Pending(), Running(), Scheduled(scheduled_time=datetime.now(UTC) + timedelta(days=1))],
)
def test_one_that_is_not_due_or_was_taken_waits_for_no_worker(
    client: SyncPrefectClient, pool: prefect_server.Pool, state: object
) -> None:
    run = pool.run()
    prefect_server.set_state(run, state)  # type: ignore[arg-type]

    assert _waits(client, run) == ""


def test_one_that_no_pool_has_waits_for_none(client: SyncPrefectClient) -> None:
    assert pool_queues.waits(client, FlowRun.model_construct(work_pool_name=None)) == ""
