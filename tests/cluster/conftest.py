from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes.client
import kubernetes.config
import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.rights import ADMIN, User


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path / "cluster") as made:
        yield made


class Clients:
    """The clients of one user."""

    def __init__(self, cluster: Cluster, user: User = ADMIN) -> None:
        path = cluster.kubeconfig(user)
        settings = kubernetes.client.Configuration()
        settings.retries = False
        kubernetes.config.load_kube_config(str(path), client_configuration=settings)
        self.api = kubernetes.client.ApiClient(settings)
        self.core = kubernetes.client.CoreV1Api(self.api)
        self.batch = kubernetes.client.BatchV1Api(self.api)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Any request, and its answer as it came."""
        return self.api.call_api(
            path, method, body=body, header_params={"Accept": "application/json", **headers},
            auth_settings=["BearerToken"], response_type="object", _return_http_data_only=True,
        )  # fmt: skip


@pytest.fixture
def clients(cluster: Cluster) -> Clients:
    return Clients(cluster)


@pytest.fixture
def as_user(cluster: Cluster) -> Any:
    return lambda user: Clients(cluster, user)
