"""Register the pools, the deployments and the built-in schedules."""

from __future__ import annotations

import asyncio
import logging

from prefect.client.orchestration import PrefectClient, get_client

from flows import algorithms, catalogue, pipelines
from infra import home as homes
from infra import settings, work_pools
from infra.kubernetes import cluster, secret_checks, secrets_published
from infra.kubernetes.api import Api
from infra.kubernetes.api_errors import ClusterError
from infra.kubernetes.transport import RetryPolicy
from infra.work_pools import PoolKind
from registry import catalogue as database
from registry.notifications import notifications
from schedules import builtin

_PATIENCE = RetryPolicy(attempts=2, seconds=10.0)
_logger = logging.getLogger(__name__)


async def deploy(kind: PoolKind | None = None) -> dict[str, list[str]]:
    """Migrate the catalogue's database, and register the pools and the deployments.

    Args:
        kind: Where the pools run; None to keep it, and at first on this machine.

    Returns:
        ``{"pools": [...], "deployments": [...]}``. A second call changes nothing.

    Raises:
        ConflictError: With the code ``PoolBusy``, if that would lose runs.
    """
    database.migrate()
    async with get_client() as client:
        pools = await work_pools.register(client, homes.current(), kind)
        deployments = [
            await catalogue.register(client, flow, flow.name, flow.form)
            for flow in catalogue.load_all()
        ]
        deployments += await algorithms.register_all(client)
        deployments += await pipelines.register_all(client)
        await _publish_secrets(client)
    builtin.ensure(catalogue.SCHEDULES)
    await asyncio.to_thread(notifications.refresh)
    return {"pools": pools, "deployments": deployments}


async def _publish_secrets(client: PrefectClient) -> None:
    """Publish which Secrets of runs exist, where a cluster is configured and they may be read.

    The workers, whose account reads no Secret, answer ``modelyard doctor`` with it.
    """
    configured = settings.load()
    if configured.cluster is None:
        return
    try:
        described = cluster.load(configured)
        api = Api.connect(described, patience=_PATIENCE)
        seen = await asyncio.to_thread(secret_checks.inspect, api, described)
    except ClusterError as error:
        _logger.warning("The Secrets of runs could not be inspected: %s", error)
        return
    await secrets_published.publish(client, seen)
