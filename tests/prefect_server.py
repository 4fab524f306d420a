"""A real Prefect server on loopback, with a flow whose runs go to a pool of the cluster's type."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.states import Scheduled

from infra import state_details
from infra.home import Home
from infra.kubernetes.worker import TYPE, KubernetesWorker
from infra.stack import parts
from tests.processes import eventually


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """The address of a server with a database of its own."""
    listener = parts.bind(0)
    port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    command = parts._served(
        "prefect", listener, "prefect.server.api.server:create_app", "--factory"
    )
    with tempfile.TemporaryDirectory(prefix="modelyard-prefect-") as folder:
        env = {
            **os.environ,
            "PREFECT_HOME": folder,
            "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{folder}/prefect.db",
            "PREFECT_SERVER_API_HOST": "127.0.0.1",
            "PREFECT_SERVER_API_PORT": str(port),
            "PREFECT_UI_ENABLED": "false",
            "PREFECT_UI_URL": f"http://127.0.0.1:{port}",
            "MODELYARD_DOOR": "false",
            "DO_NOT_TRACK": "true",
        }
        log = Path(folder) / "log"
        with log.open("wb") as written:
            server = subprocess.Popen(
                command, env=env, stdout=written, stderr=written, cwd=folder,
                pass_fds=[listener.fileno()],
            )  # fmt: skip
        listener.close()
        try:
            eventually(
                lambda: parts.answers(Home(Path(folder)), f"{url}/ready"),
                "Prefect answers",
                patience=120,
            )
            yield url
        finally:
            server.kill()
            server.wait(30)


@dataclass
class Pool:
    """A pool of its own, with a deployment of a flow.

    Attributes:
        name: What it is called.
        flow: The flow's name.
    """

    name: str
    flow: str
    deployment: uuid.UUID

    @classmethod
    def made(cls, entrypoint: str, flow: str = "train") -> Pool:
        name = f"pool-{uuid.uuid4().hex[:8]}"
        template = KubernetesWorker.get_default_base_job_template()
        with get_client(sync_client=True) as client:
            client.create_work_pool(
                WorkPoolCreate(name=name, type=TYPE, base_job_template=template)
            )
            flow_id = client.create_flow_from_name(flow)
            made = client.create_deployment(
                flow_id, name, work_pool_name=name, entrypoint=entrypoint, pull_steps=[]
            )
        return cls(name, flow, made)

    def run(self, state: State[Any] | None = None, **labels: str) -> FlowRun:
        """A run of the flow; waiting for a worker unless another state is given."""
        with get_client(sync_client=True) as client:
            made = client.create_flow_run_from_deployment(
                self.deployment, state=state or Scheduled(), labels=dict(labels)
            )
        return read(made)


def read(run: FlowRun) -> FlowRun:
    """The run as it is now."""
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run.id)


def state_of(run: FlowRun) -> tuple[str, str, str]:
    """Type, detail (or else name) and message of the run's state, whose name is Prefect's own."""
    state = read(run).state
    assert state is not None
    assert state.name in state_details.PREFECT_NAMES
    detail = state_details.detail_of(state.name, state.message)
    return state.type.value, detail or state.name, state_details.text_of(state.message)


def states(run: FlowRun) -> list[StateType]:
    """The types of all states that the run had, in their order."""
    with get_client(sync_client=True) as client:
        return [one.type for one in client.read_flow_run_states(run.id)]


def set_state(run: FlowRun, state: State[Any]) -> None:
    """Set the run's state, whatever it is."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, state, force=True)


def log_of(run: FlowRun) -> list[str]:
    """The run's log."""
    with get_client(sync_client=True) as client:
        return [one.message for one in _logs(client, run)]


def _logs(client: SyncPrefectClient, run: FlowRun) -> list[Any]:
    return client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id])), 200, 0)
