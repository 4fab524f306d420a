"""Prefect's own commands list what its server holds: null fields of a request are no error."""

import asyncio

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate


@pytest.mark.parametrize(
    "listing",
    [
        "read_flows",
        "read_flow_runs",
        "read_deployments",
        "read_work_pools",
        "read_task_runs",
    ],
)
def test_a_listing_without_filters_is_answered(prefect_api: str, listing: str) -> None:
    with get_client(sync_client=True) as client:
        assert isinstance(getattr(client, listing)(), list)


async def _workers() -> list[object]:
    async with get_client() as client:
        await client.create_work_pool(WorkPoolCreate(name="listed", type="process"))
        return list(await client.read_workers_for_work_pool("listed"))


def test_the_workers_of_a_pool_are_listed(prefect_api: str) -> None:
    assert asyncio.run(_workers()) == []
