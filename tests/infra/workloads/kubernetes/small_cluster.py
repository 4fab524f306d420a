from __future__ import annotations

import base64
import json
import os
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.kubernetes.api import Api
from infra.kubernetes.cluster import ClusterConfig, NasVolume
from infra.kubernetes.transport import RetryPolicy
from infra.workloads.kubernetes.backend import KubernetesBackend, RunAttempt
from infra.workloads.kubernetes.job_manifest import ANY_NODE, InstanceSpec
from tests.cluster.cluster import Cluster
from tests.cluster.images import Image, Images
from tests.cluster.nodes import Nodes, NodeShape
from tests.cluster.small import QUICK

_REPOSITORY = Path(__file__).parents[4]
_PATH = "/usr/local/bin:/usr/bin:/bin"
_IMAGE = Image(env={"PATH": _PATH}, user=0, honour_user=True)
_OURS = Image(
    env={"PATH": f"{Path(sys.executable).parent}:{_PATH}", "PYTHONPATH": str(_REPOSITORY)},
    holds=(str(_REPOSITORY), sys.prefix),
)
CONFIGURATION = ClusterConfig(
    image="modelyard:1",
    nas={"own": NasVolume(server="nas.test", path="/export")},
    grace_seconds=1,
    pending_minutes=0.05,
)


@dataclass
class Running:
    """A cluster that runs, with a folder that pods find on a NAS.

    Attributes:
        cluster: It.
        nodes: Its nodes.
        nas: The folder.
        kubeconfig: Of somebody who may do everything.
    """

    cluster: Cluster
    nodes: Nodes
    nas: Path
    kubeconfig: Path

    def objects(self, kind: str) -> list[str]:
        """The names of all objects of a kind."""
        found = self.cluster.call(self.cluster.store.list, kind, "default")
        return [one["metadata"]["name"] for one in found]

    def make(self, kind: str, name: str, **parts: Any) -> None:
        """Make an object."""
        self.cluster.call(self.cluster.store.create, kind, {"metadata": {"name": name}, **parts})

    def label_namespace(self, **labels: str | None) -> None:
        """Label the namespace of the pods; a label that is None is taken away."""
        changes = {"metadata": {"labels": labels}}
        self.cluster.call(self.cluster.store.patch, "Namespace", None, "default", changes)

    def backend(
        self, attempt: int = 1, run: str = "", instances: InstanceSpec = ANY_NODE, **changes: Any
    ) -> KubernetesBackend:
        """A backend of a run of its own, unless one is named."""
        configuration = CONFIGURATION.model_copy(update=changes)
        return KubernetesBackend(
            Api.connect(configuration, patience=RetryPolicy(attempts=1)), configuration, "nas://own:/staging",
            RunAttempt(run or str(uuid.uuid4()), attempt), instances=instances,
            poll_seconds=0.1, outage_seconds=20,
        )  # fmt: skip


def encoded(**texts: str) -> dict[str, str]:
    """The data of a Secret."""
    return {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}


@pytest.fixture(scope="module")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    if os.geteuid() != 0:
        pytest.skip("containers need mounts, and root")
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "nas").mkdir()
    made: list[Nodes] = []

    def nodes(store: Any, place: Path) -> Nodes:
        images = Images({"alpine:3": _IMAGE, "python:3.11": _IMAGE, "modelyard:1": _OURS})
        shares = {"nas.test:/export": folder / "nas"}
        shapes = [NodeShape("node-a"), NodeShape("node-b", devices={"nvidia.com/gpu": 2})]
        made.append(Nodes(store, place, images, shapes, shares=shares, timing=QUICK))
        return made[0]

    with Cluster(folder / "files", nodes=nodes) as cluster:
        path = next((folder / "files").glob("kubeconfig-*"))
        found = Running(cluster, made[0], folder / "nas", path)
        found.make("StorageClass", "fast", provisioner="csi.test")
        data = encoded(**{"token": "hidden-token", "two.lines": "hidden\nlines"})
        found.make("Secret", "known", data=data)
        found.make("ConfigMap", "known", data={"word": "said"}, binaryData={"bytes": "/w=="})
        yield found


@pytest.fixture
def running(_running: Running, monkeypatch: pytest.MonkeyPatch) -> Running:
    monkeypatch.setenv("KUBECONFIG", str(_running.kubeconfig))
    monkeypatch.setenv("MODELYARD_NAS", json.dumps({"own": str(_running.nas)}))
    return _running
