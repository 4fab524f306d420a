"""Kill what takes part in a tuning at random, retry it until it is complete, and count.

``python -m tests.e2e.tuning_soak [--tunings 20] [--seed N] [--dispatch inline]``. Victims are the
tuning's own process, its scripts and their leashes, the worker, the fork server, the database,
and the servers of Prefect and MLflow. The promise: every trial is there once, with the point that
an undisturbed tuning gives it; none that was recorded as ended is begun again; no process is left.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.disturbing import ask, kill_one
from tests.e2e.stack import Stack, flags, wait_for
from tuning.search import Search
from tuning.space import Parameter

_TRIALS = 10
_X = {"name": "x", "type": "double", "min": 0, "max": 1}
_ENDED = {"COMPLETE", "FAIL HYPERPARAMETER TUNING", "STOPPED", "TIMED OUT"}
_FINAL = {"SUCCEEDED", "FAILED", "METRICS_UNAVAILABLE", "EARLY_STOPPED"}
_MOST_ATTEMPTS = 40


@dataclass
class Tally:
    """What happened."""

    kills: collections.Counter[str] = field(default_factory=collections.Counter)
    retries: int = 0
    tunings: int = 0
    states: collections.Counter[str] = field(default_factory=collections.Counter)
    trials: collections.Counter[str] = field(default_factory=collections.Counter)
    begun_again: int = 0
    broken: list[str] = field(default_factory=list)
    processes_left: int = 0

    @property
    def kept(self) -> bool:
        """Whether the promise was kept."""
        return not self.broken and not self.processes_left


def _begins(ledger: Path) -> collections.Counter[str]:
    lines = ledger.read_text().splitlines() if ledger.exists() else []
    return collections.Counter(line.split()[1] for line in lines if line.startswith("begins"))


def _start(stack: Stack, number: int, dispatch: str, ledger: Path) -> str:
    parameters = {
        "name": f"tuning-{number}",
        "strategy": "random",
        "seed": number,
        "parameters": [_X],
        "hyperparameters": {"ledger": str(ledger), "seconds": 0.2, "steps": 5},
        "metrics": [{"name": "loss"}],
        "objective": {"metric": "loss", "direction": "minimize"},
        "max_trials": _TRIALS,
        "parallel_trials": 2,
        "dispatch": dispatch,
    }

    def submit() -> str | None:
        answer = stack.ask("run", "tune", *flags("trial", parameters))
        if answer.code == 0:
            return str(answer.json["flow_run_id"])
        found = [row for row in ask(stack, "runs", "list") if row["name"] == parameters["name"]]
        return str(found[0]["id"]) if found else None

    return wait_for(submit, 180, "the tuning to be accepted")


def soak_one(
    stack: Stack, number: int, dispatch: str, chance: random.Random, tally: Tally
) -> None:
    """One tuning, disturbed until it is complete."""
    ledger = stack.home / f"ledger-{number}"
    run = _start(stack, number, dispatch, ledger)
    ended: dict[int, int] = {}  # begins of a trial's point when it was first seen to have ended
    kills_left = chance.randint(2, 6)
    for _ in range(_MOST_ATTEMPTS):
        while True:
            found = ask(stack, "runs", "show", run)
            begins = _begins(ledger)
            for trial in (found["result"] or {}).get("trials", []):
                if trial["state"] in _FINAL:
                    point = f"x={trial['parameters']['x']!r}"
                    ended.setdefault(trial["number"], begins[point])
            if found["state"] in _ENDED:
                break
            time.sleep(chance.uniform(0.1, 1.0))
            if kills_left and found["state"] == "RUNNING":
                kills_left -= 1
                tally.kills[kill_one(stack, run, chance, "tuning")] += 1
        if found["state"] == "COMPLETE":
            break
        tally.retries += 1
        ask(stack, "runs", "retry", run)
    tally.tunings += 1
    tally.states[f"{found['state']} {found['detail']}"] += 1
    _judge(found, _begins(ledger), ended, tally)


def _undisturbed(seed: int) -> list[float]:
    """The points of a tuning with that seed that nobody disturbs."""
    search = Search([Parameter(**_X)], ["minimize"], strategy="random", seed=seed)
    points = (search.ask(number) for number in range(_TRIALS))
    return [float(point["x"]) for point in points if point is not None]


def _judge(
    found: dict[str, Any], begins: collections.Counter[str], ended: dict[int, int], tally: Tally
) -> None:
    trials = (found["result"] or {}).get("trials", [])
    tally.trials.update(trial["state"] for trial in trials)
    numbers = [trial["number"] for trial in trials]
    if numbers != list(range(_TRIALS)):
        tally.broken.append(f"{found['id']}: its trials are {numbers}")
    if any(trial["state"] not in _FINAL for trial in trials):
        tally.broken.append(f"{found['id']}: trials without an end")
    points = [trial["parameters"]["x"] for trial in trials]
    if points != _undisturbed(found["parameters"]["seed"]):
        tally.broken.append(f"{found['id']}: its points are {points}")
    for trial in trials:
        count = begins[f"x={trial['parameters']['x']!r}"]
        tally.begun_again += count - 1
        if count > ended.get(trial["number"], count):
            tally.broken.append(f"{found['id']}: trial {trial['number']} ran after its end")


def soak(tunings: int, seed: int, dispatch: str = "inline") -> Tally:
    """Disturb so many tunings, one after another; the tally."""
    chance = random.Random(seed)
    tally = Tally()
    stack = Stack()
    try:
        stack.do("up", "--detach")
        for number in range(tunings):
            soak_one(stack, number, dispatch, chance, tally)
            print(f"{number + 1}/{tunings} {dict(tally.kills)} {tally.broken}", flush=True)
        wait_for(lambda: stack.ask("status").code == 0, 120, "the stack to be whole again")
        stack.do("down")
        tally.processes_left = len(stack.processes())
    finally:
        stack.close()
    return tally


def main() -> None:
    """Soak and print the tally; exit status 1 if the promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tunings", type=int, default=20)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--dispatch", choices=("inline", "pool"), default="inline")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    tally = soak(arguments.tunings, arguments.seed, arguments.dispatch)
    print(json.dumps(tally.__dict__, default=dict, indent=1))
    raise SystemExit(0 if tally.kept else 1)


if __name__ == "__main__":
    main()
