"""Kill parts of the stack at random while schedules go on, and check every slot.

``python -m tests.e2e.schedule_soak [--kills 60] [--seed N]``. Victims are the scheduler, the
database, Prefect, the worker and all else that the stack is made of. The promise: every slot from
the schedules' beginning to their end has one fate, one that was created has one run, which Prefect
has, Prefect has no other run of a schedule, and no schedule had more runs at once than its limit.
"""

from __future__ import annotations

import collections
import json
import random
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tests.e2e.disturbing import main
from tests.e2e.soak import kill_one
from tests.e2e.stack import Stack, flags, wait_for

_SCHEDULES: dict[str, list[str]] = {
    "all": ["--interval", "5"],
    "latest": ["--interval", "3", "--policy", "catchup=latest", "--policy", "grace=2"],
    "none": ["--cron", "*/4 * * * * *", "--policy", "catchup=none", "--policy", "grace=2"],
    "two": ["--interval", "6", "--policy", "max_concurrency=2", "--policy", "overlap=skip"],
}
_ENDED = {"COMPLETE", "FAIL TRAIN", "STOPPED", "CREATE FAILED"}

# Every run that a schedule has made, as Prefect has it: its slot, and when it went on.
_RUNS = """
import json
from flows.connection import connected
from prefect.client.orchestration import get_client
from prefect.client.schemas.sorting import FlowRunSort
with connected(), get_client(sync_client=True) as client:
    found, offset = [], 0
    while page := client.read_flow_runs(sort=FlowRunSort.ID_DESC, limit=200, offset=offset):
        found += page
        offset += len(page)
print(json.dumps([
    [str(run.id), run.labels.get("modelyard.schedule"), run.labels.get("modelyard.slot")]
    for run in found
]))
"""


@dataclass
class Tally:
    """What happened."""

    kills: collections.Counter[str] = field(default_factory=collections.Counter)
    fates: collections.Counter[str] = field(default_factory=collections.Counter)
    broken: list[str] = field(default_factory=list)
    processes_left: int = 0

    @property
    def kept(self) -> bool:
        """Whether the promise was kept."""
        return not (self.broken or self.processes_left)


def soak(kills: int, seed: int, pause: tuple[float, float] = (0.5, 4.0)) -> Tally:
    """Kill ``kills`` times; the tally."""
    chance = random.Random(seed)
    tally = Tally()
    stack = Stack()
    try:
        stack.do("up", "--detach")
        parameters = flags("steps", {"hyperparameters": {"steps": 1}})
        for name, options in _SCHEDULES.items():
            stack.do("schedule", "create", name, "train", *options, *parameters)
        for number in range(kills):
            time.sleep(chance.uniform(*pause))
            kind = kill_one(stack, chance)
            tally.kills[kind] += 1
            print(f"{number + 1}/{kills} killed {kind}", flush=True)
        wait_for(lambda: stack.ask("status").code == 0, 120, "the stack to be whole again")
        for name in _SCHEDULES:
            stack.do("schedule", "stop", name)
        _judge(stack, tally)
        stack.do("down")
        tally.processes_left = len(stack.processes())
    finally:
        stack.close()
    return tally


def _judge(stack: Stack, tally: Tally) -> None:
    def settled() -> bool:
        return all(
            row["fate"] != "created" or row["run"]
            for name in _SCHEDULES
            for row in stack.do("schedule", "show", name, "--last", "100000")["slots"]
        )

    wait_for(settled, 60, "every slot that was begun to have its run")
    made = json.loads(stack.python(_RUNS))
    of_slots = collections.Counter((schedule, slot) for _, schedule, slot in made)
    tally.broken += [f"{key} has {count} runs" for key, count in of_slots.items() if count > 1]
    recorded = set()
    for name in _SCHEDULES:
        found = stack.do("schedule", "show", name, "--last", "100000")
        rows = sorted(found["slots"], key=lambda row: str(row["slot"]))
        tally.fates.update(f"{name} {row['fate']} {row['reason']}".strip() for row in rows)
        recorded |= {row["run"] for row in rows if row["run"]}
        _judge_slots(name, rows, tally)
    ids = {run for run, _, _ in made}
    tally.broken += [f"the run {run} is of no slot" for run in ids - recorded]
    tally.broken += [f"Prefect has no run {run}" for run in recorded - ids]


def _judge_slots(name: str, rows: list[dict[str, Any]], tally: Tally) -> None:
    """That each slot between the first and the last has one row."""
    seconds = {"all": 5, "latest": 3, "none": 4, "two": 6}[name]
    at = [datetime.fromisoformat(row["slot"]) for row in rows]
    step = timedelta(seconds=seconds)
    for row, this, following in zip(rows, at, at[1:], strict=False):
        if this + step * row.get("count", 1) != following:
            tally.broken.append(f"{name}: {following} comes after {this}")
    if len(rows) < 3:
        tally.broken.append(f"{name}: there are {len(rows)} slots")


if __name__ == "__main__":
    main(__doc__, soak, "kills", 60)
