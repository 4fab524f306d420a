"""Bringing everything that is registered somewhere up to date."""

from __future__ import annotations

from prefect.client.orchestration import get_client

from flows import catalogue, pipelines
from infra import home as homes
from infra import work_pools
from infra.work_pools import Kind
from registry import catalogue as database
from schedules import builtin


async def deploy(kind: Kind | None = None) -> dict[str, list[str]]:
    """Bring the catalogue's database, the pools and the deployments up to date.

    Args:
        kind: Where the pools' runs are; without, where they are now, and at first on this machine.

    Returns:
        ``{"pools": [...], "deployments": [...]}``. Twice is no change.

    Raises:
        ConflictError: With the code ``PoolBusy``, if that would lose runs.
    """
    database.migrate()
    async with get_client() as client:
        pools = await work_pools.register(client, homes.current(), kind)
        deployments = [
            await catalogue.register(
                client, declared, declared.name, catalogue.form(declared.flow)
            )
            for declared in catalogue.ENTRIES
        ]
        deployments += await pipelines.register_all(client)
    builtin.ensure(catalogue.SCHEDULES)
    return {"pools": pools, "deployments": deployments}
