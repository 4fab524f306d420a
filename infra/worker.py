"""The worker of the local pools, and the reconciler beside it.

A :class:`~infra.local_worker.LocalWorker` runs for each pool, all in one process. The pools' job
template starts each run through the fork server. ``modelyard/worker.py`` is the process.

The reconciler compares what Prefect believes to run with what does run on this machine, and
mends both sides: a run whose process is gone is ended or, if it never began, put back into the
queue; a process whose run is over is killed. It asks locks and the workers, never a clock: a run
is starting in one of the workers, or its lock is held from before it is Running until it is over.
"""

from __future__ import annotations

import asyncio
import functools
import shutil
import socket
from collections.abc import Callable
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.logging import get_logger
from prefect.states import Cancelled, Scheduled

from infra import active_runs, run_ends, run_lock, work_pools
from infra import home as homes
from infra.home import Home
from infra.local_worker import LocalWorker
from infra.stack import remains

_INTERVAL_SECONDS = 5.0
_POOLS_SECONDS = 10.0

_logger = get_logger("modelyard.reconciler")


def verdict(
    flow_run: FlowRun, *, locked: bool | None, starting: bool, pools: tuple[str, ...]
) -> State[Any] | None:
    """What an active run's state must become, or None if it is right as it is.

    Args:
        flow_run: A run that Prefect had as Running, Pending or Cancelling before it was asked
            who executes it.
        locked: Whether a process on this machine executes it; None if none ever did.
        starting: Whether a worker of this process starts it, or waits for its process.
        pools: The pools of this worker: whose runs never ran here are left to others.
    """
    state = flow_run.state
    if (
        state is None
        or starting
        or locked
        or (locked is None and flow_run.work_pool_name not in pools)
    ):
        return None
    if state.type == StateType.PENDING:
        return Scheduled(message="Its worker died before it began; it is queued again.")
    if state.type == StateType.CANCELLING:
        return Cancelled(message="Stopped; its process is gone.")
    if state.type == StateType.RUNNING:
        return run_ends.crashed(flow_run.id, "Its process or worker was killed.")
    return None


async def reconcile(
    client: PrefectClient, home: Home, pools: tuple[str, ...], starts: Callable[[UUID], bool]
) -> int:
    """Mend every active run that nobody executes; how many there were.

    Args:
        client: Prefect's.
        home: Where the runs' locks are.
        pools: The pools of this worker.
        starts: Whether a worker of this process has a run; see :meth:`LocalWorker.executes`.
    """
    active = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    mended = 0
    for flow_run in await active_runs.read(client, active):
        locked = run_lock.held(home, str(flow_run.id))
        becomes = verdict(flow_run, locked=locked, starting=starts(flow_run.id), pools=pools)
        if becomes is None or flow_run.state is None:
            continue
        # An executor reports the end of a run before it lets go of the lock.
        now_it_is = await client.read_flow_run(flow_run.id)
        if now_it_is.state and now_it_is.state.id == flow_run.state.id:
            _logger.warning("Run %s is %s: %s", flow_run.id, becomes.name, becomes.message)
            await client.set_flow_run_state(flow_run.id, becomes, force=True)
            mended += 1
    return mended


async def _reconcile_for_ever(
    home: Home,
    pools: tuple[str, ...],
    tidy: Callable[[Callable[[str], bool | None]], object],
    starts: Callable[[UUID], bool],
) -> None:
    executed = functools.partial(run_lock.held, home)
    async with get_client() as client:
        while True:
            try:
                await reconcile(client, home, pools, starts)
                await asyncio.to_thread(remains.end_runs, home, lambda run: executed(run) is True)
                await asyncio.to_thread(tidy, executed)
            except Exception:  # the edge of the loop: the next turn may do better
                _logger.exception("Not reconciled this time")
            await asyncio.sleep(_INTERVAL_SECONDS)


async def _announce(home: Home) -> asyncio.Server:
    """A socket that accepts while this worker lives: what the supervisor asks for its health."""
    path = home.sockets / "worker.sock"
    path.unlink(missing_ok=True)
    return await asyncio.start_unix_server(lambda _reader, writer: writer.close(), path)


class PoolsChangedError(Exception):
    """A pool of this worker's is a cluster's by now, or one of a cluster's is this machine's."""


async def _until_changed(pools: tuple[str, ...], served: tuple[str, ...]) -> None:
    """Go on as long as those of the pools that are served are those that are this machine's.

    Raises:
        PoolsChangedError: If they are others. Whoever supervises this process starts it again.
    """
    async with get_client() as client:
        while True:
            await asyncio.sleep(_POOLS_SECONDS)
            try:
                present = await work_pools.local_ones(client, pools)
            except Exception:  # the edge of the loop: the next turn may do better
                _logger.exception("The pools could not be read this time")
                continue
            if present != served:
                raise PoolsChangedError(f"Served: {served}; this machine's: {present}")


async def work(
    pools: tuple[str, ...], tidy: Callable[[Callable[[str], bool | None]], object]
) -> None:
    """Run the workers and the reconciler until one of them fails, or a pool changes its kind.

    Args:
        pools: The work pools to serve; those that are a cluster's are left to its worker.
        tidy: Done every few seconds, in a thread: mends what other services believe to run. It
            is told how to ask whether a run, by id, is executed on this machine.
    """
    home = homes.current()
    shutil.rmtree(home.runner, ignore_errors=True)  # what a killed worker left
    async with get_client() as client:
        served = await work_pools.local_ones(client, pools)
    workers = [
        LocalWorker(work_pool_name=pool, name=f"{pool}@{socket.gethostname()}",
                    create_pool_if_not_found=False)
        for pool in served
    ]  # fmt: skip

    def starts(flow_run_id: UUID) -> bool:
        return any(worker.executes(flow_run_id) for worker in workers)

    async with asyncio.TaskGroup() as group:
        for worker in workers:
            group.create_task(worker.start())
        group.create_task(_reconcile_for_ever(home, served, tidy, starts))
        group.create_task(_until_changed(pools, served))
        for worker in workers:
            await worker.started.wait()
        async with await _announce(home):
            await asyncio.Event().wait()
