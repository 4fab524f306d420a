"""Trainings on several nodes and processes, and on GPUs, in the pool of a real stack."""

import json
import re
import subprocess
import urllib.error
import urllib.request

import pytest

from tests.e2e.conftest import gpus_of
from tests.e2e.stack import MODELYARD, flags, wait_for

pytestmark = pytest.mark.e2e

_TORCHRUN = {"nodes": 2, "processes_per_node": 2, "torchrun": True}


def _watched(stack, algorithm, **parameters):
    answer = stack.ask("run", "train", "--watch", *flags(algorithm, parameters))
    return answer.json


def _log(stack, run):
    return (stack.home / "runs" / run / "train.log").read_text()


def test_torchrun_on_two_nodes_with_two_processes_each(stack):
    pytest.importorskip("torch")
    answer = _watched(
        stack, "all_reduce", name="torchrun", resources=_TORCHRUN,
        metrics=[{"name": "all_reduce"}, {"name": "world_size"}],
    )  # fmt: skip

    assert answer["state"] == "COMPLETE"
    assert answer["result"]["metrics"] == {"all_reduce": 10, "world_size": 4}
    said = re.findall(r"\[node (\d)\] rank=(\d) world_size=4 all_reduce=10\n",
                      _log(stack, answer["flow_run_id"]))  # fmt: skip
    assert sorted(said) == [("0", "0"), ("0", "1"), ("1", "2"), ("1", "3")]
    assert answer["result"]["model_uri"] == "models:/torchrun/1"


def test_ranks_without_torchrun(stack):
    answer = _watched(stack, "ranks", resources={"nodes": 3}, metrics=[{"name": "all_reduce"}])

    assert answer["state"] == "COMPLETE"
    assert answer["result"]["metrics"] == {"all_reduce": 6}
    nodes = stack.show(answer["flow_run_id"])["nodes"]
    assert [(one["rank"], one["state"], one["exit_code"]) for one in nodes] == [
        (rank, "COMPLETE", 0) for rank in range(3)
    ]
    run = stack.mlflow("runs/get", run_id=answer["result"]["mlflow_run_id"])["run"]
    used = {one["key"]: one["value"] for one in run["data"]["metrics"]}
    of_nodes = [used[f"system/node-{rank}/cpu_time_seconds"] for rank in range(3)]
    assert min(of_nodes) > 0
    assert used["system/cpu_time_seconds"] == pytest.approx(sum(of_nodes), abs=0.01)


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ("exit", "ScriptFailed", "on node 1 (exit code 5)"),
        ("kill", "OOMKilled", "on node 1 (exit code -9)"),
    ],
)
def test_one_nodes_death_ends_all_with_its_reason(stack, how, code, words):
    answer = _watched(
        stack, "ranks", resources={"nodes": 2}, hyperparameters={"dies": 1, "how": how}
    )

    assert answer["state"] == "FAIL TRAIN"
    assert answer["message"].startswith(f"{code}: ")
    assert words in answer["message"]
    # Its end is told once, and not again as an exception of Prefect's.
    assert not [line for line in _lines(stack, answer["flow_run_id"]) if "RunFailedError" in line]


def test_tensorflow_is_told_of_its_cluster(stack):
    answer = _watched(
        stack, "cluster", resources={"nodes": 2}, metrics=[{"name": "met"}, {"name": "of"}]
    )

    assert answer["state"] == "COMPLETE"
    assert answer["result"]["metrics"] == {"met": 1, "of": 2}
    log = _log(stack, answer["flow_run_id"])
    assert "[node 0] worker 0 of 2 listens\n" in log
    assert "[node 1] worker 1 of 2 listens\n" in log


def test_a_run_that_may_goes_without_gpus(stack):
    answer = _watched(stack, "gpus", resources={"instance_type": "gpu.a100x8", "allow_cpu": True})

    assert answer["state"] == "COMPLETE"
    assert _log(stack, answer["flow_run_id"]) == "sees []\n"


def test_metrics_in_every_way(stack):
    answer = _watched(
        stack,
        "observes",
        experiment="observed",
        metrics=[{"name": "printed"}, {"name": "as_json"}],
    )

    assert answer["result"]["metrics"] == {
        "as_json": 1, "printed": 2, "validation/loss": pytest.approx(1 / 3),
    }  # fmt: skip
    steps = {}
    for metric in ("printed", "as_json", "validation/loss"):
        found = stack.mlflow(
            "metrics/get-history", run_id=answer["result"]["mlflow_run_id"], metric_key=metric
        )
        steps[metric] = [one.get("step", 0) for one in found["metrics"]]
    assert steps == {
        "printed": [0, 1, 2],
        "as_json": [0, 10, 20],
        "validation/loss": [0, 100, 200],
    }

    shows = subprocess.Popen(
        [MODELYARD, "tensorboard", "observed", "--port", "0", "--json"],
        env=stack.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        page = json.loads(shows.stdout.readline())
        assert page["runs"] == 1

        def tags():
            with stack.urlopen(f"{page['url']}data/plugin/scalars/tags") as found:
                return json.load(found)

        found = wait_for(tags, 60, "TensorBoard to have read the logs")
        assert [list(run) for run in found.values()] == [["loss"]]
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(page["url"])
    finally:
        shows.terminate()
        shows.wait(30)
        shows.stdout.close()


def test_two_runs_never_share_a_gpu(spare, tmp_path):
    names = gpus_of(spare)
    until = tmp_path / "until"

    def started(name, **resources):
        asked = {"instance_type": "gpu.t4", **resources}
        return spare.start("gpus", name=name, resources=asked, hyperparameters={"until": until})

    def sees(run):
        log = spare.home / "runs" / run / "train.log"
        return wait_for(
            lambda: re.search(r"sees \[(.*)\]\n", log.read_text()) if log.exists() else None,
            60, f"{run} to begin",
        )[1]  # fmt: skip

    first, second = started("first"), started("second")
    assert {sees(first), sees(second)} == names
    third, fourth = started("third"), started("fourth")
    late = spare.start(
        "gpus", name="late", resources={"instance_type": "gpu.t4"}, max_minutes=0.05
    )
    wait_for(
        lambda: [line for line in _lines(spare, third) if line.startswith("Waiting for a GPU")],
        60, "the third to wait",
    )  # fmt: skip
    assert not (spare.home / "runs" / third / "train.log").exists()
    assert "waited for a GPU" in spare.wait_for_state(late, "TIMED OUT")["message"]
    spare.do("runs", "stop", fourth)
    spare.do("runs", "stop", first)
    assert sees(third) in names
    until.touch()
    for run in (second, third):
        assert spare.wait_for_state(run, "COMPLETE", "FAIL TRAIN")["state"] == "COMPLETE"


def _lines(stack, run):
    asked = {"logs": {"flow_run_id": {"any_": [run]}}}
    return [entry["message"] for entry in stack.prefect("logs/filter", asked)]
