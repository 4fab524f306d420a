"""Shards and predictors that are killed at random: every record is once in the output."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from infra import storage
from tasks.batch_inference import input_files, output_files, planning, shard, splitting
from tasks.batch_inference.predictor_client import PredictorCommand, command_line
from tasks.batch_inference.shard import ShardSpec

SEEDS = int(os.environ.get("MODELYARD_SEEDS", "1"))
RECORDS = 3000
CODE = """
import time
def load(model_dir, parameters):
    return None
def predict(inputs, model):
    time.sleep(0.02)
    if (inputs["x"] == 1313).any():
        raise ValueError("unlucky")
    return {"prediction": 2 * inputs["x"]}
"""


@pytest.mark.integration
@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("of_file", [RECORDS, 7])
def test_every_record_is_once_in_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, of_file: int
) -> None:
    monkeypatch.setattr(splitting, "_BLOCK", 512)
    (tmp_path / "in").mkdir()
    for start in range(0, RECORDS, of_file):
        records = range(start, min(RECORDS, start + of_file))
        lines = "".join(json.dumps({"x": at}) + "\n" for at in records)
        (tmp_path / "in" / f"{start:04}.jsonl").write_text(lines)
    files = input_files.select(storage.store(str(tmp_path / "in")), (), ())
    plan = planning.make(tmp_path / "in", files, "jsonl", lambda: None, 2000)
    spec = _spec(tmp_path, plan)
    shard.write_spec(spec, tmp_path / "spec.json")

    kills = _run_with_kills(tmp_path / "spec.json", random.Random(seed))

    (tmp_path / "out").mkdir()
    manifest = output_files.put_together(
        tmp_path / "out", plan, spec.folder, "jsonl", {}, lambda: None
    ).manifest
    assert kills >= 2
    assert (manifest["rows"], manifest["failed"]) == (RECORDS, 1)
    for start in range(0, RECORDS, of_file):
        records = range(start, min(RECORDS, start + of_file))
        found = [json.loads(line) for line in (tmp_path / "out" / f"{start:04}.jsonl").open()]
        assert [(start + one["row"], one["prediction"]) for one in found] == [
            (at, 2 * at) for at in records if at != 1313
        ]


def _spec(folder: Path, plan: planning.Plan) -> ShardSpec:
    for name in ("model", "parts"):
        (folder / name).mkdir()
    (folder / "model" / "predictor.py").write_text(CODE)
    command = command_line(sys.executable, folder / "model")
    return ShardSpec(
        plan.pieces(folder / "in"), folder / "parts", folder / "status.json", "jsonl",
        PredictorCommand(command, dict(os.environ)), batch_size=20, seconds=30, most_failed=10,
    )  # fmt: skip


def _run_with_kills(spec: Path, chance: random.Random) -> int:
    """Run a shard again and again until it ends by itself; how often something was killed."""
    kills = 0
    for _ in range(30):
        process = subprocess.Popen([sys.executable, "-m", "tasks.batch_inference.shard", spec])
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0.3, 1.2))
                break
            if kills < 6:
                kills += _kill_one(process.pid, chance)
        if process.returncode == 0:
            return kills
        # 1: its predictor was killed twice while it loaded the model.
        assert process.returncode in {-9, 1}
        time.sleep(0.1)
    raise AssertionError("The shard never ended by itself.")


def _kill_one(shard_pid: int, chance: random.Random) -> int:
    """Kill the shard, whose predictor then sees the end of its input, or its predictor."""
    with contextlib.suppress(psutil.NoSuchProcess):
        of_shard = psutil.Process(shard_pid)
        chance.choice([of_shard, *of_shard.children()]).kill()
        return 1
    return 0
