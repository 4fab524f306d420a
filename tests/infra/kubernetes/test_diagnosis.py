from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from infra.kubernetes import diagnosis, objects
from tests.infra.kubernetes.objects import (
    IMAGE,
    NOW,
    ago,
    disrupted,
    event,
    job,
    pod,
    terminated,
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
    return diagnosis.waits(the_job or job(), pods, events, NOW)


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
        ([], [event(job(), "FailedCreate", "violates PodSecurity")], "ConfigInvalid",
         "violates PodSecurity"),
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


def died(
    pods: list[Any], the_job: Any = None, events: Sequence[Any] = (), *, ran: bool = True
) -> diagnosis.Diagnosis | None:
    return diagnosis.died(the_job or job(), pods, events, now=NOW, ran=ran)


FAILED = job(condition="Failed", reason="BackoffLimitExceeded", message="it has failed")


@pytest.mark.parametrize(
    ("the_pod", "category", "words"),
    [
        (pod("Failed", state=terminated(137, "OOMKilled")), "OOMKilled", "limit of 8Gi"),
        (pod("Failed", state=terminated(137)), "OOMKilled", "limit of 8Gi"),
        (pod("Failed", state=terminated(137), memory=""), "ScriptFailed", "status 137"),
        (pod("Failed", init=terminated(137, "OOMKilled")), "OOMKilled", "fetch"),
        (pod("Failed", state=terminated(1)), "ScriptFailed", "run ended with status 1"),
        (pod("Failed", init=terminated(2)), "ScriptFailed", "fetch ended with status 2"),
        (pod("Failed", state=terminated(128, "StartError", 'exec: "pyton": not found')),
         "StartFailed", 'exec: "pyton": not found'),
        (pod("Failed", state=terminated(127, "ContainerCannotRun")), "StartFailed", "started"),
        (pod("Failed", state=terminated(137, "ContainerStatusUnknown")), "NodeLost", "sight"),
        (pod("Failed", reason="Evicted", message="The node was low on resource: memory."),
         "Evicted", "low on resource"),
        (pod("Failed", reason="Evicted", message="ephemeral local storage usage exceeds 1Gi"),
         "Evicted", "ephemeral local storage"),
        (pod("Failed", reason="NodeShutdown"), "NodeLost", "shut down"),
        (pod("Failed", reason="NodeLost"), "NodeLost", "does not answer"),
        (pod("Failed", reason="DeadlineExceeded"), "Timeout", "longer than it may"),
        (pod("Failed", reason="OutOfcpu", message="Node didn't have enough"), "Unschedulable",
         "no room"),
        (pod("Failed", reason="UnexpectedAdmissionError", message="no devices"), "Unschedulable",
         "no devices"),
        (pod("Failed", conditions=disrupted("EvictionByEvictionAPI", "drained")), "Evicted",
         "drained"),
        (pod("Failed", conditions=disrupted("TerminationByKubelet")), "Evicted", "ended its pod"),
        (pod("Failed", conditions=disrupted("PreemptionByScheduler")), "Evicted", "priority"),
        (pod("Failed", conditions=disrupted("DeletionByTaintManager")), "NodeLost", "tainted"),
        (pod("Failed", conditions=disrupted("DeletionByPodGC")), "NodeLost", "Its node is gone"),
        (pod("Running", deleted=6, conditions=disrupted("DeletionByTaintManager")), "NodeLost",
         "tainted"),
        (pod("Running", deleted=6), "NodeLost", "does not end"),
        (pod("Failed", deleted=1, state=terminated(143)), "Gone", "deleted its pod"),
        (pod("Failed", deleted=1, state=terminated(137)), "Gone", "deleted its pod"),
        (pod("Succeeded", deleted=1), "Gone", "deleted its pod"),
        (pod("Failed", message="no reason of ours"), "ScriptFailed", "no reason of ours"),
        (pod("Succeeded", state=terminated(0, "Completed")), "Gone", "without telling Prefect"),
        (pod("Pending", state=waiting("InvalidImageName", "couldn't parse")), "ImagePull",
         "couldn't parse"),
    ],
)  # fmt: skip
def test_what_a_pod_died_of(the_pod: Any, category: str, words: str) -> None:
    found = died([the_pod])

    assert found is not None
    assert found.category == category
    assert words in found.message
    assert found.hint == diagnosis.HINTS[category]
    assert found.pod == the_pod["metadata"]["name"]


def test_before_the_run_began_it_is_the_start_that_failed() -> None:
    found = died([pod("Failed", state=terminated(1))], ran=False)
    silent = died([pod("Succeeded", state=terminated(0))], ran=False)

    assert found is not None
    assert (found.category, found.container) == ("StartFailed", "run")
    assert silent is not None
    assert silent.category == "StartFailed"


@pytest.mark.parametrize(
    "pods",
    [[], [pod()], [pod("Pending")], [pod("Running", deleted=-20)], [pod("Running", deleted=4)],
     [pod(), pod("Succeeded", index=1)]],
)  # fmt: skip
def test_what_goes_on_has_not_died(pods: list[Any]) -> None:
    assert died(pods) is None


def test_the_deadline_of_the_job_counts_before_what_it_did_to_the_pods() -> None:
    over = job(condition="Failed", reason="DeadlineExceeded")

    found = died([pod("Failed", deleted=1, state=terminated(143))], over)

    assert found is not None
    assert found.category == "Timeout"
    assert found.at == objects.time_of(ago(30))


@pytest.mark.parametrize(
    ("reason", "category"),
    [("Evicted", "Evicted"), ("Preempted", "Evicted"), ("TaintManagerEviction", "NodeLost"),
     ("NodeNotReady", "NodeLost"), ("Pulled", "Gone")],
)  # fmt: skip
def test_of_a_pod_that_is_gone_its_events_tell(reason: str, category: str) -> None:
    found = died([], FAILED, [event(pod(), reason, "why")])

    assert found is not None
    assert found.category == category


def test_a_job_that_ended_well_left_a_run_without_an_end() -> None:
    found = died([], job(condition="Complete", reason="CompletionsReached"))

    assert found is not None
    assert found.category == "Gone"


def test_of_several_nodes_the_most_telling_counts() -> None:
    pods = [
        pod("Failed", state=terminated(1)),
        pod("Failed", index=1, state=terminated(137, "OOMKilled")),
    ]

    found = died(pods, job(nodes=2))

    assert found is not None
    assert (found.category, found.pod) == ("OOMKilled", pods[1]["metadata"]["name"])


def test_it_says_when() -> None:
    found = died([pod("Failed", state=terminated(1, since=42))])

    assert found is not None
    assert found.at == NOW - timedelta(seconds=42)


def test_the_end_of_a_log_is_no_reason() -> None:
    found = died([pod("Failed", state=terminated(137, "OOMKilled", "epoch 3\nepoch 4"))])

    assert found is not None
    assert "epoch" not in found.message


@pytest.mark.parametrize(
    ("category", "nodes", "expected"),
    [("Unschedulable", 2, "Unschedulable"), ("", 2, "NodeNeverJoined"), ("", 1, "StartFailed")],
)
def test_given_up_with_what_it_waited_for(category: str, nodes: int, expected: str) -> None:
    found = diagnosis.gives_up(diagnosis.Diagnosis(category, "Why."), 10, nodes=nodes)

    assert found.category == expected
    assert str(found).startswith(f"{expected}: Why. It was given up after 10 minutes.")
    assert found.hint


def test_a_pull_that_takes_too_long_is_no_fault_of_the_image() -> None:
    pulling = diagnosis.Diagnosis("", "Pulling.", slow=True)

    found = diagnosis.gives_up(pulling, 10)

    assert found.category == "ImagePull"
    assert "pending_minutes" in found.hint


def test_every_category_has_a_remedy() -> None:
    assert all(hint.endswith(".") for hint in diagnosis.HINTS.values())
    assert {"ImagePull", "Unschedulable", "OOMKilled", "Evicted", "NodeLost", "ScriptFailed",
            "Timeout", "Cancelled", "ConfigInvalid", "StartFailed", "NodeNeverJoined",
            "Gone"} == set(diagnosis.HINTS)  # fmt: skip
