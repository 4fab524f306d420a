"""The process of a cluster's pools, against a real Prefect and a small Kubernetes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.states import Completed, Running

from infra.errors import BadInputError
from infra.instance_types import InstanceType
from infra.kubernetes import names
from infra.kubernetes.api_errors import ClusterError
from infra.kubernetes.attempt_spec import Placement
from infra.kubernetes.capacity import Capacity, NodeCapacity
from infra.stack import parts
from modelyard import kubernetes_worker
from registry import leases
from registry.runs import run_attempts
from tests import prefect_server
from tests.cluster.cluster import Cluster
from tests.cluster.rights import ADMIN
from tests.processes import eventually

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """An API server whose pods nobody runs."""
    with Cluster(tmp_path / "cluster") as made:
        yield made


class Process:
    """The process and where it listens."""

    def __init__(
        self, tmp_path: Path, kubeconfig: Path | None, *pools: str, **configured: Any
    ) -> None:
        configured = {"image": "flows:1", **configured}
        (tmp_path / "cluster.yaml").write_text(json.dumps(configured))
        listener = parts.bind(0)
        self.port = listener.getsockname()[1]
        listener.close()
        env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "MODELYARD_CLUSTER": str(tmp_path / "cluster.yaml"),
            "MODELYARD_HEALTH_PORT": str(self.port),
            "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
            "KUBECONFIG": str(kubeconfig or tmp_path / "none"),
        }
        command = [sys.executable, "-P", "-m", "modelyard.kubernetes_worker", *pools]
        self.process = subprocess.Popen(
            command, env=env, cwd=tmp_path, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def ended(self) -> tuple[int, str]:
        output, _ = self.process.communicate(timeout=60)
        return self.process.returncode, output

    def is_well(self) -> bool:
        try:
            url = f"http://127.0.0.1:{self.port}/healthz"
            with urllib.request.urlopen(url, timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def names_of_jobs(cluster: Cluster) -> list[str]:
    return [one["metadata"]["name"] for one in cluster.call(cluster.store.list, "Job", "default")]


@pytest.mark.usefixtures("database", "prefect_api")
def test_it_makes_jobs_follows_them_and_leaves_them(cluster: Cluster, tmp_path: Path) -> None:
    pool = prefect_server.Pool.made("flows.catalogue:nothing", "other")
    run, orphan = pool.run(), pool.run()
    run_attempts.begin(str(orphan.id), str(orphan.state_id))
    prefect_server.set_state(orphan, Running())
    made = Process(tmp_path, cluster.kubeconfig(ADMIN), pool.name, nodes_may_come=True)
    try:
        job = names.job_name(str(run.id), 1)
        eventually(lambda: names_of_jobs(cluster) == [job], "it is a Job", patience=45)
        eventually(
            lambda: run_attempts.newest([str(run.id)])[str(run.id)].waiting,
            "it is told what it waits for",
        )
        eventually(
            lambda: prefect_server.state_of(orphan)[:2] == ("CRASHED", "Gone"),
            "a run without a Job is ended",
        )
        assert made.is_well()

        made.process.send_signal(signal.SIGTERM)
        status, output = made.ended()
    finally:
        made.process.kill()
    assert status == 0, output
    assert names_of_jobs(cluster) == [job]
    assert leases.held(f"kubernetes:default:{pool.name}") is None


@pytest.mark.usefixtures("database", "prefect_api")
def test_without_a_kubeconfig_it_says_so(tmp_path: Path) -> None:
    status, output = Process(tmp_path, None, "gpu").ended()

    assert status == 1
    assert output.startswith("KubeconfigMissing: ")
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("pools", "words"), [([], "PoolMissing: No work pool"), (["gpu"], "Stack: The addresses of")]
)
def test_what_it_must_be_told(
    pools: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kubernetes_worker.main(pools) == 1
    assert capsys.readouterr().err.startswith(words)


@pytest.mark.parametrize("told", ["abc", "-1", "70000"])
def test_a_port_that_is_none(told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_HEALTH_PORT", told)
    with pytest.raises(BadInputError, match="MODELYARD_HEALTH_PORT") as raised:
        kubernetes_worker._health_port()

    assert raised.value.code == "PortInvalid"


class TestPlace:
    GPU = InstanceType(cpu=1, memory_gib=1, gpus=1)

    def run(self, allow_cpu: bool) -> Any:
        given = {"resources": {"instance_type": "gpu.t4", "allow_cpu": allow_cpu}}
        return SimpleNamespace(
            labels={"modelyard.checked": "true"},
            parameters={"algorithm_uri": "builtin:x", "entry_point": "x.py", **given},
        )

    def nodes(self) -> Capacity:
        room = {"cpu": 64.0, "memory": 2.0**40, "ephemeral-storage": 2.0**40}
        return Capacity(nodes=(NodeCapacity(allocatable=room),))

    @pytest.fixture(autouse=True)
    def _placed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def of(_: str, given: Any, *, checked: bool) -> Placement:
            assert checked
            return Placement(self.GPU, allow_cpu=given["resources"]["allow_cpu"])

        monkeypatch.setattr(kubernetes_worker.placement, "plan", of)

    def test_a_run_without_its_gpu_is_refused(self) -> None:
        with pytest.raises(ClusterError) as caught:
            kubernetes_worker.place("train", self.run(allow_cpu=False), self.nodes())
        assert caught.value.code == "NodesLackGpu"
        assert "gpu.t4" in caught.value.message

    def test_or_does_without_where_it_may(self) -> None:
        found = kubernetes_worker.place("train", self.run(allow_cpu=True), self.nodes())

        assert found.shape.gpus == 0


class TestIsExecuted:
    @pytest.mark.usefixtures("database", "prefect_api")
    def test_only_what_was_started_here_and_is_over(self) -> None:
        pool = prefect_server.Pool.made("flows.catalogue:nothing", "other")
        ours, elsewhere, goes_on = (pool.run() for _ in range(3))
        run_attempts.begin(str(ours.id), str(ours.state_id))
        for run in (ours, elsewhere):
            prefect_server.set_state(run, Completed())

        def executed(run: FlowRun, going: bool | None) -> bool | None:
            loop = SimpleNamespace(executes=lambda _: going)
            return kubernetes_worker.is_executed(loop)(str(run.id))  # type: ignore[arg-type]

        assert executed(ours, False) is False
        assert executed(ours, True) is True
        assert executed(ours, None) is None
        assert executed(elsewhere, False) is None
        assert executed(goes_on, False) is None
