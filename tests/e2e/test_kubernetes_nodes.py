"""Trainings that are spread over several pods of a cluster."""

import json

import pytest

from tests.e2e import cluster_stack

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def stack():
    with cluster_stack.running(pending_minutes=0.5) as made:
        yield made


def test_torchrun_on_two_pods(stack):
    pytest.importorskip("torch")
    run = stack.submit(
        "all_reduce", name="torchrun",
        resources={"nodes": 2, "processes_per_node": 2, "torchrun": True},
        metrics=[{"name": "all_reduce"}, {"name": "world_size"}],
    )  # fmt: skip
    found = stack.end_of(run, timeout=180)

    assert found["state"] == "COMPLETE", found["message"]
    assert found["result"]["metrics"] == {"all_reduce": 10, "world_size": 4}
    (job,) = stack.jobs(run)
    assert (job["spec"]["completionMode"], job["spec"]["completions"]) == ("Indexed", 2)
    log = stack.log_of(run)
    for rank in range(4):
        assert f"[node {rank // 2}] rank={rank} world_size=4 all_reduce=10" in log
    stack.wait_until_gone(run)


def test_one_nodes_death_ends_all_with_its_reason(stack):
    pytest.importorskip("torch")
    run = stack.submit(
        "all_reduce", resources={"nodes": 2}, hyperparameters={"dies": 1, "how": "exit"}
    )
    found = stack.end_of(run, timeout=180)

    assert found["state"] == "FAIL TRAIN"
    assert found["message"].startswith("ScriptFailed: ")
    assert "on node 1 (exit code 5)" in found["message"]
    stack.wait_until_gone(run)


def test_a_gang_that_is_not_complete_is_given_up_with_its_reason(stack):
    run = stack.submit("steps", resources={"nodes": 3, "instance_type": "gpu.t4"})
    found = stack.end_of(run, timeout=180)

    assert found["state"] in {"CREATE FAILED", "FAIL TRAIN"}
    told = json.dumps([found["message"], found["detail"]])
    assert "Unschedulable: 2 of 3 nodes have started" in told
    assert "Insufficient nvidia.com/gpu" in told
    stack.wait_until_gone(run)
