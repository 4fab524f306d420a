"""Kill what takes part in an evaluation at random, retry it until it is complete, and check it.

``python -m tests.e2e.evaluation_soak [--kills 40] [--seed N]``. Victims are the processes of the
evaluation and of its batch inference, what these have started, the servers of the stack, and all
processes of the stack at once, after which somebody types `modelyard up` again. The promise: the
metrics are scikit-learn's of all records, counts add up, there is one batch inference for each
evaluation, its records are those of the input, and no partial file and no process is left.
"""

from __future__ import annotations

import collections
import contextlib
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from sklearn import metrics as oracle

from tests.e2e import disturbing
from tests.e2e.disturbing import ask, main, of_home, soaked_stack
from tests.e2e.stack import Stack

_ENDED = {"COMPLETE", "FAIL MODEL EVALUATION", "STOPPED", "TIMED OUT", "CREATE FAILED"}
_MOST_ATTEMPTS = 40
_LONGEST_SECONDS = 600
_ROWS = 60_000
_MODEL = """
import time
import numpy as np
def load(model_dir, parameters):
    return None
def predict(inputs, model):
    yes = 1 / (1 + np.exp(-inputs["a"] - inputs["b"]))
    time.sleep(len(yes) * 1e-4)
    return {"probabilities": np.column_stack([1 - yes, yes])}
"""


@dataclass
class Tally:
    """What happened.

    Attributes:
        kills: What was killed, and how often.
        ends: How attempts ended.
        evaluations: How many there were.
        broken: What should not be.
        processes_left: What was left some seconds after the stack was down.
    """

    kills: collections.Counter[str] = field(default_factory=collections.Counter)
    ends: collections.Counter[str] = field(default_factory=collections.Counter)
    evaluations: int = 0
    broken: list[str] = field(default_factory=list)
    processes_left: list[str] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """Whether the promise was kept."""
        return not self.broken and not self.processes_left


class Data:
    """The records that every evaluation is of, and what is to come of them."""

    def __init__(self, place: Path, seed: int) -> None:
        """Write the model and the records below ``place``."""
        chance = np.random.default_rng(seed)
        rows = chance.normal(size=(_ROWS, 2))
        labels = np.where(rows.sum(axis=1) + chance.normal(size=_ROWS) > 0, "yes", "no")
        for folder in ("model", "in"):
            (place / folder).mkdir(parents=True)
        (place / "model" / "predictor.py").write_text(_MODEL)
        for number, part in enumerate(np.array_split(np.arange(_ROWS), 3)):
            values = zip(rows[part].tolist(), labels[part], strict=True)
            lines = [f"{a},{b},{label}\n" for (a, b), label in values]
            (place / "in" / f"{number}.csv").write_text("".join(["a,b,label\n", *lines]))
        yes = 1 / (1 + np.exp(-rows.sum(axis=1)))
        said = np.where(yes > 0.5, "yes", "no")  # no record is at one half
        self.expected = {
            "accuracy": oracle.accuracy_score(labels, said),
            "f1/yes": oracle.f1_score(labels, said, pos_label="yes"),
            "roc_auc/yes": oracle.roc_auc_score(labels == "yes", yes),
            "pr_auc/yes": oracle.average_precision_score(labels == "yes", yes),
            "log_loss": oracle.log_loss(labels, np.column_stack([1 - yes, yes])),
        }


def _kill(stack: Stack, evaluation: str, chance: random.Random) -> str:
    if chance.random() < 0.1:
        for process in of_home(stack):
            with contextlib.suppress(psutil.Error):
                process.kill()
        stack.do("up", "--detach")
        return "stack"
    inferences = [str(one["id"]) for one in _inferences(stack) if one["state"] not in _ENDED]
    run, kind = chance.choice(
        [(evaluation, "evaluation"), *((one, "batch inference") for one in inferences)]
    )
    return disturbing.kill_one(stack, run, chance, kind)


def _inferences(stack: Stack) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ask(stack, "runs", "list", "--flow", "batch-inference")
    return found


def _start(stack: Stack, place: Path, name: str) -> str:
    given = {
        "name": name, "model": "soaked/1", "input_uri": place / "in", "input_format": "csv",
        "target_field": "label", "class_names": '["no", "yes"]', "output_uri": place / name,
    }  # fmt: skip
    pairs = [part for key, value in given.items() for part in ("-p", f"{key}={value}")]
    return str(stack.do("run", "evaluate", *pairs)["flow_run_id"])


def _disturb(stack: Stack, run: str, kills: int, chance: random.Random, tally: Tally) -> str:
    """Kill until so many were killed, and retry until it is complete; how it ended."""
    for _ in range(_MOST_ATTEMPTS):
        deadline = time.monotonic() + _LONGEST_SECONDS
        while (found := ask(stack, "runs", "show", run))["state"] not in _ENDED:
            if time.monotonic() > deadline:
                return f"{found['state']} for {_LONGEST_SECONDS} s"
            time.sleep(chance.uniform(0.05, 1.5))
            if kills and found["state"] != "CREATE REQUESTED":
                kills -= 1
                tally.kills[_kill(stack, run, chance)] += 1
        reason = "" if found["state"] == "COMPLETE" else found["message"].partition(":")[0]
        tally.ends[f"{found['state']} {reason[:80]}".strip()] += 1
        if found["state"] == "COMPLETE":
            break
        ask(stack, "runs", "retry", run)
    return str(found["state"])


def _faults(target: Path, expected: dict[str, float]) -> Iterator[str]:
    """What is wrong with an evaluation's output."""
    result = json.loads((target / "evaluation" / "result.json").read_bytes())
    for name, value in expected.items():
        if not np.isclose(result["metrics"][name], value, rtol=0, atol=1e-9):
            yield f"{name} is {result['metrics'][name]}, not {value}"
    if result["counts"]["evaluated"] != _ROWS or result["counts"]["records"] != _ROWS:
        yield f"its counts are {result['counts']}"
    manifest = json.loads((target / "predictions" / "manifest.json").read_bytes())
    if (manifest["rows"], manifest["predicted"]) != (_ROWS, _ROWS):
        yield "its predictions are not of all records"
    odd = [path.name for path in target.rglob("*") if "partial" in path.name]
    if odd:
        yield f"{odd} are left"


def soak(kills: int, seed: int) -> Tally:
    """Disturb evaluations, one after another, until so many were killed; the tally."""
    chance, tally = random.Random(seed), Tally()
    with soaked_stack(tally) as stack:
        place = stack.home.with_name("data")
        data = Data(place, seed)
        stack.do("model", "create", "soaked", "--uri", str(place / "model"),
                 "--framework", "custom")  # fmt: skip
        while (done := tally.kills.total()) < kills:
            name = f"soaked-{tally.evaluations}"
            run = _start(stack, place, name)
            state = _disturb(stack, run, min(kills - done, chance.randint(2, 6)), chance, tally)
            tally.evaluations += 1
            faults = _faults(place / name, data.expected) if state == "COMPLETE" else [state]
            tally.broken += [f"{run}: {what}" for what in faults]
            states = [one["state"] for one in _inferences(stack)]
            if states != ["COMPLETE"] * tally.evaluations:
                tally.broken.append(f"{run}: batch inferences are {states}")
            print(f"{tally.evaluations} {dict(tally.kills)} {tally.broken}", flush=True)
    return tally


if __name__ == "__main__":
    main(__doc__, soak, "kills", 40)
