"""Batch inference on a cluster: each shard is a pod."""

import json

import pytest

from tests.serving import fake_server

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


def triton(cluster, name, broken=False):
    """A registered model of Triton's; the name of its version."""
    folder = fake_server.triton_model(cluster.data / name, name)
    if broken:
        (folder / "1" / fake_server.BROKEN).touch()
    cluster.do(
        "model", "create", name, "--uri", f"nas://data:/{name}", "--framework", "onnx-triton"
    )
    return f"{name}/1"


def input_of(cluster, name, records):
    folder = cluster.data / name
    folder.mkdir()
    (folder / "a.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    return {"input_uri": f"nas://data:/{name}", "output_uri": f"nas://data:/{name}-out"}


@pytest.fixture(scope="module")
def served(cluster):
    """Runs of models that a server serves, which go on at once."""
    records = [{"x": at, "name": f"n{at}"} for at in range(100)]
    # One record that the server refuses, and one that ends it: it is started again.
    records[40]["x"], records[50]["x"] = 13, 666
    cluster.do(
        "model", "create", "small", "--framework", "huggingface",
        "--parameter", "model_id=owner/small", "--parameter", "max_model_len=128",
    )  # fmt: skip
    asked = {
        "line": {"model": triton(cluster, "line"), **input_of(cluster, "lines", records)},
        "small": {
            "model": "small/1", "resources.instance_type": "gpu.t4",
            **input_of(cluster, "prompts", [{"prompt": "hi"}, {"prompt": "unlucky"}]),
        },
        "heavy": {
            "model": triton(cluster, "heavy", broken=True),
            **input_of(cluster, "few", [{"x": 1, "name": "a"}]),
        },
    }  # fmt: skip
    return {
        name: cluster.do("run", "batch-inference", *pairs(given))["flow_run_id"]
        for name, given in asked.items()
    }


def test_a_triton_repository_is_served_beside_each_shard(cluster, served):
    found = cluster.wait_for_state(served["line"], "COMPLETE", timeout=180)

    lines = [json.loads(line) for line in (cluster.data / "lines-out" / "a.jsonl").open()]
    rows = [at for at in range(100) if at not in (13, 40, 50)]
    assert [one["row"] for one in lines] == rows
    assert [one["y"] for one in lines] == [[2 * at + 1] for at in rows]
    errors = [json.loads(line) for line in (cluster.data / "lines-out" / "errors.jsonl").open()]
    assert [one["row"] for one in errors] == [13, 40, 50]
    assert errors[0]["error"] == "The server answers 400: unlucky"
    assert errors[2]["error"].startswith("The server ended")
    assert found["result"]["metrics"]["failed"] == 3
    log = cluster.whole_log_of(served["line"])
    assert "Each pod starts triton for the model: nvcr.io/nvidia/tritonserver:" in log
    assert "server: Started HTTPService" in log
    assert "server: Signal (11) received." in log
    assert "The server is ready after" in log


def test_a_language_model_has_the_pod_s_gpus(cluster, served):
    cluster.wait_for_state(served["small"], "COMPLETE", timeout=120)

    (line,) = (cluster.data / "prompts-out" / "a.jsonl").read_text().splitlines()
    assert json.loads(line) == {"row": 0, "prediction": "HI"}
    log = cluster.whole_log_of(served["small"])
    assert "server: vllm serve owner/small --max_model_len=128 --served-model-name=small" in log
    (gpus,) = {line.partition("GPUs: ")[2] for line in log.splitlines() if "GPUs: " in line}
    assert gpus.isdigit()


def test_a_server_that_cannot_load_its_model_has_the_last_word(cluster, served):
    found = cluster.wait_for_state(served["heavy"], "FAIL BATCH INFERENCE", timeout=120)

    assert "has ended before it was ready" in found["message"]
    assert "failed to load 'heavy' version 1: Internal: its weights are broken" in found["message"]
    cluster.wait_until_gone(served["heavy"])
