"""The same flows on a cluster: the small one of the tests, with our worker as it is."""

import json
import re
import time

import pytest
from kfp import dsl, kubernetes

from tests.e2e import cluster_stack
from tests.e2e.stack import ALGORITHMS, flags, wait_for
from tests.infra.storage.server import Server, client_of
from tests.pipelines import corpus

pytestmark = pytest.mark.e2e


_ADD_ACCESS = """
from flows.connection import connected
from infra.storage.accesses import StorageAccess
from registry import storage_accesses
with connected():
    storage_accesses.add(
        StorageAccess("named", ("s3://named",), "http://{host}", key_id="key", secret_key="x")
    )
"""


@dsl.component(base_image=cluster_stack.COMPONENT)
def leave(text: str) -> str:
    import pathlib

    pathlib.Path("/data/note.txt").write_text(text)
    return "left"


@dsl.component(base_image=cluster_stack.COMPONENT)
def take(after: str) -> str:
    import pathlib

    return pathlib.Path("/elsewhere/note.txt").read_text()


@dsl.pipeline(name="shared")
def shared() -> str:
    claim = kubernetes.CreatePVC(
        pvc_name_suffix="-shared", access_modes=["ReadWriteMany"], size="1Gi",
        storage_class_name="usual",
    )  # fmt: skip
    left = leave(text="left in the claim")
    kubernetes.mount_pvc(left, claim.outputs["name"], "/data")
    taken = take(after=left.output)
    kubernetes.mount_pvc(taken, claim.outputs["name"], "/elsewhere")
    kubernetes.DeletePVC(pvc_name=claim.outputs["name"]).after(taken)
    return taken.output


@pytest.fixture
def stack(cluster):
    return cluster


def _runs(stack, run):
    return stack.wait_for_state(run, "RUNNING", timeout=60)


class TestTraining:
    def test_it_runs_in_a_pod_and_comes_out_as_it_does_here(self, stack):
        asked = {"hyperparameters": {"steps": 2}, "metrics": [{"name": "loss"}]}
        run = stack.submit("steps", name="there", **asked)
        found = stack.end_of(run)

        assert found["state"] == "COMPLETE", found["message"]
        assert found["result"]["metrics"] == {"loss": 0.5}
        assert found["result"]["model_uri"] == "models:/there/1"
        assert found["attempts"] == 1
        (job,) = stack.jobs(run)
        assert job["metadata"]["labels"]["modelyard/flow-run"] == run
        pod = job["spec"]["template"]["spec"]
        limits = pod["containers"][0]["resources"]["limits"]
        assert (limits["cpu"], limits["memory"]) == ("2", "8Gi")
        assert "step 1 loss=1.0000" in stack.whole_log_of(run)

    def test_a_named_access_to_storage_is_used(self, stack):
        with Server().running() as server:
            s3 = client_of(server)
            s3.create_bucket(Bucket="named")
            s3.upload_file(str(ALGORITHMS / "steps.py"), "named", "algorithm/steps.py")
            stack.execute(_ADD_ACCESS.format(host=server.host))
            try:
                given = flags("steps", {"algorithm.uri": "s3://named/algorithm"})
                run = stack.do("run", "train", *given, "-p", "output_uri=s3://named/out")
                found = stack.end_of(run["flow_run_id"])
            finally:
                stack.do("storage", "remove", "named")
            assert found["state"] == "COMPLETE", found["message"]
            assert s3.get_object(Bucket="named", Key="out/model.txt")["Body"].read() == b"3 steps"

    def test_no_secret_stands_in_any_object(self, stack):
        canary = stack.endpoints()["MODELYARD_DATABASE_URL"]

        told = json.dumps([*stack.jobs(), *stack.pods()])

        assert canary not in told

    def test_a_script_finds_no_credential_of_the_platform(self, stack):
        secret = [stack.endpoints()["MODELYARD_DATABASE_URL"], *cluster_stack.CANARIES.values()]
        asked = {
            "words": " ".join(one[::-1] for one in secret),
            "folders": "/modelyard /tmp /run/secrets /var/run/secrets",
            "since": cluster_stack.CANARIES_SINCE,
        }

        run = stack.submit("snoops", name="snoops", hyperparameters=asked)

        assert stack.end_of(run)["state"] == "COMPLETE"
        log = stack.whole_log_of(run)
        assert "searched" in log
        assert not re.findall("(?:found in|attached to) .*", log)


