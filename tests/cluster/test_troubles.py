"""What goes wrong in the small cluster looks as it does in a real one."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import sys
from typing import Any

import pytest

from tests.cluster.kubelet import NodeShape
from tests.cluster.small import IMAGE, Small, cluster, needs_root, run
from tests.cluster.troubles import NotRunning
from tests.processes import runs

pytestmark = [needs_root, pytest.mark.soak]
DEAF = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
PYTHON = dataclasses.replace(IMAGE, holds=(sys.prefix, sys.base_prefix))


def _waits(small: Small, name: str, reason: str) -> bool:
    return bool(small.state(name).get("waiting", {}).get("reason") == reason)


async def _said(small: Small, name: str, word: str) -> None:
    """Waits until a pod has said something."""
    await small.phase(name, "Running")
    pod = small.store.read("Pod", "default", name)
    async for line in small.nodes.logs(pod, "", {"follow": True}):
        if word in line.decode():
            return


def test_an_image_that_nobody_has_is_asked_for_again_and_again() -> None:
    async def test() -> None:
        async with cluster() as small:
            small.pod("none", container={"image": "none/such:1"})
            small.pod("odd", container={"image": "Bad Name"})
            small.pod("never", container={"image": "none/such:1", "imagePullPolicy": "Never"})

            await small.until(lambda: _waits(small, "none", "ImagePullBackOff"))
            told = small.state("none")["waiting"]["message"]
            assert told.startswith('Back-off pulling image "none/such:1": ErrImagePull: rpc error')
            assert "docker.io/none/such:1: not found" in told
            await small.until(lambda: _waits(small, "odd", "InvalidImageName"))
            await small.until(lambda: _waits(small, "never", "ErrImageNeverPull"))
            assert small.status("none")["phase"] == "Pending"
            counts = [one["count"] for one in small.store.list("Event", "default")
                      if one["reason"] == "BackOff"]  # fmt: skip
            assert counts[0] >= 1

    run(test)


def test_a_private_image_needs_the_right_secret() -> None:
    def login(password: str) -> dict[str, Any]:
        auth = base64.b64encode(f"me:{password}".encode()).decode()
        text = json.dumps({"auths": {"registry.local": {"auth": auth}}})
        data = {".dockerconfigjson": base64.b64encode(text.encode()).decode()}
        return {"type": "kubernetes.io/dockerconfigjson", "data": data}

    async def test() -> None:
        image = dataclasses.replace(IMAGE, login=("me", "right"))
        async with cluster(images={"registry.local/a:1": image}) as small:
            for name in ("right", "wrong"):
                small.store.create("Secret", {"metadata": {"name": name}, **login(name)})
                small.pod(name, container={"image": "registry.local/a:1"},
                          imagePullSecrets=[{"name": name}])  # fmt: skip
            assert (await small.ended("right"))["phase"] == "Succeeded"
            await small.until(lambda: _waits(small, "wrong", "ImagePullBackOff"))
            assert "authorization failed" in small.state("wrong")["waiting"]["message"]

    run(test)


def test_a_registry_that_is_down_comes_back() -> None:
    async def test() -> None:
        async with cluster() as small:
            small.trouble.break_image("shell:1", "dial tcp: i/o timeout")
            small.pod("waits")
            await small.until(lambda: _waits(small, "waits", "ImagePullBackOff"))
            assert "i/o timeout" in small.state("waits")["waiting"]["message"]

            small.trouble.mend_image("shell:1")
            assert (await small.ended("waits"))["phase"] == "Succeeded"

    run(test)


def test_a_pod_that_is_still_pulling_goes_when_it_is_deleted() -> None:
    async def test() -> None:
        async with cluster() as small:
            small.trouble.slow_image("shell:1", 600)
            small.pod("pulls")
            await small.until(lambda: small.events("pulls").get("Pulling"))
            assert _waits(small, "pulls", "ContainerCreating")

            small.store.delete("Pod", "default", "pulls")
            await small.until(lambda: small.find("Pod", "pulls") is None)

    run(test)


def test_a_container_with_too_much_memory_is_killed() -> None:
    async def test() -> None:
        async with cluster(images={"python:1": PYTHON}) as small:
            code = "import time; a = b'x' * 200_000_000; time.sleep(60)"
            limits = {"resources": {"limits": {"memory": "100Mi"}}}
            small.pod("eats", container={
                "image": "python:1", "command": [sys.executable, "-c", code], **limits,
            })  # fmt: skip
            small.pod("told", "sleep 60")
            assert (await small.ended("eats"))["phase"] == "Failed"
            await small.phase("told", "Running")
            small.trouble.out_of_memory("default", "told")
            await small.ended("told")

            for name in ("eats", "told"):
                ended = small.state(name)["terminated"]
                assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)

    run(test)


def test_a_pod_is_evicted_for_its_storage_or_on_request() -> None:
    async def test() -> None:
        async with cluster() as small:
            fill = "head -c 3000000 /dev/zero >{}/file; sleep 60"
            mounts = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
            small.pod("volume", fill.format("/v"), container=mounts,
                      volumes=[{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}])  # fmt: skip
            limits = {"resources": {"limits": {"ephemeral-storage": "1Mi"}}}
            small.pod("own", fill.format("/tmp"), container=limits)
            small.pod("asked", "sleep 60")
            await small.phase("asked", "Running")
            small.trouble.evict("default", "asked")

            for name, told in (
                ("volume", 'Usage of EmptyDir volume "v" exceeds the limit "1Mi". '),
                ("own", 'Container run exceeded its local ephemeral storage limit "1Mi". '),
                ("asked", "The node was low on resource: memory. "),
            ):
                status = await small.ended(name)
                assert (status["phase"], status["reason"]) == ("Failed", "Evicted")
                assert status["message"] == small.events(name)["Evicted"] == told
                held = small.conditions(name)["DisruptionTarget"]
                assert held["reason"] == "TerminationByKubelet"
                assert small.state(name)["terminated"]["exitCode"] == 137

    run(test)


def test_a_pod_ends_at_its_own_deadline() -> None:
    async def test() -> None:
        async with cluster() as small:
            small.pod("late", "sleep 60", activeDeadlineSeconds=1, terminationGracePeriodSeconds=0)
            status = await small.ended("late")

            assert (status["phase"], status["reason"]) == ("Failed", "DeadlineExceeded")

    run(test)


def test_a_deleted_pod_is_asked_first_and_ended_after_its_grace() -> None:
    async def test() -> None:
        async with cluster() as small:
            polite = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
            small.pod("polite", polite, terminationGracePeriodSeconds=60)
            small.pod("deaf", DEAF, terminationGracePeriodSeconds=1)
            for name in ("polite", "deaf"):
                await _said(small, name, "ready")
            changes = small.store.watch(["Pod"], since=small.store.revision)
            for name in ("polite", "deaf"):
                small.store.delete("Pod", "default", name)
            last: dict[str, Any] = {}
            gone = 0
            async for change, _, pod in changes:
                last[pod["metadata"]["name"]] = pod["status"]
                gone += change == "DELETED"
                if gone == 2:
                    break

            polite_end, deaf_end = (
                last[name]["containerStatuses"][0]["state"]["terminated"]
                for name in ("polite", "deaf")
            )
            assert (polite_end["exitCode"], last["polite"]["phase"]) == (0, "Succeeded")
            assert (deaf_end["exitCode"], last["deaf"]["phase"]) == (137, "Failed")

    run(test)


def test_a_first_process_without_a_handler_is_not_ended_by_a_request() -> None:
    async def test() -> None:
        async with cluster() as small:
            small.pod("plain", "while :; do echo tick; sleep 0.02; done",
                      terminationGracePeriodSeconds=60)  # fmt: skip
            await _said(small, "plain", "tick")
            run_ = small.nodes.run_of("default", "plain")
            first = run_.mains[0].running.first
            pod = small.store.delete("Pod", "default", "plain")
            ticks = 0
            async for _ in small.nodes.logs(pod, "run", {"follow": True, "tailLines": 0}):
                ticks += run_.stop.is_set()
                if ticks > 5:
                    break
            assert runs(first)
            assert small.find("Pod", "plain") is not None

            small.store.delete("Pod", "default", "plain", grace=0)
            await small.until(lambda: small.find("Pod", "plain") is None)
            async with asyncio.timeout(10):
                while runs(first):
                    await asyncio.sleep(0.01)

    run(test)


def test_a_killed_container_ends_with_the_code_that_was_wanted() -> None:
    async def test() -> None:
        async with cluster() as small:
            small.pod("killed", "sleep 60")
            await small.phase("killed", "Running")
            small.trouble.kill("default", "killed", code=9)
            await small.ended("killed")

            assert small.state("killed")["terminated"]["exitCode"] == 9
            with pytest.raises(NotRunning, match="default/killed does not run"):
                small.trouble.kill("default", "killed")

    run(test)


def test_a_container_that_keeps_failing_is_restarted_ever_later() -> None:
    async def test() -> None:
        async with cluster() as small:
            volumes = [{"name": "v", "emptyDir": {}}]
            mounts = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
            small.pod("flaky", "echo x >>/v/n; wc -l </v/n; test $(wc -l </v/n) = 3",
                      restartPolicy="OnFailure", container=mounts, volumes=volumes)  # fmt: skip
            await small.until(lambda: _waits(small, "flaky", "CrashLoopBackOff"))
            assert small.status("flaky")["phase"] == "Running"
            assert (await small.ended("flaky"))["phase"] == "Succeeded"
            one = small.status("flaky")["containerStatuses"][0]
            assert one["restartCount"] == 2
            assert one["lastState"]["terminated"]["exitCode"] == 1
            assert await small.said("flaky") == "3\n"
            assert await small.said("flaky", previous=True) == "2\n"

    run(test)


@pytest.mark.parametrize("goes_on", [False, True])
def test_pods_of_a_lost_node_stay_in_deletion_until_it_is_back(goes_on: bool) -> None:
    async def test() -> None:
        async with cluster([NodeShape("node-a"), NodeShape("node-b")]) as small:
            small.pod("stuck", "sleep 60")
            await small.phase("stuck", "Running")
            first = small.nodes.run_of("default", "stuck").mains[0].running.first
            await small.trouble.lose_node("node-a", processes_go_on=goes_on)
            pod = await small.until(
                lambda: (one := small.find("Pod", "stuck"))
                and "deletionTimestamp" in one["metadata"] and one
            )  # fmt: skip
            assert pod["status"]["phase"] == "Running"
            assert (
                small.conditions("stuck")["DisruptionTarget"]["reason"] == "DeletionByTaintManager"
            )
            node = small.store.read("Node", None, "node-a")
            ready = next(one for one in node["status"]["conditions"] if one["type"] == "Ready")
            assert (ready["status"], ready["reason"]) == ("Unknown", "NodeStatusUnknown")
            assert runs(first) is goes_on
            await small.told(
                "meanwhile", "true", nodeSelector={"kubernetes.io/hostname": "node-b"}
            )
            assert small.find("Pod", "stuck") is not None

            small.trouble.find_node("node-a")
            await small.until(lambda: small.find("Pod", "stuck") is None)
            assert await small.told("next", "echo ran") == "ran\n"

    run(test)


def test_a_pod_of_a_lost_node_may_be_deleted_by_force() -> None:
    async def test() -> None:
        async with cluster() as small:
            small.pod("stuck", "sleep 60")
            await small.phase("stuck", "Running")
            first = small.nodes.run_of("default", "stuck").mains[0].running.first
            await small.trouble.lose_node("node-a", processes_go_on=True)
            small.store.delete("Pod", "default", "stuck", grace=0)
            assert small.find("Pod", "stuck") is None
            assert runs(first)  # nobody could tell the node

            small.trouble.find_node("node-a")
            async with asyncio.timeout(10):
                while runs(first):
                    await asyncio.sleep(0.01)

    run(test)


def test_pods_go_with_a_node_that_is_removed_or_drained() -> None:
    async def test() -> None:
        shapes = (NodeShape("node-a"), NodeShape("node-b"))
        async with cluster(shapes) as small:
            for name, node in (("gone", "node-a"), ("drained", "node-b")):
                labels = {"kubernetes.io/hostname": node}
                small.pod(name, "sleep 60", nodeSelector=labels, terminationGracePeriodSeconds=0)
                await small.phase(name, "Running")
            await small.trouble.remove_node("node-a")
            small.trouble.drain("node-b")

            for name in ("gone", "drained"):
                await small.until(lambda name=name: small.find("Pod", name) is None)
            assert [one["metadata"]["name"] for one in small.store.list("Node")] == ["node-b"]

    run(test)


def test_an_object_with_a_finalizer_stays_until_it_is_let_go() -> None:
    async def test() -> None:
        async with cluster() as small:
            small.pod("held")
            await small.ended("held")
            small.trouble.hold("Pod", "default", "held")
            small.store.delete("Pod", "default", "held")
            assert "deletionTimestamp" in small.find("Pod", "held")["metadata"]

            small.trouble.let_go("Pod", "default", "held")
            await small.until(lambda: small.find("Pod", "held") is None)

    run(test)
