"""The worker of the local pools, and the reconciler beside it.

Prefect's own process worker runs for each pool, all in one process. The pools' job template
starts each run through the fork server. ``modelyard/worker.py`` is the process.

The reconciler compares what Prefect believes to run with what does run on this machine, and
mends both sides: a run whose process is gone is ended or, if it never began, put back into the
queue; a process whose run is over is killed.
"""

from __future__ import annotations

import asyncio
import functools
import shutil
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.logging import get_logger
from prefect.states import Cancelled, Crashed, Scheduled

from infra import active_runs, run_lock, work_pools
from infra import home as homes
from infra.home import Home
from infra.local_worker import LocalWorker
from infra.stack import remains

_INTERVAL_SECONDS = 5.0
_POOLS_SECONDS = 10.0

# Between Prefect's word that a run is Running and the flow's taking of its lock lies the start
# of the flow; between Pending and Running lies the wait for the fork server.
_STARTING = timedelta(seconds=15)
_SUBMITTING = timedelta(seconds=60)
_RESTARTED = timedelta(seconds=5)

_logger = get_logger("modelyard.reconciler")


def verdict(
    flow_run: FlowRun, *, locked: bool | None, pools: tuple[str, ...], started: datetime,
    now: datetime,
) -> State | None:  # fmt: skip
    """What an active run's state must become, or None if it is right as it is.

    Args:
        flow_run: A run that Prefect has as Running, Pending or Cancelling.
        locked: Whether somebody on this machine executes it; None if nobody ever did.
        pools: The pools of this worker: who else's runs never ran here are not ours to judge.
        started: When this worker process started.
        now: The present time.
    """
    state = flow_run.state
    if (
        state is None
        or state.is_final()
        or locked
        or (locked is None and flow_run.work_pool_name not in pools)
    ):
        return None
    age = now - state.timestamp
    if state.type == StateType.PENDING:
        orphaned = state.timestamp < started and now - started > _RESTARTED
        if orphaned or age > _SUBMITTING:
            return Scheduled(message="Its worker died before it began; it is queued again.")
    elif age > _STARTING and state.type == StateType.CANCELLING:
        return Cancelled(message="Stopped; its process is gone.")
    elif age > _STARTING:
        return Crashed(
            message="Its process or worker was killed. A retry resumes from the newest "
            f"checkpoint: modelyard runs retry {flow_run.id}"
        )
    return None


async def reconcile(
    client: PrefectClient, home: Home, pools: tuple[str, ...], started: datetime
) -> int:
    """Mend every active run that nobody executes; how many there were."""
    active = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    judge = functools.partial(verdict, pools=pools, started=started)
    mended = 0
    for flow_run in await active_runs.read(client, active):
        locked = run_lock.held(home, str(flow_run.id))
        if judge(flow_run, locked=locked, now=datetime.now(UTC)) is None:
            continue
        # It was read before its lock was looked at, and may have ended between.
        now_it_is = await client.read_flow_run(flow_run.id)
        state = judge(now_it_is, locked=locked, now=datetime.now(UTC))
        if state is not None:
            _logger.warning("Run %s is %s: %s", flow_run.id, state.name, state.message)
            await client.set_flow_run_state(flow_run.id, state, force=True)
            mended += 1
    return mended


async def _reconcile_for_ever(
    home: Home, pools: tuple[str, ...], tidy: Callable[[Callable[[str], bool | None]], object]
) -> None:
    started = datetime.now(UTC)
    executed = functools.partial(run_lock.held, home)
    async with get_client() as client:
        while True:
            try:
                await reconcile(client, home, pools, started)
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
    async with asyncio.TaskGroup() as group:
        for worker in workers:
            group.create_task(worker.start())
        group.create_task(_reconcile_for_ever(home, served, tidy))
        group.create_task(_until_changed(pools, served))
        for worker in workers:
            await worker.started.wait()
        async with await _announce(home):
            await asyncio.Event().wait()
