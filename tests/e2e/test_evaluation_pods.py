"""Model evaluation on a cluster: the evaluation, its batch inference and the shards are pods."""

import json

import numpy as np
import pytest
from sklearn import metrics as oracle

from tests.e2e.stack import wait_for
from tests.e2e.test_batch_inference_pods import pairs

pytestmark = pytest.mark.e2e

_ROWS = 600
# A predictor that waits at the second half of the records until it may go on.
_MODEL = """
import os, time
import numpy as np

def load(model_dir, parameters):
    return os.path.join(model_dir, "go-on")

def predict(inputs, model):
    while inputs["half"][0] == "b" and not os.path.exists(model):
        time.sleep(0.1)
    yes = 1 / (1 + np.exp(-inputs["x"] - inputs["y"]))
    return {"probabilities": np.column_stack([1 - yes, yes])}
"""


@pytest.fixture
def data(cluster):
    """Records on the cluster's NAS, of two files; their scores and true values."""
    chance = np.random.default_rng(11)
    rows = chance.normal(size=(_ROWS, 2))
    labels = np.where(rows.sum(axis=1) + chance.normal(size=_ROWS) > 0, "yes", "no")
    for folder in ("judge", "judged-in"):
        (cluster.data / folder).mkdir()
    (cluster.data / "judge" / "predictor.py").write_text(_MODEL)
    for half, part in zip("ab", np.array_split(np.arange(_ROWS), 2), strict=True):
        lines = [
            json.dumps({"x": x, "y": y, "half": half, "label": label}) + "\n"
            for (x, y), label in zip(rows[part].tolist(), labels[part], strict=True)
        ]
        (cluster.data / "judged-in" / f"{half}.jsonl").write_text("".join(lines))
    cluster.do("model", "create", "judge", "--uri", "nas://data:/judge", "--framework", "custom")
    return 1 / (1 + np.exp(-rows.sum(axis=1))), labels


def test_it_is_killed_stopped_and_retried_until_it_is_complete(cluster, data):
    scores, labels = data
    given = {
        "name": "judged", "model": "judge/1", "input_uri": "nas://data:/judged-in",
        "target_field": "label", "class_names": '["no", "yes"]', "slice_field": "half",
        "output_uri": "nas://data:/judged", "batch.pods": 2, "batch.batch_size": 20,
    }  # fmt: skip
    run = cluster.do("run", "evaluate", *pairs(given))["flow_run_id"]
    staged = cluster.data / "staging" / "runs"
    (summary,) = wait_for(
        lambda: list(staged.glob("*/inference/parts/*/*/*.json")), 60, "the first half"
    )
    child = summary.relative_to(staged).parts[0]
    assert len(cluster.going(child)) == 3  # its own, and a shard's each

    cluster.pod_dies("evict", cluster.going(run)[0])
    found = cluster.wait_for_state(run, "FAIL MODEL EVALUATION", timeout=60)
    assert found["detail"] == "Evicted"
    assert cluster.show(child)["state"] == "RUNNING"
    cluster.do("runs", "retry", run)
    cluster.wait_for_state(run, "RUNNING", timeout=60)
    cluster.do("runs", "stop", run)
    assert not cluster.going(run)  # of its batch inference there may be, which a retry awaits
    (cluster.data / "judge" / "go-on").touch()
    cluster.do("runs", "retry", run)
    found = cluster.wait_for_state(run, "COMPLETE", timeout=90)

    assert found["attempts"] == 3
    metrics = found["result"]["metrics"]
    assert metrics["roc_auc/yes"] == pytest.approx(oracle.roc_auc_score(labels == "yes", scores))
    assert metrics["log_loss"] == pytest.approx(
        oracle.log_loss(labels, y_proba=np.column_stack([1 - scores, scores]))
    )
    result = json.loads((cluster.data / "judged" / "evaluation" / "result.json").read_text())
    said = np.where(scores > 0.5, "yes", "no")
    for half, part in zip("ab", np.array_split(np.arange(_ROWS), 2), strict=True):
        expected = oracle.accuracy_score(labels[part], said[part])
        assert result["slices"][half]["metrics"]["accuracy"] == pytest.approx(expected)
    assert result["batch_inference"] == child
    assert not (staged / child).exists()
    cluster.do("runs", "delete", run)
    assert cluster.ask("runs", "show", child).code != 0
