"""What the metrics of an evaluation cost, beside scikit-learn on all of the data in memory.

Both sides read the same CSV and the same predictions in JSON Lines, and compute accuracy,
precision, recall, F1, both areas of every class and their means, log loss, the confusion matrix
and the curves. Wall time and the largest resident memory, the start of Python included.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.machine import Calm
from benchmarks.results import Comparison

REPETITIONS = 3
FEATURES = 10
RECORDS = {2: 2_000_000, 50: 200_000}
_SECONDS = 900.0

_OURS = """
import gc, hashlib, sys
from pathlib import Path
from tasks.evaluation import evaluating
from tasks.evaluation.evaluation_request import Evaluation
gc.freeze()  # as in the process of a run
place, classes = Path(sys.argv[1]), int(sys.argv[2])
request = Evaluation(
    model="m/1", input_uri=str(place / "in"), input_format="csv", target_field="target",
    class_names=[f"c{at}" for at in range(classes)], output_uri=str(place / "out"),
)
folders = evaluating.EvaluationFolders(place / "run")
with (place / "out" / "predictions" / "a.jsonl").open("rb") as results:
    checksums = {"a.csv": hashlib.file_digest(results, "sha256").hexdigest()}
predictions = evaluating.PredictedFiles(0, checksums)
found, data = evaluating.score(
    request, evaluating.select(request), folders, predictions, lambda: None, lambda records: None
)
result = evaluating.write(found, {"data": data}, request, folders.output)
print(result["metrics"]["roc_auc"])
"""

# What somebody would write who has one data set that fits in memory.
_PEER = """
import gc, sys
from pathlib import Path
import numpy as np, orjson, pandas as pd
from sklearn import metrics
gc.freeze()
place, classes = Path(sys.argv[1]), int(sys.argv[2])
names = [f"c{at}" for at in range(classes)]
data = pd.read_csv(place / "in" / "a.csv")
targets = pd.Categorical(data["target"], names).codes
answers, scores = [], []
with (place / "out" / "predictions" / "a.jsonl").open("rb") as lines:
    for line in lines:
        record = orjson.loads(line)
        answers.append(record["prediction"])
        scores.append(record["probabilities"])
answers, scores = pd.Categorical(answers, names).codes, np.array(scores)
metrics.accuracy_score(targets, answers)
metrics.confusion_matrix(targets, answers)
for average in (None, "macro", "micro", "weighted"):
    metrics.precision_recall_fscore_support(targets, answers, average=average)
metrics.log_loss(targets, scores, labels=range(classes))
areas = []
for at in range(classes):
    areas.append(metrics.roc_auc_score(targets == at, scores[:, at]))
    metrics.average_precision_score(targets == at, scores[:, at])
    metrics.roc_curve(targets == at, scores[:, at])
    metrics.precision_recall_curve(targets == at, scores[:, at])
every = (targets[:, None] == np.arange(classes)).ravel()
metrics.roc_auc_score(every, scores.ravel())
metrics.average_precision_score(every, scores.ravel())
print(np.mean(areas))
"""


def _make(place: Path, classes: int, records: int) -> None:
    chance = np.random.default_rng(0)
    (place / "in").mkdir()
    (place / "out" / "predictions").mkdir(parents=True)
    with (
        (place / "in" / "a.csv").open("w") as inputs,
        (place / "out" / "predictions" / "a.jsonl").open("w") as outputs,
    ):
        inputs.write(",".join([*(f"f{at}" for at in range(FEATURES)), "target"]) + "\n")
        for first in range(0, records, 10_000):
            rows = chance.normal(size=(10_000, FEATURES)).round(6)
            scores = chance.dirichlet(np.ones(classes), 10_000)
            targets = (scores.cumsum(axis=1) > chance.random((10_000, 1))).argmax(axis=1)
            answers = scores.argmax(axis=1)
            for at in range(10_000):
                inputs.write(",".join(map(str, rows[at].tolist())) + f",c{targets[at]}\n")
                record = {
                    "row": first + at, "prediction": f"c{answers[at]}",
                    "probabilities": scores[at].tolist(),
                }  # fmt: skip
                outputs.write(json.dumps(record, separators=(",", ":")) + "\n")


def _measured(code: str, place: Path, classes: int) -> tuple[float, float, float]:
    """Seconds of a program, the most MiB that were resident, and the area that it printed."""
    began = time.monotonic()
    measuring = (
        "import resource, sys; exec(sys.argv.pop(1)); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", measuring, code, str(place), str(classes)],
        check=True, timeout=_SECONDS, capture_output=True, text=True,
    )  # fmt: skip
    area, kilobytes = done.stdout.split()
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return time.monotonic() - began, int(kilobytes) / unit, float(area)


def _compare(classes: int, records: int, repetitions: int, calm: Calm) -> list[Comparison]:
    ours, peer = [], []
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        _make(place, classes, records)
        for _ in range(repetitions):
            calm.wait()
            ours.append(_measured(_OURS, place, classes))
            peer.append(_measured(_PEER, place, classes))
    for (*_, found), (*_, expected) in zip(ours, peer, strict=True):
        if not np.isclose(found, expected, rtol=0, atol=1e-9):
            raise RuntimeError(f"The areas differ: {found} and {expected}")
    what = f"evaluation of {records:,} records, {classes} classes"
    name = "pandas and scikit-learn"
    return [
        Comparison(
            what, "s", [one[0] for one in ours], [one[0] for one in peer], name
        ),
        Comparison(
            f"{what}, memory", "MiB", [one[1] for one in ours], [one[1] for one in peer], name,
            "below 2 GiB", 2048,
        ),
    ]  # fmt: skip


def measure(repetitions: int, calm: Calm) -> list[Comparison]:
    """Evaluate the same predictions on either side, with few classes and with many."""
    return [
        line
        for classes, records in RECORDS.items()
        for line in _compare(classes, records, repetitions, calm)
    ]
