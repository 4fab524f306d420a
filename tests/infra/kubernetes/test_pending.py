from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from infra.kubernetes import diagnosis, pending
from tests.infra.kubernetes.objects import (
    IMAGE,
    NOW,
    event,
    job,
    pod,
    unschedulable,
    waiting,
)

NUMBERS = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: not helpful"
QUOTA = (
    'pods "my-x" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=4, '
    "used: requests.nvidia.com/gpu=6, limited: requests.nvidia.com/gpu=8"
)
PENDING = pod("Pending", state=waiting("ContainerCreating"))
UNPLACED = pod("Pending", node="")


def waits(
    pods: list[Any], events: Sequence[Any] = (), the_job: Any = None
) -> diagnosis.Diagnosis | None:
    return pending.diagnose_pending(the_job or job(), pods, events, NOW)


@pytest.mark.parametrize(
    ("pods", "events", "category", "words"),
    [
        ([pod("Pending", node="", conditions=unschedulable(NUMBERS))], [], "Unschedulable",
         "3 Insufficient nvidia.com/gpu"),
        ([pod("Pending", node="", conditions=unschedulable(""))],
         [event(UNPLACED, "FailedScheduling", NUMBERS)], "Unschedulable", "0/3 nodes"),
        ([pod("Pending", node="", conditions=unschedulable("", "SchedulingGated"))], [], "",
         "scheduling gate"),
        ([UNPLACED], [], "", "scheduler"),
        ([pod("Pending", state=waiting("ImagePullBackOff", f'Back-off pulling "{IMAGE}"'))], [],
         "ImagePull", f"The image {IMAGE} cannot be pulled: Back-off"),
        ([pod("Pending", state=waiting("ErrImagePull", "401 Unauthorized"))], [], "ImagePull",
         "401 Unauthorized"),
        ([pod("Pending", init=waiting("ImagePullBackOff"), state=waiting("PodInitializing"))], [],
         "ImagePull", "ImagePullBackOff"),
        ([pod("Pending", state=waiting("CreateContainerConfigError", 'secret "db" not found'))],
         [], "ConfigInvalid", 'secret "db" not found'),
        ([pod("Pending", state=waiting("CreateContainerError", "no such runtime"))], [],
         "StartFailed", "no such runtime"),
        ([], [event(job(), "FailedCreate", QUOTA)], "Unschedulable",
         "used: requests.nvidia.com/gpu=6, limited: requests.nvidia.com/gpu=8"),
        ([], [event(job(), "FailedCreate", "a webhook denied the request")], "ConfigInvalid",
         "denied the request"),
        ([], [], "", "being made"),
        ([PENDING], [event(PENDING, "FailedMount", 'pvc "nas" not found')], "ConfigInvalid",
         'mounted: pvc "nas" not found'),
        ([PENDING], [event(PENDING, "FailedAttachVolume", "in use")], "ConfigInvalid", "attached"),
        ([PENDING], [event(PENDING, "FailedCreatePodSandBox", "no network")], "StartFailed",
         "no network"),
        ([PENDING], [event(PENDING, "Pulling", f'Pulling image "{IMAGE}"', 90)], "", "since 90 s"),
        ([PENDING], [event(PENDING, "Pulled", "", 5), event(PENDING, "Pulling", "", 90)], "",
         "being created"),
        ([PENDING], [], "", "being created"),
    ],
)  # fmt: skip
def test_what_a_run_waits_for(
    pods: list[Any], events: list[Any], category: str, words: str
) -> None:
    found = waits(pods, events)

    assert found is not None
    assert found.category == category
    assert words in found.message
    assert found.hint == diagnosis.HINTS.get(category, "")


@pytest.mark.parametrize(
    ("message", "queued"),
    [
        (NUMBERS, True),
        ("0/1 nodes are available: 1 Too many pods.", True),
        ("0/1 nodes are available: 1 node(s) were unschedulable.", True),
        ("0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/not-ready: "
         "}.", True),
        ("0/1 nodes are available: 1 node(s) had untolerated taint {nvidia.com/gpu: present}.",
         False),
        ("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.", False),
        ("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.", False),
        ("no nodes available to schedule pods", False),
    ],
)  # fmt: skip
def test_what_others_have_is_a_queue_and_nothing_else(message: str, queued: bool) -> None:
    found = waits([pod("Pending", node="", conditions=unschedulable(message))])

    assert found is not None
    assert found.queued is queued


def test_trouble_counts_before_a_queue() -> None:
    pods = [
        pod("Pending", node="", conditions=unschedulable(NUMBERS)),
        pod("Pending", index=1, state=waiting("ImagePullBackOff")),
    ]

    found = waits(pods, the_job=job(nodes=2))

    assert found is not None
    assert found.category == "ImagePull"


@pytest.mark.parametrize("phase", ["Running", "Succeeded", "Failed"])
def test_a_pod_that_has_started_waits_for_nothing(phase: str) -> None:
    assert waits([pod(phase)]) is None


def test_events_of_others_say_nothing() -> None:
    other = pod("Pending", index=1)

    found = waits([PENDING], [event(other, "FailedMount", "not ours")])

    assert found is not None
    assert found.category == ""


def test_a_gang_tells_its_numbers_and_who_is_in_trouble() -> None:
    pods = [
        pod(),
        pod("Pending", index=1, state=waiting("ContainerCreating")),
        pod("Pending", index=2, node="", conditions=unschedulable(NUMBERS)),
    ]

    found = waits(pods, the_job=job(nodes=3))

    assert found is not None
    assert found.category == "Unschedulable"
    assert found.message.startswith("1 of 3 nodes have started. No node can take it")
    assert waits([pod(), pod(index=1), pod(index=2)], the_job=job(nodes=3)) is None


@pytest.mark.parametrize(
    ("category", "nodes", "expected"),
    [("Unschedulable", 2, "Unschedulable"), ("", 2, "NodeNeverJoined"), ("", 1, "StartFailed")],
)
def test_given_up_with_what_it_waited_for(category: str, nodes: int, expected: str) -> None:
    found = pending.diagnose_start_timeout(diagnosis.Diagnosis(category, "Why."), 10, nodes=nodes)

    assert found.category == expected
    assert str(found).startswith(f"{expected}: Why. It was given up after 10 minutes.")
    assert found.hint


def test_a_pull_that_takes_too_long_is_no_fault_of_the_image() -> None:
    pulling = diagnosis.Diagnosis("", "Pulling.", slow=True)

    found = pending.diagnose_start_timeout(pulling, 10)

    assert found.category == "ImagePull"
    assert "pending_minutes" in found.hint
