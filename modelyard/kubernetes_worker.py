"""The worker process of a cluster's pools: ``python -m modelyard.kubernetes_worker POOL...``.

It holds the pools' workers, and the reconciler that follows their runs. Several such processes
may serve the same pools: one of them has the reconciler. When it ends, Jobs go on; whoever comes
next follows them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from sqlalchemy.exc import SQLAlchemyError

from flows import placing as placement
from infra import connection, instance_types, settings
from infra import home as homes
from infra.errors import BadInputError, ModelyardError, StackError
from infra.instance_types import DEFAULT
from infra.kubernetes import capacity, capacity_published, cluster, health
from infra.kubernetes.api import Api
from infra.kubernetes.cluster import Cluster
from infra.kubernetes.jobs import Jobs
from infra.kubernetes.reconciler import Limits, Reconciler
from infra.kubernetes.wanted import Placement
from infra.kubernetes.worker import KubernetesWorker, Means
from registry import leases, run_attempts, runs, tracking

_LEASE_SECONDS = 20.0
_RENEW_SECONDS = 5.0
_MARGIN_SECONDS = 2.0  # what the database's clock and ours may differ by in a lease's time
_TIDY_SECONDS = 30.0
_PUBLISH_SECONDS = 30.0
_LOOK_SECONDS = 1.0
_WELL_SECONDS = 180.0

_logger = logging.getLogger("modelyard.kubernetes_worker")


class Lead:
    """Whether this process leads the others of the same pools; a thread keeps it so.

    It is a lease of the catalogue's, renewed aside, so that a long look at a cluster does not
    lose it. A process that cannot reach the database stops leading before its lease is over.
    """

    def __init__(self, name: str, holder: str) -> None:
        self._name = name
        self._holder = holder
        self._lease: leases.Lease | None = None
        self._until = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True, name="lease")

    def __call__(self) -> bool:
        """Whether this process leads now."""
        return time.monotonic() < self._until

    def __enter__(self) -> Lead:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(_RENEW_SECONDS)
        self._until = 0.0
        if self._lease:
            with contextlib.suppress(SQLAlchemyError):
                leases.release(self._lease)

    def _keep(self) -> None:
        while True:
            began = time.monotonic()
            try:
                held = self._hold()
            except SQLAlchemyError as error:
                _logger.warning("The lease cannot be renewed: %s", error)
            else:
                self._until = began + _LEASE_SECONDS - _MARGIN_SECONDS if held else 0.0
            if self._stopped.wait(_RENEW_SECONDS):
                return

    def _hold(self) -> bool:
        if self._lease is None or not leases.renew(self._lease, _LEASE_SECONDS):
            self._lease = leases.take(self._name, self._holder, _LEASE_SECONDS)
        return self._lease is not None


def place(flow: str, run: FlowRun, there: capacity.Capacity) -> Placement:
    """What a run asks of a cluster that can give so much.

    A run that may do without GPUs does without where the cluster has none such.

    Raises:
        ModelyardError: If its parameters are wrong, or the cluster can never give it.
    """
    checked = bool((run.labels or {}).get(runs.CHECKED_LABEL))
    placed = placement.of(flow, run.parameters, checked=checked)
    name = str((run.parameters.get("resources") or {}).get("instance_type") or DEFAULT)
    return placement.settled(placement.Asked(flow, placed, name), there)


def abandoned(reconciler: Reconciler) -> Callable[[str], bool | None]:
    """What tells whether a run is executed on the cluster, as ``tracking.close_abandoned`` asks.

    A run that was never started there, such as one that was called in a process, is unknown.
    """

    def executed(flow_run_id: str) -> bool | None:
        going = reconciler.executes(flow_run_id)
        if going is not False:
            return going
        with get_client(sync_client=True) as client, contextlib.suppress(ObjectNotFound):
            run = client.read_flow_run(UUID(flow_run_id))
            over = run.state is not None and run.state.is_final()
            return False if over and run_attempts.newest([flow_run_id]) else None
        return None

    return executed


@dataclass(frozen=True)
class _Served:
    """What this process works with."""

    pools: tuple[str, ...]
    cluster: Cluster
    api: Api
    health_port: int = 0

    @property
    def means(self) -> Means:
        """What the pools' workers work with."""
        return Means(Jobs(self.api, self.cluster), self._place, run_attempts)

    def gives(self) -> capacity.Capacity:
        """What the cluster can give now."""
        return capacity.read(self.api, self.cluster, instance_types.table(settings.load()))

    def _place(self, flow: str, run: FlowRun) -> Placement:
        return place(flow, run, self.gives())


