"""Start-up: from the command to a stack that has completed a run, against servers by hand.

Everything is warm but the processes: the packages are installed and have been imported before.
A *fresh* home has no database yet; a *known* one has been started and ended once.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks import house, peers
from benchmarks.machine import Calm
from benchmarks.results import Comparison

REPETITIONS = 3
_ALLOWANCE_SECONDS = 3.0
_HOMES = ("fresh", "known")
_PEERS: dict[str, Callable[[Path], AbstractContextManager[peers.Server]]] = {
    "prefect server start": peers.prefect_server,
    "mlflow server --workers 1": peers.mlflow_server,
}


def _ours(times: dict[tuple[str, str], list[float]], calm: Calm) -> None:
    with house.temporary() as ours:
        parameters = ours.root / "train.json"
        parameters.write_text(json.dumps(ours.training(ours.root / "out")))
        for home in _HOMES:
            calm.wait()
            began = time.monotonic()
            times["up", home].append(ours.up())
            ours.modelyard("run", "train", "-f", str(parameters), "--watch")
            times["run", home].append(time.monotonic() - began)
            ours.down()


def _peer(name: str, times: dict[tuple[str, str], list[float]], calm: Calm) -> None:
    with peers.temporary_home() as root:
        for home in _HOMES:
            calm.wait()
            with _PEERS[name](root) as server:
                times[name, home].append(server.seconds)


def measure(repetitions: int, calm: Calm) -> list[Comparison]:
    """Start everything ``repetitions`` times in turn, each time twice in one new home."""
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(repetitions):
        _ours(times, calm)
        for name in _PEERS:
            _peer(name, times, calm)

    return [line for home in reversed(_HOMES) for line in _compare(times, home)]


def _compare(times: dict[tuple[str, str], list[float]], home: str) -> list[Comparison]:
    slower = max(_PEERS, key=lambda name: statistics.median(times[name, home]))
    whole = Comparison(
        f"`up` to the first completed run, {home} home",
        "s",
        times["run", home],
        times[slower, home],
        f"{slower} (the slower)",
        f"the slower + {_ALLOWANCE_SECONDS:.0f} s",
        statistics.median(times[slower, home]) + _ALLOWANCE_SECONDS,
    )
    return [whole] + [
        Comparison(f"`up` alone, {home} home", "s", times["up", home], times[name, home], name)
        for name in _PEERS
    ]
