from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from infra.kubernetes import pool_template
from infra.work_pools import PoolStatus
from modelyard.commands import doctor
from tests.infra.kubernetes.scripted import Answer, Asked, ScriptedServer, kubeconfig, status
from tests.modelyard.test_main import Do, do

__all__ = ["do"]


@pytest.mark.parametrize(
    ("seen", "result", "remedy"),
    [
        (PoolStatus("gpu", pool_template.TYPE, workers=1), "ok", ""),
        (PoolStatus("gpu"), "failed", "modelyard deploy --pools kubernetes"),
        (PoolStatus("gpu", "process", workers=1), "failed", "modelyard deploy --pools kubernetes"),
        (PoolStatus("gpu", pool_template.TYPE, workers=1, paused=True), "warning", "resume gpu"),
        (PoolStatus("gpu", pool_template.TYPE), "failed", "modelyard.kubernetes_worker gpu"),
    ],
)
def test_a_pool(seen: PoolStatus, result: str, remedy: str) -> None:
    found = doctor.pool(seen)

    assert found.result == result
    assert remedy in found.remedy


def test_no_kubeconfig(do: Do, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))

    done = do("doctor", "--json")

    assert done.code == 1
    assert done.value[0]["name"] == "access"
    assert done.value[0]["result"] == "failed"
    assert str(tmp_path / "none") in done.value[0]["message"]


def test_a_cluster_file_that_is_no_good(
    do: Do, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("namespce: x")
    monkeypatch.setenv("MODELYARD_CLUSTER", str(file))

    done = do("doctor", "--json")

    assert done.code == 1
    assert done.value["error"]["code"] == "ClusterInvalid"


def _small(asked: Asked) -> Answer:
    amounts = {"cpu": "8", "memory": "32Gi", "ephemeral-storage": "100Gi"}
    ready = {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": amounts}
    objects = {
        "/version": {"gitVersion": "v1.36.0"},
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews": {"status": {"allowed": True}},
        "/api/v1/namespaces/runs": {"metadata": {"name": "runs"}},
        "/api/v1/nodes": {"items": [{"metadata": {"name": "only"}, "status": ready}]},
    }
    if asked.path in objects:
        return Answer(body=objects[asked.path])
    if asked.path.endswith(("classes", "quotas", "ranges")):
        return Answer(body={"items": []})
    return status(404, "NotFound", f'"{asked.path}" not found')


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("env: {PREFECT_API_URL: a, MLFLOW_TRACKING_URI: b, MODELYARD_DATABASE_URL: c}")
    monkeypatch.setenv("MODELYARD_CLUSTER", str(file))


def test_a_small_cluster_and_no_prefect(
    do: Do, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, small: None
) -> None:
    with ScriptedServer(_small) as server:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", server.url)))
        done = do("doctor")
        told = {one["name"]: one for one in do("doctor", "--json").value}

    assert done.code == 0
    assert "Kubernetes v1.36.0." in done.out
    assert "No node has a GPU." in done.out
    assert told["variables"]["result"] == "ok"
    assert told["pools"]["result"] == "warning"
    assert "PREFECT_API_URL" in told["pools"]["remedy"]


def test_a_prefect_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, small: None
) -> None:
    with ScriptedServer(Answer()) as gone:
        nowhere = gone.url
    monkeypatch.setenv("PREFECT_API_URL", f"{nowhere}/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", nowhere)
    monkeypatch.setenv("MODELYARD_DATABASE_URL", "postgresql://127.0.0.1:1/x")
    monkeypatch.setenv("PREFECT_CLIENT_MAX_RETRIES", "0")
    with ScriptedServer(_small) as server:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", server.url)))
        # A process of its own: Prefect reads its variables once.
        command = [sys.executable, "-m", "modelyard.main", "doctor", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    told = {one["name"]: one for one in json.loads(done.stdout)}

    assert told["pools"]["result"] == "warning"
    assert "Not looked at" in told["pools"]["message"]
