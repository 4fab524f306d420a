"""What batch inference costs per record, beside one process that predicts the same files at once.

Ours is a shard with its predictor; the peer reads the same files, calls the same model's
``predict`` and ``predict_proba`` on the same batches, and writes the same records. Processor time
counts, of all processes, the start of Python and the loading of the model included.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import Calm
from benchmarks.results import Comparison
from infra import storage
from tasks.batch_inference import input_files, planning, shard
from tasks.batch_inference.predictor_client import PredictorCommand, command_line
from tasks.batch_inference.shard import ShardSpec

REPETITIONS = 5
RECORDS = 1_000_000
FEATURES = 10
BATCH = 1000
_SECONDS = 600.0

# The peer: what somebody would write who has one model and a folder of JSON Lines.
_PEER = """
import itertools, sys
import joblib, numpy as np, orjson, pandas as pd
model = joblib.load(sys.argv[1])
with open(sys.argv[2], "rb") as source, open(sys.argv[3], "wb") as target:
    row = 0
    while lines := list(itertools.islice(source, int(sys.argv[4]))):
        data = pd.DataFrame([orjson.loads(line) for line in lines])[list(model.feature_names_in_)]
        found = zip(model.predict(data).tolist(), model.predict_proba(data).tolist())
        for row, (prediction, probabilities) in enumerate(found, row):
            record = {"row": row, "prediction": prediction, "probabilities": probabilities}
            target.write(orjson.dumps(record) + b"\\n")
        row += 1
"""


def _linear() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression()


def _forest() -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(100, max_depth=8, random_state=0)


def _network() -> Any:
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier((64, 32), max_iter=20, random_state=0)


_MODELS: dict[str, tuple[Callable[[], Any], int]] = {
    "linear model": (_linear, RECORDS),
    "forest of 100": (_forest, RECORDS // 8),
    "small network": (_network, RECORDS),
}


def _make(folder: Path, estimator: Any, records: int) -> None:
    import joblib
    import pandas as pd

    rows = np.random.default_rng(0).normal(size=(2000, FEATURES))
    names = [f"feature_{at}" for at in range(FEATURES)]
    fitted = estimator.fit(pd.DataFrame(rows, columns=names), rows.sum(axis=1) > 0)
    for name in ("model", "in", "parts"):
        (folder / name).mkdir()
    joblib.dump(fitted, folder / "model" / "model.joblib")
    texts = [json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows.tolist()]
    with (folder / "in" / "a.jsonl").open("w") as file:
        for at in range(records):
            file.write(texts[at % len(texts)])


def _specify(folder: Path) -> Path:
    files = input_files.select(storage.store(str(folder / "in")), (), ())
    plan = planning.make(folder / "in", files, "jsonl", lambda: None)
    command = command_line(sys.executable, folder / "model")
    spec = ShardSpec(
        plan.pieces(folder / "in"), folder / "parts", folder / "status.json", "jsonl",
        PredictorCommand(command, _environment()), BATCH, _SECONDS, 0,
    )  # fmt: skip
    shard.write_spec(spec, folder / "spec.json")
    return folder / "spec.json"


def _environment() -> dict[str, str]:
    """One thread on either side: how many there are is not what is measured."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _cpu_seconds(command: list[str]) -> float:
    """Processor seconds of a command and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        command, check=True, timeout=_SECONDS, stderr=subprocess.DEVNULL,
        env=_environment(),
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _compare(
    what: str, make: Callable[[], Any], records: int, repetitions: int, calm: Calm
) -> Comparison:
    ours, peer = [], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _make(folder, make(), records)
        spec = str(_specify(folder))
        for _ in range(repetitions):
            calm.wait()
            for done in (folder / "parts").iterdir():
                done.unlink()
            seconds = _cpu_seconds([sys.executable, "-m", "tasks.batch_inference.shard", spec])
            ours.append(1e6 * seconds / records)
            seconds = _cpu_seconds(
                [sys.executable, "-c", _PEER, str(folder / "model" / "model.joblib"),
                 str(folder / "in" / "a.jsonl"), str(folder / "out"), str(BATCH)]
            )  # fmt: skip
            peer.append(1e6 * seconds / records)
    return Comparison(
        f"a record's batch inference, {what}", "µs of a core", ours, peer,
        "one process, vectorised", "≥ 0.8 of its records per core", 1.25 * float(np.median(peer)),
    )  # fmt: skip


def measure(repetitions: int, calm: Calm) -> list[Comparison]:
    """Predict the same files on either side, with each kind of model."""
    return [
        _compare(what, make, records, repetitions, calm)
        for what, (make, records) in _MODELS.items()
    ]
