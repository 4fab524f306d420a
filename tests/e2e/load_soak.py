"""Keep the machine busy while runs are accepted, put the stack to sleep once, and count.

``python -m tests.e2e.load_soak [--minutes 30] [--load 20] [--sleep 60]``. Trainings, tunings of
both kinds and pipelines run beside as many endless loops; halfway every process of the stack is
stopped for a minute, as the lid of a laptop does. Nothing is killed, so the promise is: no run
and no trial is ever Crashed, no trial begins twice, no tuning has more trials at once than its
``parallel_trials``, and every run is COMPLETE.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.e2e.disturbing import ask, of_home
from tests.e2e.stack import Stack, flags

_AT_ONCE = 5
_PARALLEL = 2
_TRIALS = 4
_X = {"name": "x", "type": "double", "min": 0, "max": 1}
_PIPELINE = Path(__file__).resolve().parents[2] / "examples" / "pipelines" / "hello.yaml"
_LEFT_SECONDS = 1800
_CRASHED = """
from prefect.client.orchestration import get_client
from prefect.client.schemas.sorting import FlowRunSort
from flows.connection import connected
with connected(), get_client(sync_client=True) as client:
    offset = 0
    while runs := client.read_flow_runs(sort=FlowRunSort.ID_DESC, limit=100, offset=offset):
        offset += len(runs)
        for run in runs:
            states = [one.type.value for one in client.read_flow_run_states(run.id)]
            if "CRASHED" in states or states.count("RUNNING") > 1:
                print(run.id, run.name, *states)
"""


@dataclass
class Tally:
    """What happened."""

    states: collections.Counter[str] = field(default_factory=collections.Counter)
    crashed: list[str] = field(default_factory=list)
    begun_twice: list[str] = field(default_factory=list)
    too_many_at_once: list[str] = field(default_factory=list)
    restarts: dict[str, int] = field(default_factory=dict)
    highest_load: float = 0.0

    @property
    def kept(self) -> bool:
        """Whether the promise was kept."""
        broken = self.crashed or self.begun_twice or self.too_many_at_once
        return not broken and set(self.states) <= {"COMPLETE"}


@contextlib.contextmanager
def loaded(count: int) -> Iterator[None]:
    """So many endless loops for the while."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def sleep(stack: Stack, seconds: float) -> None:
    """Stop every process of the stack for so long, then let all go on."""
    processes = of_home(stack)
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.suspend()
    try:
        time.sleep(seconds)
    finally:
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.resume()


def _start(stack: Stack, number: int) -> str:
    """The next run: a training, a tuning inline, one in the pool, or a pipeline."""
    if number % 4 == 3:
        arguments = ["pipeline-run", "-p", f"pipeline={_PIPELINE}", "-p", "cache=false",
                     "-p", 'arguments={"recipient": "you"}']  # fmt: skip
    elif number % 4 == 0:
        arguments = ["train", *flags("steps", {"hyperparameters": {"steps": 20, "seconds": 0.5}})]
    else:
        ledger = stack.home / f"ledger-{number}"
        arguments = ["tune", *flags("trial", {
            "strategy": "random", "seed": number, "parameters": [_X],
            "hyperparameters": {"ledger": str(ledger), "seconds": 0.5, "steps": 6},
            "metrics": [{"name": "loss"}],
            "objective": {"metric": "loss", "direction": "minimize"},
            "max_trials": _TRIALS, "parallel_trials": _PARALLEL,
            "dispatch": "pool" if number % 4 == 1 else "inline",
        })]  # fmt: skip
    return str(stack.do("run", *arguments, timeout=600)["flow_run_id"])


def _judge_ledgers(stack: Stack, tally: Tally) -> None:
    for ledger in sorted(stack.home.glob("ledger-*")):
        going: set[str] = set()
        begins: collections.Counter[str] = collections.Counter()
        for line in ledger.read_text().splitlines():
            word, point = line.split()[:2]
            if word == "begins":
                begins[point] += 1
                going.add(point)
            else:
                going.discard(point)
            if len(going) > _PARALLEL:
                tally.too_many_at_once.append(f"{ledger.name}: {sorted(going)}")
        tally.begun_twice += [f"{ledger.name}: {point}" for point in begins if begins[point] > 1]


def soak(minutes: float, load: int, asleep: float) -> Tally:
    """Accept runs for so long, then wait for the last of them; the tally."""
    tally, going, number = Tally(), set[str](), 0
    stack = Stack()
    try:
        stack.do("up", "--detach")
        with loaded(load):
            began = time.monotonic()
            slept = asleep == 0
            while time.monotonic() - began < minutes * 60 + _LEFT_SECONDS:
                accepts = time.monotonic() - began < minutes * 60
                if not accepts and not going:
                    break
                if accepts and len(going) < _AT_ONCE:
                    going.add(_start(stack, number))
                    number += 1
                    continue
                if not slept and time.monotonic() - began > minutes * 30:
                    slept = True
                    sleep(stack, asleep)
                rows: list[dict[str, Any]] = ask(stack, "runs", "list", "-n", "500")
                for row in rows:
                    if row["id"] in going and row["ended"]:
                        going.discard(row["id"])
                        tally.states[row["state"]] += 1
                tally.highest_load = max(tally.highest_load, psutil.getloadavg()[0])
                print(f"{number} accepted, {dict(tally.states)}", flush=True)
                time.sleep(2)
        tally.states.update({"still going on": len(going)} if going else {})
        tally.crashed = stack.python(_CRASHED).splitlines()
        parts = stack.do("status")["parts"]
        tally.restarts = {one["name"]: one["restarts"] for one in parts if one["restarts"]}
        _judge_ledgers(stack, tally)
    finally:
        stack.close()
    return tally


def main() -> None:
    """Soak and print the tally; exit status 1 if the promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--load", type=int, default=20)
    parser.add_argument("--sleep", type=float, default=60)
    arguments = parser.parse_args()
    tally = soak(arguments.minutes, arguments.load, arguments.sleep)
    print(json.dumps(tally.__dict__, default=dict, indent=1))
    raise SystemExit(0 if tally.kept else 1)


if __name__ == "__main__":
    main()
