"""The worker process of a cluster's pools: ``python -m modelyard.kubernetes_worker POOL...``.

It has the pools' workers, and the controllers that follow their runs. Several such processes may
serve the same pools: the controllers of one of them lead. When it ends, Jobs stay, and the next
leader follows them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound

from infra import connection, instance_types, service, settings
from infra import home as homes
from infra.controllers import Controller, LeaderElection, Leadership, PeriodicTask
from infra.errors import BadInputError, ModelyardError, StackError
from infra.instance_types import DEFAULT
from infra.kubernetes import capacity, capacity_published, cluster, health, names
from infra.kubernetes.api import Api
from infra.kubernetes.api_errors import ClusterError
from infra.kubernetes.attempt_spec import Placement
from infra.kubernetes.cluster import ClusterConfig
from infra.kubernetes.jobs import Jobs
from infra.kubernetes.reconciler import ClusterRunReconciler, RunWaitLimits
from infra.kubernetes.watch import WatchSubscription
from infra.kubernetes.worker import KubernetesWorker, WorkerDependencies
from infra.prefect_client import prefect_client
from infra.prefect_events import RUNS, EventSubscription
from registry import leases, tracking
from registry.models import model_lineage
from registry.runs import run_attempts, run_tagging, runs
from tasks import placement

_LEASE_SECONDS = 20.0
_RENEW_SECONDS = 5.0
_RUNS_SECONDS = 3.0
# Events wake the controller of runs; this is for events that were lost.
_RESYNC_SECONDS = 30.0
_SETTLE_SECONDS = 1.0  # pods that start together change together
_TIDY_SECONDS = 30.0
_LINEAGE_SECONDS = 3600.0
_PUBLISH_SECONDS = 30.0
_HEALTHY_SECONDS = 180.0


def place(flow: str, run: FlowRun, there: capacity.Capacity) -> Placement:
    """The placement of a run on a cluster with this capacity.

    A run that may run without GPUs does so where the cluster has none of their kind.

    Raises:
        ModelyardError: If its parameters are wrong, or the cluster can never place it.
    """
    checked = bool((run.labels or {}).get(runs.CHECKED_LABEL))
    placed = placement.plan(flow, run.parameters, checked=checked)
    name = str((run.parameters.get("resources") or {}).get("instance_type") or DEFAULT)
    return placement.fit_to_capacity(placement.PlacementRequest(flow, placed, name), there)


def is_executed(reconciler: ClusterRunReconciler) -> Callable[[str], bool | None]:
    """A function for ``tracking.close_abandoned`` that says whether the cluster executes a run.

    It answers None for a run that was never started there, such as one called in a process.
    """

    def executed(flow_run_id: str) -> bool | None:
        active = reconciler.executes(flow_run_id)
        if active is not False:
            return active
        with prefect_client() as client, contextlib.suppress(ObjectNotFound):
            run = client.read_flow_run(UUID(flow_run_id))
            over = run.state is not None and run.state.is_final()
            return False if over and run_attempts.newest([flow_run_id]) else None
        return None

    return executed


@dataclass(frozen=True)
class _ServedPools:
    """The pools that this process serves, and their cluster."""

    pools: tuple[str, ...]
    cluster: ClusterConfig
    api: Api
    health_port: int = 0

    @property
    def dependencies(self) -> WorkerDependencies:
        """The dependencies of the pools' workers."""
        return WorkerDependencies(Jobs(self.api, self.cluster), self._place, run_attempts)

    def capacity(self) -> capacity.Capacity:
        """The cluster's capacity now."""
        return capacity.read(self.api, self.cluster, instance_types.load_all(settings.load()))

    def _place(self, flow: str, run: FlowRun) -> Placement:
        return place(flow, run, self.capacity())


def _prepare(pools: Sequence[str]) -> _ServedPools:
    """Read the configuration.

    Raises:
        ModelyardError: If something is missing or wrong.
    """
    if not pools:
        raise BadInputError(
            "No work pool is named.",
            "Name the pools to serve: python -m modelyard.kubernetes_worker gpu cpu.",
            code="PoolMissing",
        )
    if connection.from_environment() is None:
        raise StackError(
            "The addresses of Prefect, MLflow and the catalogue are not set.",
            "Set PREFECT_API_URL, MLFLOW_TRACKING_URI and MODELYARD_DATABASE_URL.",
        )
    configured = cluster.load(settings.load())
    return _ServedPools(tuple(pools), configured, Api.connect(configured), _health_port())


