from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import kubernetes.client
import kubernetes.config
import pytest
import urllib3.exceptions
from kubernetes.client import ApiException

from tests.cluster import objects
from tests.cluster.cluster import Cluster
from tests.cluster.conftest import Clients

pytestmark = pytest.mark.soak


def _trouble(cluster: Cluster, what: str, method: str = "POST", /, **wanted: Any) -> Any:
    request = urllib.request.Request(
        f"{cluster.url}/_cluster/{what}", json.dumps(wanted).encode(), method=method
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


@pytest.mark.parametrize("code", [429, 500, 503])
def test_it_answers_so_for_so_many_requests(cluster: Cluster, clients: Clients, code: int) -> None:
    _trouble(cluster, "faults", kind="answer", code=code, times=2, retry_after=7)
    for _ in range(2):
        with pytest.raises(ApiException) as refused:
            clients.core.list_namespaced_pod("default")
        assert refused.value.status == code
        assert json.loads(refused.value.body)["code"] == code
        assert refused.value.headers.get("Retry-After") == ("7" if code == 429 else None)
    assert clients.core.list_namespaced_pod("default").items == []


def test_only_the_requests_that_are_meant(cluster: Cluster, clients: Clients) -> None:
    _trouble(cluster, "faults", kind="answer", method="POST", path="/jobs$")
    clients.core.create_namespaced_pod("default", objects.pod())
    with pytest.raises(ApiException, match="500"):
        clients.batch.create_namespaced_job("default", objects.job())
    clients.batch.create_namespaced_job("default", objects.job())


def test_a_connection_ends_before_the_request_is_done(cluster: Cluster, clients: Clients) -> None:
    _trouble(cluster, "faults", kind="close", method="POST", path="/pods$")
    with pytest.raises((urllib3.exceptions.HTTPError, http.client.HTTPException)):
        clients.core.create_namespaced_pod("default", objects.pod())
    assert clients.core.list_namespaced_pod("default").items == []


def test_a_connection_ends_after_the_request_is_done(cluster: Cluster, clients: Clients) -> None:
    _trouble(cluster, "faults", kind="drop", method="POST", path="/pods$")
    with pytest.raises((urllib3.exceptions.HTTPError, http.client.HTTPException)):
        clients.core.create_namespaced_pod("default", objects.pod())
    assert [one.metadata.name for one in clients.core.list_namespaced_pod("default").items] == [
        "p"
    ]


def test_a_client_gives_up_on_a_server_that_hangs(cluster: Cluster, clients: Clients) -> None:
    _trouble(cluster, "faults", kind="hang")
    with pytest.raises(urllib3.exceptions.HTTPError):
        clients.core.list_namespaced_pod("default", _request_timeout=(1, 1))
    assert clients.core.list_namespaced_pod("default").items == []


def test_a_slow_server_answers_in_the_end(cluster: Cluster, clients: Clients) -> None:
    _trouble(cluster, "faults", kind="slow", delay=1.5, times=2)
    with pytest.raises(urllib3.exceptions.HTTPError):
        clients.core.list_namespaced_pod("default", _request_timeout=(1, 1))
    assert clients.core.list_namespaced_pod("default", _request_timeout=(1, 30)).items == []


def test_faults_are_taken_away(cluster: Cluster, clients: Clients) -> None:
    _trouble(cluster, "faults", kind="answer", code=503, seconds=600)
    with pytest.raises(ApiException):
        clients.core.list_namespaced_pod("default")
    assert _trouble(cluster, "faults", "DELETE") == {"met": 1}
    assert clients.core.list_namespaced_pod("default").items == []


def test_it_counts_what_it_is_asked(cluster: Cluster, clients: Clients) -> None:
    for name in ("a", "b"):
        clients.core.create_namespaced_pod("default", objects.pod(name))
    clients.core.list_namespaced_pod("default")
    assert _trouble(cluster, "asked", "GET") == {"create pods": 2, "list pods": 1}


def test_a_fault_that_is_none_is_refused(cluster: Cluster) -> None:
    for wrong in ({"kind": "flood"}, {"kind": "answer", "color": "red"}):
        with pytest.raises(urllib.error.HTTPError) as refused:
            _trouble(cluster, "faults", **wrong)
        assert refused.value.code == 400


def test_a_server_that_is_away_comes_back_as_it_was(cluster: Cluster, clients: Clients) -> None:
    clients.core.create_namespaced_pod("default", objects.pod())
    _trouble(cluster, "outage", seconds=600)
    with pytest.raises((urllib3.exceptions.HTTPError, ConnectionError)):
        clients.core.list_namespaced_pod("default")
    cluster.do(cluster.server.back())
    assert [one.metadata.name for one in clients.core.list_namespaced_pod("default").items] == [
        "p"
    ]


def _process(folder: Path, *more: str) -> tuple[subprocess.Popen[str], Path]:
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cluster", "--folder", str(folder), *more],
        cwd=root, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert process.stdout is not None
    return process, Path(process.stdout.readline().split()[0])


def test_it_is_a_process_of_its_own_too(tmp_path: Path) -> None:
    process, path = _process(tmp_path)
    try:
        api = kubernetes.config.new_client_from_config(str(path))
        spaces = kubernetes.client.CoreV1Api(api).list_namespace().items
        assert {one.metadata.name for one in spaces} >= {"default", "kube-system"}
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_the_process_ends_by_itself(tmp_path: Path) -> None:
    process, _ = _process(tmp_path, "--seconds", "0.1")
    assert process.wait(60) == 0
