"""Predict one large file, and measure how much memory the run, its shards and predictors take.

``python -m tests.e2e.batch_inference_memory [--gib 20] [--pods 2] [--most-gib 2]``. The file is
JSON Lines of a linear model's ten features. The peak is the largest sum of what is resident in all
of the run's processes, looked at twice a second.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import psutil
from sklearn.linear_model import LogisticRegression

from tests.e2e.batch_inference_soak import kinds_of
from tests.e2e.stack import Stack

# Bytes that are resident in what takes part in a run, by the kind of process.
Resident = Callable[[Stack, str], dict[str, int]]

_FEATURES = 10
_BLOCK = 20_000
_ENDED = {
    "COMPLETE", "FAIL BATCH INFERENCE", "FAIL MODEL EVALUATION", "STOPPED", "TIMED OUT",
    "CREATE FAILED",
}  # fmt: skip


def _write(path: Path, size: int) -> int:
    """Write records of ``size`` bytes together; how many."""
    rows = np.random.default_rng(0).normal(size=(_BLOCK, _FEATURES)).round(4)
    names = [f"x{at}" for at in range(_FEATURES)]
    block = "".join(
        json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows.tolist()
    ).encode()
    count = max(1, size // len(block))
    with path.open("wb") as file:
        for _ in range(count):
            file.write(block)
    return count * _BLOCK


def _resident(stack: Stack, run: str) -> dict[str, int]:
    """Bytes that are resident, by the kind of process."""
    kinds = kinds_of(stack, run)
    found = dict.fromkeys(("run", "shard", "predictor"), 0)
    for kind in found:
        for process in kinds.get(kind, ()):
            with contextlib.suppress(psutil.Error):
                found[kind] += process.memory_info().rss
    return found


def measure_run(
    stack: Stack, flow: str, given: Mapping[str, Any], records: int, resident: Resident
) -> dict[str, Any]:
    """Start a run with these parameters, and follow it to its end; what it took."""
    begun = time.monotonic()
    pairs = [part for name, value in given.items() for part in ("-p", f"{name}={value}")]
    run = str(stack.do("run", flow, *pairs)["flow_run_id"])
    state, peak = _followed(stack, run, resident)
    seconds = time.monotonic() - begun
    return {
        "state": state,
        "records": records,
        "seconds": seconds,
        "records/s": records / seconds,
        "peak GiB": sum(peak.values()) / 2**30,
        **{f"peak GiB: {kind}": size / 2**30 for kind, size in peak.items()},
    }


def _followed(stack: Stack, run: str, resident: Resident) -> tuple[str, dict[str, int]]:
    """Follow a run to its end; its state, and what was resident when that was most."""
    peak: dict[str, int] = {}
    looked = 0.0
    while True:
        now = resident(stack, run)
        if sum(now.values()) > sum(peak.values()):
            peak = now
        if time.monotonic() - looked > 5:
            looked = time.monotonic()
            state = str(stack.do("runs", "show", run)["state"])
            if state in _ENDED:
                return state, peak
        time.sleep(0.5)


def measure(gib: float, pods: int) -> dict[str, float | str]:
    """Predict a file of ``gib`` GiB with ``pods`` pods; what it took."""
    stack = Stack()
    try:
        place = stack.home.with_name("large")
        (place / "model").mkdir(parents=True)
        rows = np.random.default_rng(0).normal(size=(1000, _FEATURES))
        fitted = LogisticRegression().fit(rows, rows[:, 0] > 0)
        joblib.dump(fitted, place / "model" / "model.joblib")
        records = _write(place / "in.jsonl", int(gib * 2**30))
        stack.do("up", "--detach")
        stack.do(
            "model", "create", "line", "--uri", str(place / "model"), "--framework", "sklearn"
        )
        given = {
            "model": "line/1", "input_uri": place / "in.jsonl", "output_uri": place / "out",
            "pods": pods,
        }  # fmt: skip
        found = measure_run(stack, "batch-inference", given, records, _resident)
        manifest = json.loads((place / "out" / "manifest.json").read_bytes())
        assert manifest["predicted"] == records
        stack.do("down")
        return {"gib": gib, **found}
    finally:
        stack.close()


def main(description: str | None, measure: Callable[[float, int], dict[str, Any]]) -> None:
    """Measure, and print it; exit status 1 if it took more memory than it may."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--gib", type=float, default=20)
    parser.add_argument("--pods", type=int, default=2)
    parser.add_argument("--most-gib", type=float, default=2)
    given = parser.parse_args()
    found = measure(given.gib, given.pods)
    print(json.dumps(found, indent=1))
    raise SystemExit(0 if float(found["peak GiB"]) <= given.most_gib else 1)


if __name__ == "__main__":
    main(__doc__, measure)
