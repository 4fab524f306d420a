"""Batch inference on a cluster: each shard is a pod."""

import json

import pytest

pytestmark = pytest.mark.e2e

# A predictor that fails where it finds a credential of the platform.
PREDICTOR = """
import os
from pathlib import Path

def load(model_dir, parameters):
    found = [name for name, text in os.environ.items() if "canary" in text]
    for process in Path("/proc").glob("[0-9]*/environ"):
        try:
            found += [process] if b"canary" in process.read_bytes() else []
        except OSError:
            pass
    if found and os.geteuid() != 0:
        raise RuntimeError(f"it has credentials: {found}")
    if any("canary" in text for text in os.environ.values()):
        raise RuntimeError("its environment has credentials")
    return None

def predict(inputs, model):
    return {"prediction": 2 * inputs["x"]}
"""


@pytest.fixture(scope="module")
def model(cluster):
    folder = cluster.data / "doubling"
    folder.mkdir()
    (folder / "predictor.py").write_text(PREDICTOR)
    cluster.do(
        "model", "create", "doubling", "--uri", "nas://data:/doubling", "--framework", "custom"
    )
    return "doubling/1"


def pairs(given):
    return [part for name, value in given.items() for part in ("-p", f"{name}={value}")]


def test_shards_are_pods_with_their_share_of_the_instances(cluster, model):
    source = cluster.data / "numbers"
    source.mkdir()
    for name in ("a", "b"):
        lines = "".join(json.dumps({"x": at}) + "\n" for at in range(100))
        (source / f"{name}.jsonl").write_text(lines)
    given = {
        "model": model, "input_uri": "nas://data:/numbers", "output_uri": "nas://data:/doubled",
        "pods": 2,
    }  # fmt: skip

    run = cluster.do("run", "batch-inference", *pairs(given))["flow_run_id"]

    found = cluster.wait_for_state(run, "COMPLETE", timeout=120)
    manifest = json.loads((cluster.data / "doubled" / "manifest.json").read_text())
    assert (manifest["rows"], manifest["failed"]) == (200, 0)
    lines = [json.loads(line) for line in (cluster.data / "doubled" / "b.jsonl").open()]
    assert lines == [{"row": at, "prediction": 2 * at} for at in range(100)]
    assert found["result"]["metrics"]["records"] == 200
    assert not (cluster.data / "staging" / "runs" / run).exists()
    tracked = cluster.mlflow("runs/get", run_id=found["result"]["mlflow_run_id"])
    used = {one["key"]: one["value"] for one in tracked["run"]["data"]["metrics"]}
    assert used["system/pod-0/cpu_time_seconds"] > 0
    assert used["system/pod-1/cpu_time_seconds"] > 0


def test_pods_that_an_instance_has_no_room_for_are_refused(cluster, model):
    usual = {"model": model, "input_uri": "nas://data:/numbers", "output_uri": "nas://data:/x"}
    for given, code in [
        ({"pods": 40}, "PodsTooSmall"),
        ({"pods": 2, "resources.nodes": 3}, "PodsTooFew"),
        ({"pods": 2, "resources.instance_type": "gpu.t4"}, "PodsExceedGpus"),
    ]:
        answer = cluster.ask("run", "batch-inference", *pairs(usual | given))
        assert answer.code != 0
        assert code in answer.out + answer.err, (given, answer.out, answer.err)