def _health_port() -> int:
    """The port of the health endpoint; 0 for none.

    Raises:
        BadInputError: If it is not a port.
    """
    port = os.environ.get("MODELYARD_HEALTH_PORT") or "0"
    if not port.isdecimal() or int(port) > 65535:
        raise BadInputError(
            f"MODELYARD_HEALTH_PORT is not a port: {port!r}.",
            "Give a number below 65536, or none.",
            code="PortInvalid",
        )
    return int(port)


def _limits(configured: ClusterConfig) -> RunWaitLimits:
    """How long runs may wait, as the cluster's file says."""
    most = configured.queue_minutes
    return RunWaitLimits(
        timedelta(minutes=configured.pending_minutes),
        None if most is None else timedelta(minutes=most),
    )


def _controllers(
    served: _ServedPools, client: PrefectClient, leadership: Leadership
) -> list[Controller[Any, Any]]:
    """The controllers of the pools' runs; the first one reconciles them."""
    reconciler = ClusterRunReconciler(
        client,
        served.dependencies.jobs,
        served.pools,
        run_attempts,
        limits=_limits(served.cluster),
        nodes=lambda: capacity.list_nodes(served.api),
        leadership=leadership,
        active_seconds=_RUNS_SECONDS,
    )
    watches = [WatchSubscription(served.api, kind, names.OURS) for kind in ("Job", "Pod")]
    executed = is_executed(reconciler)

    async def close_abandoned() -> None:
        """End runs in MLflow whose pods are gone."""
        await asyncio.to_thread(tracking.close_abandoned, executed)

    async def report_gone() -> None:
        """Report models whose runs are gone."""
        await asyncio.to_thread(model_lineage.report_gone)

    async def publish_capacity() -> None:
        """Publish the capacity for submitters, who may have no access to the cluster."""
        found = await asyncio.to_thread(served.capacity)
        for pool in served.pools:
            await capacity_published.publish(client, pool, found)

    def periodic(name: str, task: Callable[[], Any], seconds: float) -> Controller[None, None]:
        return Controller(
            name, PeriodicTask(task), resync_seconds=seconds, retry_seconds=seconds,
            leadership=leadership, outages=(ClusterError,),
        )  # fmt: skip

    return [
        Controller(
            "runs", reconciler, resync_seconds=_RESYNC_SECONDS, poll_seconds=_RUNS_SECONDS,
            settle_seconds=_SETTLE_SECONDS, retry_seconds=_RUNS_SECONDS, leadership=leadership,
            subscriptions=[EventSubscription(RUNS), *watches],
        ),
        periodic("abandoned runs", close_abandoned, _TIDY_SECONDS),
        periodic("lineage", report_gone, _LINEAGE_SECONDS),
        periodic("capacity", publish_capacity, _PUBLISH_SECONDS),
    ]  # fmt: skip


async def serve(served: _ServedPools) -> None:
    """Serve the pools until a signal ends it."""
    name = service.unique_name()
    lease = f"kubernetes:{served.api.namespace}:{'+'.join(sorted(served.pools))}"
    election = LeaderElection(
        leases,
        lease,
        name,
        seconds=_LEASE_SECONDS,
        renew_seconds=_RENEW_SECONDS,
        stalled_seconds=_HEALTHY_SECONDS,  # a look at a silent cluster takes long
    )
    workers = [
        KubernetesWorker(
            pool, dependencies=served.dependencies, name=f"{pool}@{name.rpartition(':')[0]}"
        )
        for pool in served.pools
    ]
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(get_client())
        controllers = _controllers(served, client, election)
        for one in controllers:
            election.on_elected(one.notify)
        home = homes.current()
        await stack.enter_async_context(service.liveness_socket(home, "kubernetes-worker.sock"))
        if served.health_port:
            host = os.environ.get("MODELYARD_HEALTH_HOST") or "127.0.0.1"
            await stack.enter_async_context(
                await health.serve(
                    host, served.health_port, lambda: controllers[0].is_healthy(_HEALTHY_SECONDS)
                )
            )
        stack.enter_context(election)
        await service.run_until_stopped(
            *(worker.start() for worker in workers), *(one.run() for one in controllers)
        )


def main(pools: Sequence[str]) -> int:
    """Serve the pools; the exit status."""
    service.configure_logging()
    try:
        served = _prepare(pools)
    except ModelyardError as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        return 1
    run_tagging.start()
    asyncio.Runner().run(serve(served))
    return 0


if __name__ == "__main__":
    service.exit_now(main(sys.argv[1:]))
