"""Which node a pod goes to, and what it is told where there is none."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.kubelet import NodeShape
from tests.cluster.quantities import pod_requests, quantity
from tests.cluster.scheduling import refusal, tolerates, wants
from tests.cluster.small import cluster, needs_root, run

pytestmark = pytest.mark.soak

GPU = "nvidia.com/gpu"
TAINT = {"key": GPU, "value": "present", "effect": "NoSchedule"}
TOLERATION = {"key": GPU, "operator": "Exists", "effect": "NoSchedule"}
SHAPES = (
    NodeShape("big", devices={GPU: 2}, labels={"kind": "h100"}, taints=(TAINT,)),
    NodeShape("small", cpu="2", memory="1Gi"),
)


def _asks(**resources: str) -> dict[str, Any]:
    return {"resources": {"requests": resources}}


def _gpus(count: int) -> dict[str, Any]:
    return {"resources": {"limits": {GPU: str(count)}}}


def _affinity(*rules: dict[str, Any]) -> dict[str, Any]:
    terms = {"nodeSelectorTerms": [{"matchExpressions": list(rules)}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


@needs_root
def test_a_pod_goes_where_it_fits() -> None:
    async def test() -> None:
        async with cluster(SHAPES) as small:
            for name, wanted, spec in (
                ("plain", "small", {}),
                ("gpus", "big", {"container": _gpus(2), "tolerations": [TOLERATION]}),
                ("chosen", "big", {"nodeSelector": {"kind": "h100"}, "tolerations": [TOLERATION]}),
                ("large", "big", {"container": _asks(memory="2Gi"), "tolerations": [TOLERATION]}),
            ):
                await small.told(name, **spec)
                assert small.find("Pod", name)["spec"]["nodeName"] == wanted

    run(test)


@needs_root
def test_a_pod_that_fits_nowhere_is_told_why_and_waits() -> None:
    async def test() -> None:
        async with cluster(SHAPES) as small:
            small.pod("one", "sleep 60", container=_gpus(2), tolerations=[TOLERATION])
            await small.phase("one", "Running")
            small.pod("two", container=_gpus(1), tolerations=[TOLERATION])
            held = await small.until(lambda: small.conditions("two").get("PodScheduled"))

            assert (held["status"], held["reason"]) == ("False", "Unschedulable")
            assert held["message"].startswith(
                "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
            )
            assert small.events("two")["FailedScheduling"] == held["message"]
            assert small.status("two")["phase"] == "Pending"

            small.store.delete("Pod", "default", "one", grace=0)
            assert (await small.ended("two"))["phase"] == "Succeeded"
            assert small.conditions("two")["PodScheduled"]["status"] == "True"

    run(test)


@needs_root
@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"container": _gpus(1)}, "1 Insufficient nvidia.com/gpu, 1 node(s) had untolerated taint "
                                  "{nvidia.com/gpu: present}."),
        ({"nodeSelector": {"kind": "none"}, "tolerations": [TOLERATION]},
         "2 node(s) didn't match Pod's node affinity/selector."),
        ({"affinity": _affinity({"key": "kind", "operator": "DoesNotExist"}),
          "container": _asks(cpu="3", memory="2Gi"), "tolerations": [TOLERATION]},
         "1 Insufficient cpu, 1 Insufficient memory, 1 node(s) didn't match Pod's node "
         "affinity/selector."),
        ({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "no"}}]},
         'persistentvolumeclaim "no" not found.'),
    ],
)  # fmt: skip
def test_the_scheduler_s_sentence_counts_the_reasons(spec: dict[str, Any], told: str) -> None:
    async def test() -> None:
        async with cluster(SHAPES) as small:
            small.pod("pod", **spec)
            message = await small.until(lambda: small.events("pod").get("FailedScheduling"))
            assert message.startswith(f"0/2 nodes are available: {told} preemption: ")

    run(test)


@needs_root
def test_a_cordoned_node_gets_no_pods_until_it_is_free_again() -> None:
    async def test() -> None:
        async with cluster() as small:
            small.trouble.cordon("node-a")
            small.pod("waits")
            message = await small.until(lambda: small.events("waits").get("FailedScheduling"))
            assert "1 node(s) were unschedulable" in message

            small.trouble.uncordon("node-a")
            assert (await small.ended("waits"))["phase"] == "Succeeded"

    run(test)


@needs_root
def test_a_new_node_takes_the_pods_that_waited_for_it() -> None:
    async def test() -> None:
        async with cluster(()) as small:
            small.pod("waits")
            message = await small.until(lambda: small.events("waits").get("FailedScheduling"))
            assert message == "no nodes available to schedule pods"

            small.trouble.add_node(NodeShape("late"))
            assert (await small.ended("waits"))["phase"] == "Succeeded"

    run(test)


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        ({"operator": "Exists"}, True),
        ({"key": GPU, "operator": "Exists"}, True),
        ({"key": GPU, "value": "present"}, True),
        ({"key": GPU, "value": "other"}, False),
        ({"key": GPU, "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "other", "operator": "Exists"}, False),
    ],
)
def test_a_toleration_is_for_its_taints(toleration: dict[str, Any], tolerated: bool) -> None:
    assert tolerates([toleration], TAINT) is tolerated


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ({"key": "n", "operator": "In", "values": ["5", "6"]}, True),
        ({"key": "n", "operator": "NotIn", "values": ["5"]}, False),
        ({"key": "other", "operator": "NotIn", "values": ["5"]}, True),
        ({"key": "n", "operator": "Exists"}, True),
        ({"key": "n", "operator": "DoesNotExist"}, False),
        ({"key": "n", "operator": "Gt", "values": ["4"]}, True),
        ({"key": "n", "operator": "Lt", "values": ["4"]}, False),
        ({"key": "other", "operator": "Gt", "values": ["4"]}, False),
    ],
)
def test_an_affinity_reads_the_node_s_labels(rule: dict[str, Any], wanted: bool) -> None:
    node = {"metadata": {"name": "a", "labels": {"n": "5"}}}
    assert wants({"affinity": _affinity(rule)}, node) is wanted


def test_a_pod_asks_for_what_it_needs_at_once() -> None:
    spec = {
        "initContainers": [
            {**_asks(cpu="3")},
            {**_asks(cpu="500m"), "restartPolicy": "Always"},
        ],
        "containers": [_asks(cpu="1", memory="1Gi"), {"resources": {"limits": {"cpu": "1"}}}],
    }
    assert pod_requests(spec) == {"cpu": quantity("3"), "memory": quantity("1Gi")}


def test_reasons_of_one_node_are_all_told() -> None:
    told = refusal({"a": ["Insufficient cpu", "Too many pods"], "b": ["Too many pods"]})
    assert told.startswith("0/2 nodes are available: 1 Insufficient cpu, 2 Too many pods. ")