def _prepare(pools: Sequence[str]) -> _Served:
    """See that all is told that is needed.

    Raises:
        ModelyardError: If something is not.
    """
    if not pools:
        raise BadInputError(
            "No work pool is named.",
            "Name the pools to serve: python -m modelyard.kubernetes_worker gpu cpu.",
            code="PoolMissing",
        )
    if connection.from_environment() is None:
        raise StackError(
            "The addresses of Prefect, MLflow and the catalogue are not told.",
            "Set PREFECT_API_URL, MLFLOW_TRACKING_URI and MODELYARD_DATABASE_URL.",
        )
    configured = cluster.load(settings.load())
    return _Served(tuple(pools), configured, Api.connect(configured), _health_port())


def _health_port() -> int:
    """Where its health is told; 0 for nowhere.

    Raises:
        BadInputError: If it is no port.
    """
    told = os.environ.get("MODELYARD_HEALTH_PORT") or "0"
    if not told.isdecimal() or int(told) > 65535:
        raise BadInputError(
            f"MODELYARD_HEALTH_PORT is no port: {told!r}.",
            "Give a number below 65536, or none.",
            code="PortInvalid",
        )
    return int(told)


async def _tidy_for_ever(reconciler: Reconciler, lead: Callable[[], bool]) -> None:
    executed = abandoned(reconciler)
    while True:
        await asyncio.sleep(_TIDY_SECONDS)
        if lead():
            try:
                await asyncio.to_thread(tracking.close_abandoned, executed)
            except Exception:  # the edge of the loop: the next turn may do better
                _logger.exception("Not tidied this time")


async def _publish_for_ever(
    client: PrefectClient, served: _Served, lead: Callable[[], bool]
) -> None:
    """Tell those who submit runs what the cluster can give: they may have no way to it."""
    while True:
        if lead():
            try:
                gives = await asyncio.to_thread(served.gives)
                for pool in served.pools:
                    await capacity_published.publish(client, pool, gives)
            except Exception as error:  # noqa: BLE001 (the edge of the loop; told, and tried again)
                _logger.warning("What the cluster can give was not told: %s", error)
        await asyncio.sleep(_PUBLISH_SECONDS if lead() else _LOOK_SECONDS)


async def _until_stopped() -> None:
    stopped = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stopped.set)
    await stopped.wait()


def _limits(configured: Cluster) -> Limits:
    """How long runs may wait, as the cluster's file says."""
    most = configured.queue_minutes
    return Limits(
        timedelta(minutes=configured.pending_minutes),
        None if most is None else timedelta(minutes=most),
    )


async def serve(served: _Served) -> None:
    """Serve the pools until a signal ends it."""
    place_of_it = f"{socket.gethostname()}:{os.getpid()}"
    lease = f"kubernetes:{served.api.namespace}:{'+'.join(sorted(served.pools))}"
    means = served.means
    async with contextlib.AsyncExitStack() as stack:
        lead = stack.enter_context(Lead(lease, f"{place_of_it}:{time.time():.0f}"))
        client = await stack.enter_async_context(get_client())
        reconciler = Reconciler(
            client,
            means.jobs,
            served.pools,
            means.attempts,
            limits=_limits(served.cluster),
            nodes=lambda: capacity.survey(served.api),
            lead=lead,
        )

        def well() -> bool:
            return time.monotonic() - reconciler.turned < _WELL_SECONDS

        await stack.enter_async_context(await _announce())
        if served.health_port:
            host = os.environ.get("MODELYARD_HEALTH_HOST") or "127.0.0.1"
            await stack.enter_async_context(await health.serve(host, served.health_port, well))
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(KubernetesWorker(pool, means=means, name=f"{pool}@{place_of_it}")
                                  .start())
                for pool in served.pools
            ]  # fmt: skip
            tasks.append(group.create_task(reconciler.run()))
            tasks.append(group.create_task(_tidy_for_ever(reconciler, lead)))
            tasks.append(group.create_task(_publish_for_ever(client, served, lead)))
            await _until_stopped()
            for task in tasks:
                task.cancel()


async def _announce() -> asyncio.Server:
    """A socket that accepts while this process lives: what a supervisor asks for its health."""
    home = homes.current()
    home.make()
    path = home.sockets / "kubernetes-worker.sock"
    path.unlink(missing_ok=True)
    return await asyncio.start_unix_server(lambda _reader, writer: writer.close(), path)


def main(pools: Sequence[str]) -> int:
    """Serve the pools; the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        served = _prepare(pools)
    except ModelyardError as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        return 1
    asyncio.Runner().run(serve(served))
    return 0


if __name__ == "__main__":
    ended = main(sys.argv[1:])
    logging.shutdown()
    sys.stdout.flush()
    # A thread may still wait for a server that does not answer, for minutes.
    os._exit(ended)