class TestRefusals:
    @pytest.mark.parametrize(
        ("asked", "code"),
        [
            ({"datasets": [{"name": "d", "uri": "/tmp"}]}, "PathNotShared"),
            ({"resources": {"instance_type": "gpu.h200"}}, "NodesLackGpu"),
            ({"resources": {"instance_type": "gpu.t4", "nodes": 100}}, "QuotaExceeded"),
        ],
    )
    def test_what_cannot_be_is_refused_before_it_is_made(self, stack, asked, code):
        given = stack.nas("steps", **asked)
        words = [word for key, value in given.items()
                 for word in ("-p", f"{key}={json.dumps(value)}")]  # fmt: skip

        answer = stack.ask("run", "train", *words)

        assert answer.error["code"] == code, answer.out
        if code == "QuotaExceeded":
            assert "100" in answer.error["message"]

    @pytest.mark.soak
    def test_an_image_that_is_not_there_is_named(self, stack):
        run = stack.submit("steps", resources={"image": "nobody/nothing:1"})

        def pulling():  # before, it may wait for its container to be made
            waits = stack.show(run).get("waiting", "")
            return waits if waits.startswith("ImagePull") else None

        assert "nobody/nothing:1" in wait_for(pulling, 30, "that its image is not there")
        stack.do("runs", "stop", run)
        stack.wait_until_gone(run)
        assert stack.show(run)["state"] == "STOPPED"


class TestEnds:
    @pytest.mark.soak
    def test_memory_that_runs_out_is_told(self, stack):
        run = stack.submit("steps", hyperparameters={"steps": 600})
        _runs(stack, run)
        stack.pod_dies("oom", stack.going(run)[0])

        found = stack.end_of(run)

        assert "OOMKilled" in found["message"] or found["detail"] == "OOMKilled"

    def test_an_evicted_run_is_told_and_resumes_from_its_checkpoint(self, stack):
        run = stack.submit(
            "steps", name="evicted", hyperparameters={"steps": 60},
            checkpoint_uri="nas://data:/evicted",
        )  # fmt: skip
        wait_for(lambda: "step 3 " in stack.log_of(run), 60, "the third step")
        stack.pod_dies("evict", stack.going(run)[0])
        found = stack.end_of(run)
        assert found["detail"] == "Evicted", found

        stack.do("runs", "retry", run)
        found = stack.end_of(run, timeout=180)

        assert found["state"] == "COMPLETE", found["message"]
        assert found["attempts"] == 2
        assert "resumed from step" in stack.whole_log_of(run)
        assert len({job["metadata"]["name"] for job in stack.jobs(run)}) == 2

    @pytest.mark.soak
    def test_a_deleted_job_ends_its_run(self, stack):
        run = stack.submit("steps", hyperparameters={"steps": 600})
        _runs(stack, run)
        stack.delete("Job", stack.jobs(run)[0]["metadata"]["name"])

        found = stack.end_of(run)

        assert "Gone" in found["message"] or found["detail"] == "Gone"
        stack.wait_until_gone(run)

    def test_a_stop_is_said_when_the_pod_is_gone(self, stack):
        run = stack.submit("stubborn")
        _runs(stack, run)
        began = time.monotonic()

        stack.do("runs", "stop", run)

        assert stack.show(run)["state"] == "STOPPED"
        assert not stack.going(run)
        assert time.monotonic() - began < 120  # as long as the command waits for it


class TestQueue:
    def test_a_run_whose_gpus_are_in_use_waits_in_a_queue(self, stack):
        asked = {"resources": {"instance_type": "gpu.t4"}}
        holders = [
            stack.submit("steps", hyperparameters={"steps": 600}, **asked) for _ in range(2)
        ]
        for run in holders:
            _runs(stack, run)
        waiting = stack.submit("gpus", **asked)

        def queued():
            told = stack.show(waiting).get("waiting", "")
            return told if told.startswith("Place ") else None

        told = wait_for(queued, 60, "its place in the queue")
        assert told.startswith("Place 1 of 1 in the queue. Unschedulable: No node can take it now")
        assert "Insufficient nvidia.com/gpu" in told
        for run in holders:
            stack.do("runs", "stop", run)
        found = stack.end_of(waiting)
        assert found["state"] == "COMPLETE", found["message"]
        assert found["attempts"] == 1
        (job,) = stack.jobs(waiting)
        pod = job["spec"]["template"]["spec"]
        assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] in {1, "1"}
        assert pod["nodeSelector"] == {"nvidia.com/gpu.product": "Tesla-T4"}
        assert re.search(r"sees \[\d", stack.whole_log_of(waiting))

    @pytest.mark.soak
    def test_an_attempt_that_ends_before_the_run_begins_is_tried_again(self, stack):
        run = stack.submit("steps", hyperparameters={"steps": 1})

        def starts():
            started = [
                pod["metadata"]["name"] for pod in stack.pods(run)
                if pod.get("status", {}).get("phase") == "Running"
            ]  # fmt: skip
            return started[0] if started else None

        stack.pod_dies("evict", wait_for(starts, 60, "its container to have started"))
        found = stack.end_of(run)

        assert found["state"] == "COMPLETE", found["message"]
        assert found["attempts"] == 2
        (reason,) = found["retried"]
        assert reason.startswith("Evicted: ")
        assert "It is tried again (1 of 3)" in stack.whole_log_of(run)


def test_the_doctor_is_content_with_it(stack):
    checks = {check["name"]: check for check in stack.do("doctor")}

    for pool in ("pool gpu", "pool cpu"):
        assert checks[pool]["result"] == "ok", checks[pool]
    assert {name for name, one in checks.items() if one["result"] == "failed"} == set()


