"""Jobs and claims, as their controllers keep them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.cluster import job_decisions
from tests.cluster.small import Small, cluster, needs_root, run

pytestmark = [needs_root, pytest.mark.soak]

INDEXED = {"completionMode": "Indexed", "completions": 2, "parallelism": 2}
FIRST = {"successPolicy": {"rules": [{"succeededIndexes": "0"}]}}


async def _finished(small: Small, name: str) -> dict[str, Any]:
    """The conditions of a Job when it has ended."""
    await small.until(lambda: {"Complete", "Failed"} & set(small.conditions(name, "Job")))
    return small.conditions(name, "Job")


def test_a_job_s_pod_is_its_own_and_its_success_completes_it() -> None:
    async def test() -> None:
        async with cluster() as small:
            job = small.job("one", "echo done")
            held = await _finished(small, "one")

            assert list(held) == ["SuccessCriteriaMet", "Complete"]
            assert held["Complete"]["reason"] == "CompletionsReached"
            status = small.status("one", "Job")
            assert (status["succeeded"], status.get("failed"), status.get("active")) == (
                1,
                None,
                None,
            )
            assert status["startTime"] <= status["completionTime"]
            (pod,) = small.pods_of("one")
            meta = pod["metadata"]
            assert meta["name"].startswith("one-")
            assert meta["ownerReferences"][0]["uid"] == job["metadata"]["uid"]
            assert meta["labels"]["batch.kubernetes.io/controller-uid"] == job["metadata"]["uid"]
            assert small.events("one")["SuccessfulCreate"] == f"Created pod: {meta['name']}"
            assert small.events("one")["Completed"] == "Job completed"

    run(test)


def test_pods_of_an_indexed_job_know_their_index() -> None:
    async def test() -> None:
        async with cluster() as small:
            small.job("gang", "echo $JOB_COMPLETION_INDEX; hostname", **INDEXED)
            await _finished(small, "gang")

            assert small.status("gang", "Job")["completedIndexes"] == "0,1"
            pods = sorted(small.pods_of("gang"), key=lambda pod: pod["metadata"]["name"])
            for index, pod in enumerate(pods):
                meta = pod["metadata"]
                assert meta["name"].startswith(f"gang-{index}-")
                assert meta["annotations"][job_decisions.INDEX] == str(index)
                assert meta["labels"][job_decisions.INDEX] == str(index)
                assert await small.said(meta["name"]) == f"{index}\ngang-{index}\n"

    run(test)


def test_a_success_policy_ends_the_other_pods_and_then_the_job() -> None:
    async def test() -> None:
        async with cluster() as small:
            script = 'test "$JOB_COMPLETION_INDEX" = 0 || sleep 60'
            small.job("gang", script, **INDEXED, **FIRST)
            await small.until(lambda: "SuccessCriteriaMet" in small.conditions("gang", "Job"))
            held = await _finished(small, "gang")

            assert held["SuccessCriteriaMet"]["reason"] == "SuccessPolicy"
            assert "Complete" in held
            assert small.status("gang", "Job")["completedIndexes"] == "0"
            assert [pod["status"]["phase"] for pod in small.pods_of("gang")] == ["Succeeded"]

    run(test)


def test_a_gang_with_a_failed_member_fails_whole() -> None:
    async def test() -> None:
        async with cluster() as small:
            small.job("gang", 'test "$JOB_COMPLETION_INDEX" = 0 && sleep 60', **INDEXED, **FIRST)
            held = await _finished(small, "gang")

            assert list(held) == ["FailureTarget", "Failed"]
            assert held["Failed"]["reason"] == "BackoffLimitExceeded"
            assert held["Failed"]["message"] == "Job has reached the specified backoff limit"
            assert small.status("gang", "Job").get("active") is None
            assert len(small.pods_of("gang")) == 1  # the deleted one is gone
            assert small.events("gang")["BackoffLimitExceeded"]

    run(test)


def test_failed_pods_are_replaced_as_often_as_is_allowed() -> None:
    async def test() -> None:
        async with cluster() as small:
            small.job("again", "exit 1", backoffLimit=2)
            await _finished(small, "again")

            assert small.status("again", "Job")["failed"] == 3
            assert len(small.pods_of("again")) == 3

    run(test)


def test_a_deleted_pod_has_failed() -> None:
    async def test() -> None:
        async with cluster() as small:
            small.job("lost", "sleep 60")
            await small.until(lambda: small.status("lost", "Job").get("ready"))
            small.store.delete(
                "Pod", "default", small.pods_of("lost")[0]["metadata"]["name"], grace=0
            )
            held = await _finished(small, "lost")

            assert held["Failed"]["reason"] == "BackoffLimitExceeded"
            assert small.status("lost", "Job")["failed"] == 1

    run(test)


def test_a_pod_is_replaced_late_where_the_job_says_so() -> None:
    async def test() -> None:
        async with cluster() as small:
            deaf = {"terminationGracePeriodSeconds": 30}
            for name, policy in (("early", "TerminatingOrFailed"), ("late", "Failed")):
                small.job(name, "trap '' TERM; while :; do sleep 0.1; done", backoffLimit=5,
                          podReplacementPolicy=policy, pod=deaf)  # fmt: skip
                await small.until(lambda name=name: small.status(name, "Job").get("ready"))
                first = small.pods_of(name)[0]["metadata"]["name"]
                small.store.delete("Pod", "default", first)
                await small.until(lambda name=name: small.status(name, "Job").get("terminating"))

            await small.until(lambda: len(small.pods_of("early")) == 2)
            assert len(small.pods_of("late")) == 1
            small.store.delete(
                "Pod", "default", small.pods_of("late")[0]["metadata"]["name"], grace=0
            )
            await small.until(lambda: small.status("late", "Job").get("failed") == 1)
            await small.until(lambda: len(small.pods_of("late")) == 1)

    run(test)


def test_a_job_fails_at_its_deadline() -> None:
    async def test() -> None:
        async with cluster() as small:
            small.job("slow", "sleep 60", activeDeadlineSeconds=1)
            held = await _finished(small, "slow")

            assert held["Failed"]["reason"] == "DeadlineExceeded"
            assert held["Failed"]["message"] == "Job was active longer than specified deadline"
            assert small.pods_of("slow") == []

    run(test)


def test_a_finished_job_goes_after_its_time_with_its_pods() -> None:
    async def test() -> None:
        async with cluster() as small:
            small.job("short", ttlSecondsAfterFinished=0)
            small.job("kept")
            await _finished(small, "kept")
            await small.until(lambda: small.find("Job", "short") is None)
            await small.until(lambda: small.pods_of("short") == [])

            assert small.find("Job", "kept") is not None

    run(test)


def test_a_suspended_job_has_no_pods() -> None:
    async def test() -> None:
        async with cluster() as small:
            small.job("paused", "echo ran", suspend=True)
            await small.until(lambda: "Suspended" in small.conditions("paused", "Job"))
            assert small.pods_of("paused") == []
            assert "startTime" not in small.status("paused", "Job")

            small.store.patch("Job", "default", "paused", {"spec": {"suspend": False}})
            held = await _finished(small, "paused")
            assert held["Suspended"]["status"] == "False"
            assert "Complete" in held

    run(test)


def test_a_failure_policy_decides_by_exit_code_and_disruption() -> None:
    async def test() -> None:
        async with cluster() as small:
            policy = {"rules": [
                {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}},
                {"action": "Ignore", "onPodConditions": [
                    {"type": "DisruptionTarget", "status": "True"}]},
            ]}  # fmt: skip
            small.job("fatal", "exit 42", backoffLimit=5, podFailurePolicy=policy)
            small.job("evicted", "sleep 60", podFailurePolicy=policy)
            await small.until(lambda: small.status("evicted", "Job").get("ready"))
            first = small.pods_of("evicted")[0]["metadata"]
            small.trouble.evict("default", first["name"])

            held = await _finished(small, "fatal")
            assert held["Failed"]["reason"] == "PodFailurePolicy"
            assert "has exit code 42 matching FailJob rule at index 0" in held["Failed"]["message"]
            await small.until(lambda: len(small.pods_of("evicted")) == 2)
            assert small.status("evicted", "Job").get("failed") is None

    run(test)


def test_pods_of_a_deleted_job_go_with_it() -> None:
    async def test() -> None:
        async with cluster() as small:
            small.job("gone", "sleep 60")
            await small.until(lambda: small.status("gone", "Job").get("ready"))
            small.store.delete("Job", "default", "gone", propagation="Foreground")
            await small.until(lambda: small.find("Job", "gone") is None)

            assert small.pods_of("gone") == []

    run(test)


def _claim(name: str, kind: str) -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {"metadata": {"name": name}, "spec": {**spec, "storageClassName": kind}}


def test_claims_of_known_classes_become_folders_that_last() -> None:
    async def test() -> None:
        async with cluster() as small:
            small.store.create(
                "StorageClass", {"metadata": {"name": "disk"}, "provisioner": "x/y"}
            )
            small.store.create("PersistentVolumeClaim", _claim("data", "disk"))
            small.store.create("PersistentVolumeClaim", _claim("never", "nobody"))
            volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]
            mounts = {"volumeMounts": [{"name": "v", "mountPath": "/data"}]}
            await small.told("write", "echo kept >/data/f", container=mounts, volumes=volumes)
            assert (
                await small.told("read", "cat /data/f", container=mounts, volumes=volumes)
                == "kept\n"
            )

            assert small.status("never", "PersistentVolumeClaim")["phase"] == "Pending"
            told = small.events("never")["ProvisioningFailed"]
            assert told == 'storageclass.storage.k8s.io "nobody" not found'
            folder = small.nodes.claim("default", "data")
            assert (folder / "f").exists()
            small.store.delete("PersistentVolumeClaim", "default", "data")
            async with asyncio.timeout(10):
                while folder.exists():
                    await asyncio.sleep(0.01)

    run(test)


def test_an_ephemeral_volume_is_a_claim_that_goes_with_its_pod() -> None:
    async def test() -> None:
        async with cluster() as small:
            small.store.create("StorageClass", {
                "metadata": {"name": "late"}, "provisioner": "x/y",
                "volumeBindingMode": "WaitForFirstConsumer",
            })  # fmt: skip
            template = {"spec": _claim("", "late")["spec"]}
            volumes = [{"name": "v", "ephemeral": {"volumeClaimTemplate": template}}]
            mounts = {"volumeMounts": [{"name": "v", "mountPath": "/data"}]}
            await small.told(
                "own", "echo x >/data/f && cat /data/f", container=mounts, volumes=volumes
            )
            assert small.status("own-v", "PersistentVolumeClaim")["phase"] == "Bound"

            small.store.delete("Pod", "default", "own")
            await small.until(lambda: small.find("PersistentVolumeClaim", "own-v") is None)

    run(test)


def test_indexes_are_written_as_they_are_read() -> None:
    assert job_decisions.indexes("0,2-4,7") == [0, 2, 3, 4, 7]
    assert job_decisions.written([7, 0, 2, 3, 4]) == "0,2-4,7"
    assert job_decisions.written([0, 1]) == "0,1"
