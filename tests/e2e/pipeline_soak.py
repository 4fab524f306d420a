"""Kill what takes part in a pipeline run at random, retry it until it is complete, and count.

``python -m tests.e2e.pipeline_soak [--runs 20] [--seed N]``. Victims are the run's own process,
its components with their interpreters, the worker, the fork server, the database, and the servers
of Prefect and MLflow. The promise: no task that was recorded as ended runs again, the pipeline
hands on what an undisturbed one does, nothing is stuck, and no process is left.
"""

import collections
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, List  # noqa: UP035 (the SDK reads annotations as it knows them)

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from tests.e2e.disturbing import ask, kill_one, main, soaked_stack
from tests.e2e.stack import Stack, wait_for
from tests.pipelines import corpus
from tests.pipelines.corpus.components import IMAGE

_ITEMS = 8
_ENDED = {"COMPLETE", "FAIL PIPELINE RUN", "STOPPED", "TIMED OUT"}
_DONE = {"SUCCEEDED", "CACHED"}
_MOST_ATTEMPTS = 40


@dsl.component(base_image=IMAGE)
def work(ledger: str, number: int, seconds: float = 0.4) -> int:
    """Leave a line when it begins, with its place in the run, and another when it ends."""
    import pathlib
    import time

    from kfp import dsl

    place = dsl.get_uri("x").partition("/artifacts/")[2].removesuffix("/x")
    with pathlib.Path(ledger).open("a") as file:
        file.write(f"begins {place}\n")
    time.sleep(seconds)
    with pathlib.Path(ledger).open("a") as file:
        file.write(f"ends {place}\n")
    return number * 2


@dsl.component(base_image=IMAGE)
def write(number: int, data: Output[Dataset]):
    import pathlib

    data.metadata["number"] = number
    pathlib.Path(data.path).write_text(str(number))


@dsl.component(base_image=IMAGE)
def join(numbers: list, data: Input[List[Dataset]], more: int) -> str:  # noqa: UP006
    import pathlib

    texts = [f"{pathlib.Path(one.path).read_text()}/{one.metadata['number']}" for one in data]
    return f"{sum(numbers)} {','.join(texts)} {more}"


@dsl.pipeline(name="inner")
def inner(ledger: str, number: int) -> int:
    first = work(ledger=ledger, number=number)
    return work(ledger=ledger, number=first.output).output


@dsl.pipeline(name="soaked")
def soaked(ledger: str) -> str:
    begun = work(ledger=ledger, number=1)
    with dsl.ParallelFor(list(range(_ITEMS)), parallelism=3) as number:
        made = work(ledger=ledger, number=number).after(begun)
        with dsl.If(made.output > 6):
            data = write(number=made.output)
    with dsl.ExitHandler(work(ledger=ledger, number=0)):
        work(ledger=ledger, number=0, seconds=1.0).set_retry(1)
    nested = inner(ledger=ledger, number=begun.output)
    return join(
        numbers=dsl.Collected(made.output),
        data=dsl.Collected(data.outputs["data"]),
        more=nested.output,
    ).output


_OUTPUT = "56 8/8,10/10,12/12,14/14 8"
_TASKS = _ITEMS + 5  # those that leave lines


@dataclass
class Tally:
    """What happened.

    Attributes:
        kills: What was killed, and how often.
        retries: How often a run was retried.
        runs: How many runs there were.
        states: How they ended.
        begun: How often a task has begun.
        begun_again: How many of these were not its first time.
        unrecorded: How many tasks ran to their end twice: the kill came before it was recorded.
        broken: What should not be.
        processes_left: What was left some seconds after the stack was down.
    """

    kills: collections.Counter[str] = field(default_factory=collections.Counter)
    retries: int = 0
    runs: int = 0
    states: collections.Counter[str] = field(default_factory=collections.Counter)
    begun: int = 0
    begun_again: int = 0
    unrecorded: int = 0
    broken: list[str] = field(default_factory=list)
    processes_left: list[str] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """Whether the promise was kept."""
        return not self.broken and not self.processes_left


def _lines(ledger: Path, word: str) -> collections.Counter[str]:
    lines = ledger.read_text().splitlines() if ledger.exists() else []
    return collections.Counter(line.split()[1] for line in lines if line.startswith(word))


def _start(stack: Stack, number: int, ledger: Path) -> str:
    path = stack.home / "soaked.yaml"
    path.write_bytes(corpus.compile_function(soaked))
    name = f"soaked-{number}"
    asked = {"name": name, "pipeline": path, "arguments.ledger": ledger, "cache": "false"}
    given = [part for key, value in asked.items() for part in ("-p", f"{key}={value}")]

    def submit() -> str | None:
        answer = stack.ask("run", "pipeline-run", *given)
        if answer.code == 0:
            return str(answer.json["flow_run_id"])
        found = [row for row in ask(stack, "runs", "list") if row["name"] == name]
        return str(found[0]["id"]) if found else None

    return wait_for(submit, 180, "the run to be accepted")


def soak_one(
    stack: Stack, number: int, chance: random.Random, tally: Tally, kills: tuple[int, int]
) -> None:
    """One run, disturbed until it is complete."""
    ledger = stack.home / f"ledger-{number}"
    run = _start(stack, number, ledger)
    ended: dict[str, int] = {}  # how often a task had begun when it was first seen to have ended
    kills_left = chance.randint(*kills)
    for _ in range(_MOST_ATTEMPTS):
        while True:
            found = ask(stack, "runs", "show", run)
            begins = _lines(ledger, "begins")
            for task in (found["result"] or {}).get("tasks", []):
                if task["state"] in _DONE:
                    ended.setdefault(task["name"], begins[task["name"]])
            if found["state"] in _ENDED:
                break
            time.sleep(chance.uniform(0.05, 0.8))
            if kills_left and found["state"] == "RUNNING":
                kills_left -= 1
                tally.kills[kill_one(stack, run, chance, "pipeline run")] += 1
        if found["state"] == "COMPLETE":
            break
        tally.retries += 1
        ask(stack, "runs", "retry", run)
    tally.runs += 1
    tally.states[found["state"]] += 1
    _judge(found, ledger, ended, tally)


def _judge(found: dict[str, Any], ledger: Path, ended: dict[str, int], tally: Tally) -> None:
    begins, ends = _lines(ledger, "begins"), _lines(ledger, "ends")
    outputs = (found["result"] or {}).get("outputs")
    if outputs != {"Output": _OUTPUT}:
        tally.broken.append(f"{found['id']}: it hands on {outputs}")
    if len(ends) != _TASKS:
        tally.broken.append(f"{found['id']}: {len(ends)} tasks have run: {sorted(ends)}")
    for task in (found["result"] or {}).get("tasks", []):
        if task["state"] not in {*_DONE, "SKIPPED"}:
            tally.broken.append(f"{found['id']}: {task['name']} is {task['state']}")
    for place, count in begins.items():
        tally.begun += count
        tally.begun_again += count - 1
        tally.unrecorded += max(0, ends[place] - 1)
        if count > ended.get(place, count):
            tally.broken.append(f"{found['id']}: {place} ran after its end")


def soak(runs: int, seed: int, kills: tuple[int, int] = (2, 6)) -> Tally:
    """Disturb so many runs, one after another; the tally."""
    chance = random.Random(seed)
    tally = Tally()
    with soaked_stack(tally) as stack:
        for number in range(runs):
            soak_one(stack, number, chance, tally, kills)
            print(f"{number + 1}/{runs} {dict(tally.kills)} {tally.broken}", flush=True)
    return tally


if __name__ == "__main__":
    main(__doc__, soak, "runs", 20)
