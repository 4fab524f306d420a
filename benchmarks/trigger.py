"""From the request for a run to its script's first line, on a local process pool.

The same client asks on both sides, the clock is read just before it does, and the script reads
the same clock in its first line. The requests are spread evenly over the worker's polling
interval, so that polling costs what it costs people.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType

from benchmarks import house, peers
from benchmarks.machine import Calm
from benchmarks.results import Comparison
from infra.door import credential

REPETITIONS = 8
_GOAL = 0.25
_RUN_SECONDS = 120.0
_OUR_POLL_SECONDS = 0.5
_PEER_POLL_SECONDS = 10.0
_POOL = "process"
_STEPS = ("the request is answered", "a worker takes it", "the flow runs", "the script runs")


def _wait_for_end(client: SyncPrefectClient, run: UUID) -> None:
    deadline = time.monotonic() + _RUN_SECONDS
    while time.monotonic() < deadline:
        state = client.read_flow_run(run).state
        if state is not None and state.is_final():
            if not state.is_completed():
                raise RuntimeError(f"The run {run} ended {state.name}: {state.message}")
            return
        time.sleep(0.2)
    raise RuntimeError(f"The run {run} does not end.")


def _fire(
    client: SyncPrefectClient, deployment: UUID, parameters: dict[str, Any], out: Path
) -> dict[str, float]:
    """Run ``deployment`` once; seconds from the request to each step."""
    asked = time.time()
    run = client.create_flow_run_from_deployment(deployment, parameters=parameters)
    answered = time.time()
    _wait_for_end(client, run.id)
    states = {
        state.type: state.timestamp.timestamp() for state in client.read_flow_run_states(run.id)
    }
    moments = (
        answered,
        states[StateType.PENDING],
        states[StateType.RUNNING],
        float(out.read_text()),
    )
    return {step: moment - asked for step, moment in zip(_STEPS, moments, strict=True)}


def _series(
    client: SyncPrefectClient,
    deployment: UUID,
    parameters: dict[str, Any],
    out: Path,
    poll: float,
    repetitions: int,
    calm: Calm,
) -> dict[str, list[float]]:
    _fire(client, deployment, parameters, out)  # the first one warms up and does not count
    fired = []
    for number in range(repetitions):
        calm.wait()
        time.sleep((number + 0.5) / repetitions * poll)
        fired.append(_fire(client, deployment, parameters, out))
    return {step: [one[step] for one in fired] for step in _STEPS}


def _ours(repetitions: int, calm: Calm) -> dict[str, list[float]]:
    with house.temporary() as ours:
        ours.up()
        out = ours.root / "out"
        said = ours.client_environment()
        with SyncPrefectClient(
            said["PREFECT_API_URL"], auth_string=said[credential.PREFECT]
        ) as client:
            deployment = client.read_deployment_by_name("train/train").id
            parameters = ours.training(out)
            return _series(
                client, deployment, parameters, out, _OUR_POLL_SECONDS, repetitions, calm
            )


def _peer(repetitions: int, calm: Calm) -> dict[str, list[float]]:
    with peers.temporary_home() as root, peers.prefect_server(root) as server:
        out = root / "out"
        script = root / "train.py"
        script.write_text(house.SCRIPT)
        with SyncPrefectClient(f"{server.url}/api") as client:
            client.create_work_pool(WorkPoolCreate(name=_POOL, type="process"))
            deployment = client.create_deployment(
                flow_id=client.create_flow_from_name("stamp"),
                name="stamp",
                entrypoint="benchmarks.stamp_flow.stamp",
                pull_steps=[],
                work_pool_name=_POOL,
            )
            with peers.prefect_worker(root, server, _POOL):
                parameters = {"script": str(script), "out": str(out)}
                return _series(
                    client, deployment, parameters, out, _PEER_POLL_SECONDS, repetitions, calm
                )


def measure(repetitions: int, calm: Calm) -> list[Comparison]:
    """Trigger ``repetitions`` runs on either side, one after another."""
    ours, peer = _ours(repetitions, calm), _peer(repetitions, calm)
    last = _STEPS[-1]
    name = "Prefect's process worker"
    limit = _GOAL * statistics.median(peer[last])
    found = [Comparison(f"request until {last}", "s", ours[last], peer[last], name,
                        f"{_GOAL:g} x the peer", limit)]  # fmt: skip
    return found + [
        Comparison(f"request until {step}", "s", ours[step], peer[step], name)
        for step in _STEPS[:-1]
    ]
