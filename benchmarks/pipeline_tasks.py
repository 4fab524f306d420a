"""What pipelines of Kubeflow's cost beside their components, which do nothing.

The peer of a step is ``kfp.local`` with its subprocess runner, in our environment, where all that
its pip is asked for is there: once as the compiler writes components, with pip, and once without.
What a run costs once is taken out by the difference of a long and a short chain. Our steps include
everything: a task run in Prefect with its log, the row in PostgreSQL, the leash. None of them is
taken from a cache. Wide, deep and looped pipelines are timed as wholes, from the flow's beginning
to its end.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks import house, peers
from benchmarks.house import House
from benchmarks.machine import Calm
from benchmarks.results import Comparison

REPETITIONS = 3
_SHORT, _LONG = 5, 45
_NODES = 200
_ITERATIONS, _PARALLEL = 100, 50
_PEER_SECONDS = 600.0
_WITH_PIP, _BARE = "kfp.local", "kfp.local without pip"


def _written(home: House, shape: str, count: int) -> Path:
    """A compiled pipeline."""
    path = home.root / f"{shape}-{count}.yaml"
    command = [sys.executable, "-m", "benchmarks.noop_pipelines", "write"]
    subprocess.run([*command, shape, str(count), str(path)], check=True, capture_output=True)
    return path


def _seconds(home: House, path: Path) -> float:
    """How long a pipeline runs in the pool."""
    ran = home.modelyard("pipeline", "run", str(path), "--no-cache")
    return float(home.modelyard("runs", "show", ran["flow_run_id"])["seconds"])


def _step(home: House) -> float:
    """Milliseconds for each step of a chain."""
    long, short = (_seconds(home, _written(home, "deep", count)) for count in (_LONG, _SHORT))
    return (long - short) / (_LONG - _SHORT) * 1000


def _peer_step(home: House, kind: str) -> float:
    """The same of ``kfp.local``."""
    taken = []
    for count in (_LONG, _SHORT):
        command = [sys.executable, "-m", "benchmarks.noop_pipelines", "local", kind, str(count)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PEER_SECONDS, cwd=home.root,
            env=peers.environment(home.root),
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"kfp.local failed: {done.stderr[-2000:]}")
        taken.append(float(json.loads(done.stdout.splitlines()[-1])["seconds"]))
    return (taken[0] - taken[1]) / (_LONG - _SHORT) * 1000


def measure(repetitions: int, calm: Calm) -> list[Comparison]:
    """Run every shape ``repetitions`` times, the peers' steps in turns with ours."""
    steps: dict[str, list[float]] = {"ours": [], "deep-pip": [], "deep-bare": []}
    wholes: dict[tuple[str, int], list[float]] = {
        ("wide", _NODES): [], ("deep", _NODES): [], ("loop", _ITERATIONS): [],
    }  # fmt: skip
    with house.temporary() as home:
        home.up()
        _step(home)  # the first makes the environment, and does not count
        for _ in range(repetitions):
            calm.wait()
            steps["ours"].append(_step(home))
            for kind in ("deep-pip", "deep-bare"):
                calm.wait()
                steps[kind].append(_peer_step(home, kind))
            for (shape, count), taken in wholes.items():
                calm.wait()
                taken.append(_seconds(home, _written(home, shape, count)))
    ideal = _ITERATIONS / _PARALLEL
    fifth = statistics.median(steps["deep-pip"]) / 5
    bare = statistics.median(steps["deep-bare"])
    return [
        Comparison("a step of a pipeline", "ms", steps["ours"], steps["deep-pip"],
                   _WITH_PIP, "a fifth of the peer", fifth),
        Comparison("a step of a pipeline", "ms", steps["ours"], steps["deep-bare"],
                   _BARE, "ahead of the peer", bare),
        Comparison(f"{_NODES} tasks at once", "s", wholes["wide", _NODES]),
        Comparison(f"{_NODES} tasks one after another", "s", wholes["deep", _NODES]),
        Comparison(f"a loop of {_ITERATIONS} x 1 s, {_PARALLEL} at once", "s",
                   wholes["loop", _ITERATIONS], [ideal], "no overhead at all"),
    ]  # fmt: skip
