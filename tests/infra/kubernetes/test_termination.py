from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from infra.kubernetes import diagnosis, objects, termination
from tests.infra.kubernetes.objects import (
    NOW,
    ago,
    disrupted,
    event,
    job,
    pod,
    terminated,
    waiting,
)


def died(
    pods: list[Any], the_job: Any = None, events: Sequence[Any] = (), *, ran: bool = True
) -> diagnosis.Diagnosis | None:
    return termination.diagnose_termination(the_job or job(), pods, events, now=NOW, ran=ran)


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
        (pod("Failed", deleted=1, state=terminated(143)), "Gone", "Its pod was deleted"),
        (pod("Failed", deleted=1, state=terminated(137)), "Gone", "Its pod was deleted"),
        (pod("Succeeded", deleted=1), "Gone", "Its pod was deleted"),
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
    found = died([], FAILED, [event(pod(), reason, "why", 40)])

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


REFUSED = (
    'Error creating: pods "my-x" is forbidden: violates PodSecurity "restricted:latest": '
    'runAsNonRoot != true (container "stage-in" must set securityContext.runAsNonRoot=true)'
)


class TestEventsAge:
    """Only what happened close to the end of a pod that is gone explains that end."""

    def _told(self, *events: Any, **more: Any) -> diagnosis.Diagnosis:
        over = job(condition="Failed", reason="BackoffLimitExceeded", since=30, **more)
        found = died([], over, events)
        assert found is not None
        return found

    @pytest.mark.parametrize("since", [31, 60, 85])
    def test_close_to_the_end_it_is_the_reason(self, since: float) -> None:
        assert self._told(event(pod(), "NodeNotReady", "", since)).category == "NodeLost"

    @pytest.mark.parametrize("since", [95, 600, 3000])
    def test_long_before_the_end_it_is_none(self, since: float) -> None:
        told = self._told(event(pod(), "NodeNotReady", "Node is not ready", since), age=4000)

        assert told.category == "Gone"

    def test_after_the_end_it_is_none(self) -> None:
        assert self._told(event(pod(), "NodeNotReady", "", 5)).category == "Gone"

    def test_a_long_grace_lets_it_be_longer_ago(self) -> None:
        over = job(condition="Failed", reason="BackoffLimitExceeded", since=30)
        over["spec"]["template"] = {"spec": {"terminationGracePeriodSeconds": 600}}

        found = died([], over, [event(pod(), "Preempted", "by a larger one", 500)])

        assert found is not None
        assert found.category == "Evicted"

    def test_a_node_that_came_back_in_time_took_nothing(self) -> None:
        told = self._told(
            event(pod(), "NodeNotReady", "Node is not ready", 60),
            event(pod(), "TaintManagerEviction", "Marking for deletion Pod runs/x", 55),
            event(pod(), "TaintManagerEviction", "Cancelling deletion of Pod runs/x", 50),
        )

        assert told.category == "Gone"

    def test_an_event_that_says_no_time_is_none(self) -> None:
        timeless = event(pod(), "NodeNotReady")
        del timeless["lastTimestamp"]

        assert self._told(timeless).category == "Gone"


class TestPodSecurity:
    def test_a_refusal_ends_it_at_once_with_what_to_change(self) -> None:
        found = died([], job(age=1), [event(job(), "FailedCreate", REFUSED)], ran=False)

        assert found is not None
        assert found.category == "ConfigInvalid"
        assert "runAsNonRoot != true" in found.message
        assert "Pod Security Standard" in found.hint
        assert found.at is None  # nothing that is still to settle

    def test_a_quota_that_is_used_up_is_no_end(self) -> None:
        told = event(job(), "FailedCreate", 'pods "x" is forbidden: exceeded quota: gpus')

        assert died([], job(), [told]) is None

    def test_a_pod_that_was_made_after_all_is_no_end(self) -> None:
        assert died([pod()], job(), [event(job(), "FailedCreate", REFUSED)]) is None
