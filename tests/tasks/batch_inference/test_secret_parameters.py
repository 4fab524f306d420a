"""Parameters of a model in its predictor, and where they are not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from tasks.batch_inference.planning import PlannedPiece
from tasks.batch_inference.predictor_client import PredictorCommand, command_line
from tasks.batch_inference.shard import SECRETS, ShardSpec, read_status, write_spec
from tasks.batch_inference.splitting import split

TOKEN = "correct-horse-battery"
CODE = """
import os, sys
from pathlib import Path
import numpy as np
def load(model_dir, parameters):
    print("loading with", parameters["hf_token"], os.environ["HF_TOKEN"], flush=True)
    sys.stderr.write("no line end: " + parameters["hf_token"])
    return [parameters, sys.argv[1:], os.environ["HF_TOKEN"], os.environ["IS_LARGE"]]
def predict(inputs, model):
    if inputs["x"][0] < 0:
        raise ValueError("refused: " + model[2])
    line = Path("/proc/self/cmdline").read_text()
    same = model[0] == {"hf_token": model[2], "isLarge": model[3]}
    same &= model[1] == ["--hf_token", model[2], "--isLarge", "true"]
    return {"prediction": np.array([model[2] in line]), "is_same": np.array([same])}
"""


@pytest.fixture
def spec(tmp_path: Path) -> ShardSpec:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "predictor.py").write_text(CODE)
    file = tmp_path / "a.jsonl"
    file.write_text('{"x": 1}\n{"x": -1}\n')
    (tmp_path / "parts").mkdir()
    return ShardSpec(
        [PlannedPiece(0, file, part) for part in split(file, "jsonl", 99)],
        tmp_path / "parts", tmp_path / "status.json", "jsonl",
        PredictorCommand(
            command_line(sys.executable, tmp_path / "model"), dict(os.environ),
            parameters={"hf_token": "secret:mine", "isLarge": True},
        ),
        batch_size=1, seconds=60, most_failed=9,
    )  # fmt: skip


def test_a_secret_reaches_the_model_alone(spec: ShardSpec, tmp_path: Path) -> None:
    write_spec(spec, tmp_path / "spec.json")

    ended = subprocess.run(
        [sys.executable, "-m", "tasks.batch_inference.shard", str(tmp_path / "spec.json")],
        env={**os.environ, SECRETS: json.dumps({"hf_token": TOKEN})},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip

    assert ended.returncode == 0, ended.stderr
    assert "loading with *** ***\nno line end: ***" in ended.stderr
    results = (tmp_path / "parts" / "00000000.results.jsonl").read_text()
    assert orjson.loads(results) == {"row": 0, "prediction": False, "is_same": True}
    errors = (tmp_path / "parts" / "00000000.errors.jsonl").read_text()
    assert orjson.loads(errors) == {"row": 1, "error": "ValueError: refused: ***"}
    assert read_status(spec.status)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]
