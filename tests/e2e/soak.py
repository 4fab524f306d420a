"""Kill parts of the stack at random while trainings go on, and count what became of them.

``python -m tests.e2e.soak [--kills 100] [--seed N]``. Victims are the leashes that the supervisor
starts, the servers below them, the worker, flow runs, their clients and their scripts, and now
and then the supervisor itself, after which somebody types `modelyard up` again. The promise: a
run that was accepted ends (complete, or failed with a reason), MLflow agrees, and after
`modelyard down` no process is left.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import time
from dataclasses import dataclass, field
from typing import Any

import psutil

from tests.e2e.stack import Stack, flags, wait_for

_AT_ONCE = 3
_ENDED = {"COMPLETE", "FAIL TRAIN"}


@dataclass
class Tally:
    """What happened."""

    kills: collections.Counter[str] = field(default_factory=collections.Counter)
    states: collections.Counter[str] = field(default_factory=collections.Counter)
    resubmitted: int = 0
    lost: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    mlflow_running: int = 0
    processes_left: int = 0

    @property
    def kept(self) -> bool:
        """Whether the promise was kept."""
        return not (self.lost or self.stuck or self.mlflow_running or self.processes_left)


def _kind(process: psutil.Process) -> str:
    environment = process.environ()
    if "MODELYARD_RUN" in environment:
        return "script"
    part = environment["MODELYARD_PART"].partition("@")[0]
    return "leash of " + part if "leash.py" in " ".join(process.cmdline()) else part


def kill_one(stack: Stack, chance: random.Random) -> str:
    """Kill a random process of the stack; what it was. Kinds are equally likely."""
    kinds: dict[str, list[psutil.Process]] = collections.defaultdict(list)
    for process in stack.processes():
        try:
            kinds[_kind(process)].append(process)
        except (psutil.Error, OSError, KeyError):
            continue
    supervisor = stack.ask("status").out
    if chance.random() < 0.04 and supervisor:
        psutil.Process(json.loads(supervisor)["pid"]).kill()
        time.sleep(chance.uniform(0, 3))
        stack.do("up", "--detach")
        return "supervisor"
    kind = chance.choice(sorted(kinds))
    try:
        chance.choice(kinds[kind]).kill()
    except psutil.NoSuchProcess:
        return "nobody"
    return kind


def _submit(stack: Stack, tally: Tally, chance: random.Random) -> str:
    steps = {"steps": chance.randint(5, 40)}
    while True:
        answer = stack.ask("run", "train", *flags("steps", {"hyperparameters": steps}))
        if answer.code == 0:
            return str(answer.json["flow_run_id"])
        tally.resubmitted += 1
        time.sleep(0.5)


def _unfinished_in_mlflow(stack: Stack) -> int:
    asked = {"experiment_ids": ["0"], "filter": "attributes.status = 'RUNNING'"}
    return len(stack.open("mlflow", "api/2.0/mlflow/runs/search", asked).get("runs", []))


def _states(stack: Stack) -> dict[str, dict[str, Any]]:
    answer = stack.ask("runs", "list", "-n", "10000")
    return {row["id"]: row for row in answer.json} if answer.code == 0 else {}


def soak(kills: int, seed: int, pause: tuple[float, float] = (0.5, 4.0)) -> Tally:
    """Kill ``kills`` times; the tally."""
    chance = random.Random(seed)
    tally = Tally()
    stack = Stack()
    accepted: list[str] = []
    try:
        stack.do("up", "--detach")
        for number in range(kills):
            states = _states(stack)
            going = [run for run in accepted if states.get(run, {}).get("state") not in _ENDED]
            for _ in range(_AT_ONCE - len(going)):
                accepted += [_submit(stack, tally, chance)]
            time.sleep(chance.uniform(*pause))
            kind = kill_one(stack, chance)
            tally.kills[kind] += 1
            print(f"{number + 1}/{kills} killed {kind}; {len(accepted)} runs accepted", flush=True)
        wait_for(lambda: stack.ask("status").code == 0, 120, "the stack to be whole again")
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            states = _states(stack)
            if states and all(states.get(run, {}).get("state") in _ENDED for run in accepted):
                break
            time.sleep(1)
        tally.lost = [run for run in accepted if run not in states]
        tally.stuck = [
            f"{run} {states[run]['state']}"
            for run in accepted
            if run in states and states[run]["state"] not in _ENDED
        ]
        tally.states.update(states[run]["state"] for run in accepted if run in states)
        deadline = time.monotonic() + 60
        while _unfinished_in_mlflow(stack) and time.monotonic() < deadline:
            time.sleep(1)
        tally.mlflow_running = _unfinished_in_mlflow(stack)
        stack.do("down")
        tally.processes_left = len(stack.processes())
    finally:
        stack.close()
    return tally


def main() -> None:
    """Soak and print the tally; exit status 1 if the promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    tally = soak(arguments.kills, arguments.seed)
    print(f"killed: {dict(tally.kills.most_common())}")
    print(f"runs: {dict(tally.states)}, {tally.resubmitted} submissions had to be repeated")
    print(f"lost: {tally.lost}, stuck: {tally.stuck}")
    print(f"running in MLflow: {tally.mlflow_running}, processes left: {tally.processes_left}")
    raise SystemExit(0 if tally.kept else 1)


if __name__ == "__main__":
    main()
