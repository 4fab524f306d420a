"""Runs on a small Kubernetes: the real worker, real pods, a real Prefect."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import FlowRun

from infra.home import Home
from infra.kubernetes import names
from registry.runs import run_attempts, run_requests
from tests import prefect_server
from tests.cluster.cluster import Cluster
from tests.cluster.images import Image, Images
from tests.cluster.nodes import Nodes
from tests.cluster.rights import ADMIN
from tests.cluster.small import QUICK, needs_root
from tests.cluster.troubles import Troubles
from tests.modelyard import pod_flows
from tests.modelyard.test_kubernetes_worker import ROOT, Process
from tests.processes import eventually

pytestmark = [pytest.mark.soak, needs_root, pytest.mark.usefixtures("database", "prefect_api")]

PATIENCE = 180.0


class World:
    """The cluster, and a worker process that serves one pool for each flow."""

    def __init__(self, cluster: Cluster, process: Process, pools: dict[str, Any]) -> None:
        self.cluster = cluster
        self.process = process
        self.pools = pools

    def run(self, flow: str) -> FlowRun:
        return self.pools[flow].run()

    def becomes(self, run: FlowRun, kind: str) -> tuple[str, str]:
        """Name and message of a state, once the run has one of the type."""
        what = f"it is {kind}"
        eventually(lambda: prefect_server.state_of(run)[0] == kind, what, PATIENCE)
        return prefect_server.state_of(run)[1:]

    def pods(self, run: FlowRun) -> list[dict[str, Any]]:
        selector = f"{names.FLOW_RUN}={run.id}"
        return self.cluster.call(self.cluster.store.list, "Pod", "default", labels=selector)

    def trouble(self) -> Troubles:
        return Troubles(self.cluster.store, self.cluster.parts["nodes"])


@pytest.fixture
def world(tmp_path: Path, database_home: Home, prefect_api: str) -> Iterator[World]:
    held = (sys.prefix, sys.base_prefix, str(ROOT), str(database_home.sockets))
    image = Image(
        env={"PATH": f"{sys.prefix}/bin:/usr/bin:/bin", "PYTHONPATH": str(ROOT)}, holds=held
    )
    pools = {
        flow: prefect_server.Pool.made(f"tests.modelyard.pod_flows.{flow}", flow)
        for flow in ("quick", "slow")
    }
    env = {
        "PREFECT_API_URL": prefect_api,
        "MODELYARD_DATABASE_URL": os.environ["MODELYARD_DATABASE_URL"],
        pod_flows.FOLDER: "/tmp",
    }

    def nodes(store: Any, folder: Path) -> Nodes:
        return Nodes(store, folder, Images({"flows:1": image}), timing=QUICK)

    with Cluster(tmp_path / "cluster", nodes=nodes) as cluster:
        kubeconfig = cluster.kubeconfig(ADMIN)
        served = [pool.name for pool in pools.values()]
        process = Process(tmp_path, kubeconfig, *served, env=env, grace_seconds=10)
        try:
            yield World(cluster, process, pools)
        finally:
            process.process.kill()
            print(process.process.communicate()[0])


def test_a_run_ends_as_it_would_elsewhere_and_leaves_nothing_going(world: World) -> None:
    run = world.run("quick")

    world.becomes(run, "COMPLETED")
    eventually(
        lambda: all(pod["status"]["phase"] == "Succeeded" for pod in world.pods(run)),
        "its pod has ended",
    )


def test_stopped_it_is_stopped_when_its_pod_is_gone(world: World) -> None:
    run = world.run("slow")
    world.becomes(run, "RUNNING")

    run_requests.request_stop(str(run.id))

    assert world.becomes(run, "CANCELLED") == ("Cancelled", "Stopped.")
    assert world.pods(run) == []


def test_it_is_told_what_it_died_of(world: World) -> None:
    killed, evicted, deleted = (world.run("slow") for _ in range(3))
    for run in (killed, evicted, deleted):
        world.becomes(run, "RUNNING")
    names_of = {str(run.id): world.pods(run)[0]["metadata"]["name"]
                for run in (killed, evicted, deleted)}  # fmt: skip

    trouble = world.trouble()
    world.cluster.call(trouble.out_of_memory, "default", names_of[str(killed.id)])
    world.cluster.call(trouble.evict, "default", names_of[str(evicted.id)])
    job = names.job_name(str(deleted.id), 1)
    world.cluster.call(world.cluster.store.delete, "Job", "default", job)

    assert world.becomes(killed, "CRASHED")[0] == "OOMKilled"
    name, message = world.becomes(evicted, "CRASHED")
    assert name == "Evicted"
    assert "low on resource" in message
    name, message = world.becomes(deleted, "CRASHED")
    assert name == "Gone"
    assert f"modelyard runs retry {deleted.id}" in message


def test_an_image_that_is_not_there_is_waited_for_with_the_reason(world: World) -> None:
    world.cluster.call(world.trouble().break_image, "flows:1", "not found")
    run = world.run("quick")

    def told() -> bool:
        newest = run_attempts.newest([str(run.id)]).get(str(run.id))
        return newest is not None and newest.waiting.startswith("ImagePull: The image")

    eventually(told, "it is told", PATIENCE)
    run_requests.request_stop(str(run.id))

    assert world.becomes(run, "CANCELLED") == ("Cancelled", "Stopped.")
    assert world.pods(run) == []
