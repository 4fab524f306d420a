"""What Prefect's bookkeeping costs per task: on our PostgreSQL, and on its default SQLite.

Client, flow and task are the same; only the server that they report to differs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks import house, peers
from benchmarks.machine import Calm
from benchmarks.results import Comparison

REPETITIONS = 3
TASKS = 100
_SECONDS = 300.0
_KINDS = {"sequential": "sequential", "parallel": "all at once"}
_UNTIL = {"flow": "the flow continues", "record": "on record"}


def _run(server: Mapping[str, str], home: Path, calm: Calm) -> dict[str, dict[str, float]]:
    calm.wait()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.noop_tasks", str(TASKS)],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        cwd=home,
        env={
            **peers.environment(home),
            **server,
        },
    )
    if done.returncode != 0:
        raise RuntimeError(f"The flow of tasks failed: {done.stderr[-2000:]}")
    timed: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return timed


def _ours(repetitions: int, calm: Calm) -> list[dict[str, dict[str, float]]]:
    with house.temporary() as ours, peers.temporary_home() as client:
        ours.up()
        return [_run(ours.client_environment(), client, calm) for _ in range(repetitions)]


def _peer(repetitions: int, calm: Calm) -> list[dict[str, dict[str, float]]]:
    with peers.temporary_home() as root, peers.prefect_server(root) as server:
        return [
            _run({"PREFECT_API_URL": f"{server.url}/api"}, root, calm) for _ in range(repetitions)
        ]


def measure(repetitions: int, calm: Calm) -> list[Comparison]:
    """Run both flows ``repetitions`` times on either side."""
    ours, peer = _ours(repetitions, calm), _peer(repetitions, calm)
    return [
        Comparison(
            f"each of {TASKS} no-op tasks, {words}, until {moment}",
            "ms",
            [one[kind][until] for one in ours],
            [one[kind][until] for one in peer],
            "prefect server start (SQLite)",
        )
        for kind, words in _KINDS.items()
        for until, moment in _UNTIL.items()
    ]
