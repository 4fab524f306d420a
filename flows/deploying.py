"""Bringing everything that is registered somewhere up to date."""

from __future__ import annotations

import asyncio
import logging

from prefect.client.orchestration import PrefectClient, get_client

from flows import catalogue, forms, pipelines
from infra import home as homes
from infra import settings, work_pools
from infra.kubernetes import cluster, secret_checks, secrets_published
from infra.kubernetes.api import Api
from infra.kubernetes.refusals import ClusterError
from infra.kubernetes.transport import Patience
from infra.work_pools import Kind
from registry import catalogue as database
from schedules import builtin

_PATIENCE = Patience(attempts=2, seconds=10.0)
_logger = logging.getLogger(__name__)


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
            await catalogue.register(client, flow, flow.name, forms.schema(flow.fn))
            for flow in catalogue.FLOWS
        ]
        deployments += await pipelines.register_all(client)
        await _publish_secrets(client)
    builtin.ensure(catalogue.SCHEDULES)
    return {"pools": pools, "deployments": deployments}


async def _publish_secrets(client: PrefectClient) -> None:
    """Say which Secrets of runs are there, where a cluster is configured and they may be seen.

    The workers, whose account reads no Secret, tell it to whoever asks them (modelyard doctor).
    """
    configured = settings.load()
    if configured.cluster is None:
        return
    try:
        described = cluster.load(configured)
        api = Api.connect(described, patience=_PATIENCE)
        seen = await asyncio.to_thread(secret_checks.inspect, api, described)
    except ClusterError as error:
        _logger.warning("The Secrets of runs were not looked at: %s", error)
        return
    await secrets_published.publish(client, seen)
