"""An API server that answers as the test says, and a client of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.kubernetes.api import Api
from infra.kubernetes.cluster import ClusterConfig
from infra.kubernetes.transport import RetryPolicy
from tests.infra.kubernetes.scripted import QUICK, Answer, ScriptedServer, kubeconfig


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(Answer(body={})) as made:
        yield made


@pytest.fixture
def connect(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Api]:
    file = kubeconfig(tmp_path / "config", server.url)
    monkeypatch.setenv("KUBECONFIG", str(file))

    def made(patience: RetryPolicy = QUICK, **cluster: Any) -> Api:
        return Api.connect(ClusterConfig(**cluster), patience=patience)

    return made


@pytest.fixture
def api(connect: Callable[..., Api]) -> Api:
    return connect()
