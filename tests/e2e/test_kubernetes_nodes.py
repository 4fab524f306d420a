"""Trainings that are spread over several pods of a cluster."""

import pytest

from tests.e2e.stack import wait_for

pytestmark = pytest.mark.e2e


@pytest.fixture
def stack(cluster):
    return cluster


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
    log = stack.whole_log_of(run)
    for rank in range(4):
        assert f"[node {rank // 2}] rank={rank} world_size=4 all_reduce=10" in log


def test_one_nodes_death_ends_all_with_its_reason(stack):
    run = stack.submit("ranks", resources={"nodes": 2}, hyperparameters={"dies": 1, "how": "exit"})
    found = stack.end_of(run, timeout=180)

    assert found["state"] == "FAIL TRAIN"
    assert found["message"].startswith("ScriptFailed: ")
    assert "on node 1 (exit code 5)" in found["message"]
    assert [(one["rank"], one["state"]) for one in found["nodes"]] == [
        (0, "FAILED"),
        (1, "FAILED"),
    ]
    assert len({one["pod"] for one in found["nodes"]}) == 2
    stack.wait_until_gone(run)


@pytest.mark.soak
def test_a_gang_that_is_not_complete_says_what_it_waits_for(stack):
    run = stack.submit("steps", resources={"nodes": 3, "instance_type": "gpu.t4"})

    def waits():
        told = stack.show(run).get("waiting", "")
        return told if "2 of 3 nodes have started" in told else None

    assert "Insufficient nvidia.com/gpu" in wait_for(waits, 60, "that it waits for its third")
    stack.do("runs", "stop", run)
    stack.wait_until_gone(run)