class TestFaults:
    def test_a_worker_that_is_killed_costs_no_run(self, stack):
        run = stack.submit("steps", hyperparameters={"steps": 100})
        _runs(stack, run)
        stack.kill_worker()
        waiting = stack.submit("steps", hyperparameters={"steps": 1})
        stack.start_worker()

        assert stack.end_of(run)["state"] == "COMPLETE"
        assert stack.end_of(waiting)["state"] == "COMPLETE"
        assert stack.show(run)["attempts"] == 1
        assert len(stack.jobs(run)) == 1

    @pytest.mark.soak
    def test_of_two_workers_each_run_has_one_and_the_second_takes_over(self, stack):
        stack.start_worker()
        runs = [stack.submit("steps", hyperparameters={"steps": 400}) for _ in range(3)]
        for run in runs:
            _runs(stack, run)
        stack.kill_worker()
        stack.delete("Job", stack.jobs(runs[0])[0]["metadata"]["name"])
        stack.pod_dies("oom", stack.going(runs[1])[0])
        stack.do("runs", "stop", runs[2])

        ends = [stack.end_of(run) for run in runs]

        assert [one["detail"] for one in ends] == ["Gone", "OOMKilled", ""], ends
        assert ends[2]["state"] == "STOPPED"
        assert [one["attempts"] for one in ends] == [1, 1, 1]
        assert [len(stack.jobs(run)) for run in runs[1:2]] == [1]
        assert not any(stack.going(run) for run in runs)

    @pytest.mark.soak
    def test_a_cluster_that_is_away_for_a_while_costs_no_run(self, stack):
        run = stack.submit("steps", hyperparameters={"steps": 100})
        _runs(stack, run)
        stack.outage(15)
        waiting = stack.submit("steps", hyperparameters={"steps": 1})

        assert stack.end_of(run)["state"] == "COMPLETE"
        assert stack.end_of(waiting)["state"] == "COMPLETE"
        assert len(stack.jobs(run)) == len(stack.jobs(waiting)) == 1


@pytest.mark.soak
def test_a_tunings_trials_are_runs_of_their_own(stack):
    asked = stack.nas(
        "trial", strategy="random", max_trials=2, parallel_trials=2, dispatch="pool",
        parameters=[{"name": "x", "type": "double", "min": 0, "max": 1}],
        metrics=[{"name": "loss"}], objective={"metric": "loss", "direction": "minimize"},
    )  # fmt: skip
    words = [w for key, value in asked.items() for w in ("-p", f"{key}={json.dumps(value)}")]

    answer = stack.ask("run", "tune", "--watch", *words, timeout=540)

    assert answer.code == 0, answer.out
    assert answer.json["state"] == "COMPLETE"
    assert [one["state"] for one in answer.json["result"]["trials"]] == ["SUCCEEDED"] * 2
    made = {job["metadata"]["labels"]["modelyard/flow"] for job in stack.jobs()}
    assert {"tune", "train"} <= made


@pytest.mark.soak
def test_a_schedules_runs_are_pods(stack):
    asked = stack.nas("steps", hyperparameters={"steps": 1})
    words = [w for key, value in asked.items() for w in ("-p", f"{key}={json.dumps(value)}")]
    stack.do("schedule", "create", "often", "train", "--interval", "5", *words)

    def slots():
        rows = stack.do("schedule", "show", "often", "--last", "10")["slots"]
        return next((row for row in rows if row["fate"] == "created"), None)

    slot = wait_for(slots, 60, "a slot with a run")
    stack.do("schedule", "stop", "often")
    run = slot["run"]

    assert stack.end_of(run)["state"] == "COMPLETE"
    labels = stack.jobs(run)[0]["metadata"]["labels"]
    assert labels["modelyard/schedule"]
    assert labels["modelyard/slot"]


class TestPipelines:
    def test_a_file_is_run_as_it_is_here(self, stack, tmp_path):
        file = tmp_path / "adding.yaml"
        file.write_bytes(corpus.compiled("adding"))
        machines = ("--instance-type", "cpu.small", "--boot-storage-gib", "1")
        answer = stack.ask("pipeline", "run", str(file), "-p", "a=30", *machines, timeout=500)

        assert answer.code == 0, answer.out + answer.err
        assert answer.json["outputs"] == {"Output": 37}
        assert [one["state"] for one in answer.json["tasks"]] == ["SUCCEEDED"] * 2
        run = answer.json["flow_run_id"]
        parts = [job["metadata"]["labels"]["modelyard/part"] for job in stack.jobs(run)]
        assert parts.count("run") == 1
        stack.wait_until_gone(run)

    @pytest.mark.soak
    def test_claims_are_those_of_the_cluster(self, stack, tmp_path):
        file = tmp_path / "shared.yaml"
        file.write_bytes(corpus.compile_function(shared))
        answer = stack.ask("pipeline", "run", str(file), timeout=250)

        assert answer.code == 0, answer.out + answer.err
        assert answer.json["outputs"] == {"Output": "left in the claim"}
        assert stack.claims() == []
