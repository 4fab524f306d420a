"""Worker of the local pools, and the controllers beside it.

A :class:`~infra.local_worker.LocalWorker` runs for each pool, all in one process. The pools' job
template starts each run through the fork server. ``modelyard/worker.py`` is the process.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Callable
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client

from infra import home as homes
from infra import service, work_pools
from infra.controllers import Controller, PeriodicTask, SharedSubscription, Subscription
from infra.local_reconciler import IsExecuted, LocalRunReconciler
from infra.local_worker import LocalWorker
from infra.prefect_events import POOLS, RUNS, EventSubscription

_ACTIVE_SECONDS = 5.0
# Events wake the controllers; these intervals are for lost events.
_IDLE_SECONDS = 60.0
_POOLS_SECONDS = 10.0
_SETTLE_SECONDS = 3.0  # a run that begins needs Prefect's server for itself


class PoolsChangedError(Exception):
    """A pool has changed between this machine and a cluster."""


async def until_pools_change(
    client: PrefectClient, pools: tuple[str, ...], served: tuple[str, ...], events: Subscription
) -> None:
    """Return when the set of local pools differs from the served ones."""
    changed = asyncio.Event()

    async def check() -> None:
        if await work_pools.list_local(client, pools) != served:
            changed.set()

    controller = Controller(
        "pools", PeriodicTask(check), resync_seconds=_IDLE_SECONDS, poll_seconds=_POOLS_SECONDS,
        settle_seconds=_SETTLE_SECONDS, retry_seconds=_POOLS_SECONDS, subscriptions=[events],
    )  # fmt: skip
    running = asyncio.create_task(controller.run())
    try:
        await changed.wait()
    finally:
        running.cancel()


async def work(pools: tuple[str, ...], tidy: Callable[[IsExecuted], object]) -> None:
    """Run the workers and the controllers until one of them fails, or a pool changes its kind.

    Args:
        pools: The work pools to serve; those of a cluster are left to its worker.
        tidy: Reconciles other services' records of runs; called in a thread every few seconds.

    Raises:
        ExceptionGroup: Of a :class:`PoolsChangedError` or an error of a worker. The supervisor
            starts the process again.
    """
    home = homes.current()
    shutil.rmtree(home.runner, ignore_errors=True)  # left by a killed worker
    async with get_client() as client, asyncio.TaskGroup() as group:
        served = await work_pools.list_local(client, pools)
        events = SharedSubscription(EventSubscription(RUNS, POOLS))
        workers = [
            LocalWorker(work_pool_name=pool, name=f"{pool}@{socket.gethostname()}",
                        create_pool_if_not_found=False)
            for pool in served
        ]  # fmt: skip

        def starts(flow_run_id: UUID) -> bool:
            return any(worker.executes(flow_run_id) for worker in workers)

        reconciler = LocalRunReconciler(
            client, home, served, starts, tidy, active_seconds=_ACTIVE_SECONDS
        )
        runs = Controller(
            "runs", reconciler, resync_seconds=_IDLE_SECONDS, poll_seconds=_ACTIVE_SECONDS,
            settle_seconds=_SETTLE_SECONDS, retry_seconds=_ACTIVE_SECONDS, subscriptions=[events],
        )  # fmt: skip
        for worker in workers:
            group.create_task(worker.start())
        group.create_task(runs.run())
        for worker in workers:
            await worker.started.wait()
        async with service.liveness_socket(home, "worker.sock"):
            await until_pools_change(client, pools, served, events)
            raise PoolsChangedError(f"The pools served were: {', '.join(served) or 'none'}.")
