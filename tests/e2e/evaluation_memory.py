"""Evaluate with one large file, and measure how much memory all that takes part takes.

``python -m tests.e2e.evaluation_memory [--gib 20] [--pods 2] [--most-gib 2]``. The file is CSV of
ten features of a linear model, a true value and a field to slice by. The peak is the largest sum
of what is resident in the processes of the evaluation and of its batch inference, looked at twice
a second.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import psutil
from sklearn.linear_model import LogisticRegression

from tests.e2e.batch_inference_memory import main, measure_run
from tests.e2e.batch_inference_soak import kinds_of
from tests.e2e.disturbing import executor
from tests.e2e.stack import Stack

_FEATURES = 10
_BLOCK = 20_000


def _write(path: Path, size: int) -> int:
    """Write records of ``size`` bytes together; how many."""
    chance = np.random.default_rng(0)
    rows = chance.normal(size=(_BLOCK, _FEATURES)).round(4)
    labels = np.where(rows[:, 0] + chance.normal(size=_BLOCK) > 0, "yes", "no")
    regions = chance.choice(["north", "east", "south", "west"], _BLOCK)
    lines = zip(rows.tolist(), labels, regions, strict=True)
    block = "".join(f"{','.join(map(str, row))},{a},{b}\n" for row, a, b in lines).encode()
    count = max(1, size // len(block))
    with path.open("wb") as file:
        names = [f"x{at}" for at in range(_FEATURES)]
        file.write((",".join([*names, "label", "region"]) + "\n").encode())
        for _ in range(count):
            file.write(block)
    return count * _BLOCK


def _resident(stack: Stack, evaluation: str) -> dict[str, int]:
    """Bytes that are resident, by the kind of process."""
    pids = {"evaluation": executor(stack, evaluation)}
    rows = stack.do("runs", "list", "--flow", "batch-inference")
    inference = str(rows[0]["id"]) if rows else evaluation
    kinds = kinds_of(stack, inference) if rows else {}
    found = dict.fromkeys(("evaluation", "run", "shard", "predictor"), 0)
    processes = [
        *((kind, psutil.Process(pid)) for kind, pid in pids.items() if pid),
        *((kind, one) for kind in found for one in kinds.get(kind, ())),
    ]
    for kind, process in processes:
        with contextlib.suppress(psutil.Error):
            found[kind] += process.memory_info().rss
    return found


def measure(gib: float, pods: int) -> dict[str, Any]:
    """Evaluate with a file of ``gib`` GiB, predicted by ``pods`` pods; what it took."""
    stack = Stack()
    try:
        place = stack.home.with_name("large")
        for folder in ("model", "in"):
            (place / folder).mkdir(parents=True)
        rows = np.random.default_rng(0).normal(size=(1000, _FEATURES))
        fitted = LogisticRegression().fit(rows, np.where(rows[:, 0] > 0, "yes", "no"))
        joblib.dump(fitted, place / "model" / "model.joblib")
        records = _write(place / "in" / "one.csv", int(gib * 2**30))
        stack.do("up", "--detach")
        stack.do(
            "model", "create", "line", "--uri", str(place / "model"), "--framework", "sklearn"
        )
        given = {
            "model": "line/1", "input_uri": place / "in", "input_format": "csv",
            "target_field": "label", "class_names": '["no", "yes"]', "slice_field": "region",
            "drop_fields": '["region"]', "output_uri": place / "out", "batch.pods": pods,
        }  # fmt: skip
        found = measure_run(stack, "evaluate", given, records, _resident)
        result = json.loads((place / "out" / "evaluation" / "result.json").read_bytes())
        assert result["counts"]["evaluated"] == records
        stack.do("down")
        return {"gib": gib, **found}
    finally:
        stack.close()


if __name__ == "__main__":
    main(__doc__, measure)
