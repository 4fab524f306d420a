from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.kubernetes.attempts import AttemptRetry
from infra.kubernetes.jobs import AttemptStatus
from infra.kubernetes.run_policy import MOST_RETRIES, SILENT, RunCase, RunDecision, decide
from tests.infra.kubernetes.objects import (
    NOW,
    RUN,
    disrupted,
    event,
    job,
    pod,
    scheduled,
    terminated,
    unschedulable,
    waiting,
)

FINAL = ["COMPLETED", "FAILED", "CANCELLED", "CRASHED"]
STATES = ["SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING", *FINAL, None]


def found(*pods: Any, the_job: Any = None, attempt: int = 1, gone_pods: Any = ()) -> AttemptStatus:
    jobs = (the_job,) if the_job else ()
    return AttemptStatus(RUN, attempt, jobs, pods, tuple(gone_pods))


GOING = found(pod(), the_job=job())
WAITING = found(pod("Pending", state=waiting("ContainerCreating")), the_job=job())
STUCK = found(pod("Pending", state=waiting("ImagePullBackOff", "no such tag")), the_job=job())
FAILED_JOB = job(condition="Failed", reason="BackoffLimitExceeded")
OVER = found(pod("Failed", state=terminated(1)), the_job=FAILED_JOB)
JUST_OVER = found(pod("Failed", state=terminated(1, since=5)), the_job=FAILED_JOB)
OOM = found(pod("Failed", state=terminated(137, "OOMKilled")), the_job=FAILED_JOB)
WELL = found(pod("Succeeded", state=terminated(0)), the_job=job(condition="Complete"))
LEFT = found(pod())
ENDING = found(pod(deleted=-20), the_job=job())
CONCLUDING = found(
    pod("Succeeded"),
    pod(index=1, deleted=-20),
    the_job=job(nodes=2, condition="SuccessCriteriaMet"),
)
LATE = found(
    pod("Pending", node="", conditions=unschedulable("0/3 nodes didn't match the selector")),
    the_job=job(age=601),
)
BUSY = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: not helpful"
QUEUED = found(
    pod("Pending", node="", conditions=unschedulable(BUSY)), the_job=job(age=7 * 24 * 3600)
)
LATE_GANG_QUEUED = found(
    pod(conditions=scheduled(700)),
    pod("Pending", index=1, node="", conditions=unschedulable(BUSY)),
    the_job=job(nodes=2, age=3000),
)
LATE_GANG = found(
    pod(), pod("Pending", index=1, state=waiting("ContainerCreating")),
    the_job=job(nodes=2, age=601),
)  # fmt: skip
GANG = found(pod(), pod("Pending", index=1, node=""), the_job=job(nodes=2))
VANISHED = found(
    gone_pods=[pod("Failed", deleted=20, conditions=disrupted("EvictionByEvictionAPI"))],
    the_job=FAILED_JOB,
)
VANISHED_WITH_JOB = found(gone_pods=VANISHED.gone_pods)
DELETED = AttemptStatus(RUN, 1)  # it was seen, and nothing of it is there
TIMED_OUT = found(the_job=job(condition="Failed", reason="DeadlineExceeded"))
SILENT_START = found(pod(), the_job=job(age=1201))


def case(
    state: str | None,
    of: AttemptStatus | None,
    *others: AttemptStatus,
    age: float = 120,
    attempt: int = 1,
    looked: bool = True,
    **more: Any,
) -> RunCase:
    return RunCase(
        flow_run_id=RUN,
        state=state,
        since=NOW - timedelta(seconds=age),
        attempt=attempt,
        now=NOW,
        pending=timedelta(minutes=10),
        found=of,
        others=others,
        looked=looked,
        **more,
    )


def becomes(decision: RunDecision) -> tuple[str, str] | None:
    return (decision.next_state.type, decision.next_state.detail) if decision.next_state else None


def message(decision: RunDecision) -> str:
    assert decision.next_state is not None
    return decision.next_state.message


NOTHING = RunDecision()


@pytest.mark.parametrize(
    ("state", "of", "age", "stops", "becoming"),
    [
        # It runs, and so it should.
        ("RUNNING", GOING, 120, False, None),
        ("PAUSED", GOING, 120, False, None),
        ("RUNNING", GANG, 120, False, None),
        ("PENDING", WAITING, 120, False, None),
        ("PENDING", STUCK, 120, False, None),
        ("PENDING", GOING, 120, False, None),
        # Its Job never came, or is gone.
        ("PENDING", None, 59, False, None),
        ("PENDING", None, 61, False, ("SCHEDULED", "Scheduled")),
        ("PENDING", LEFT, 120, True, None),
        ("PENDING", DELETED, 1, False, ("FAILED", "CreateFailed")),
        ("PENDING", VANISHED_WITH_JOB, 1, False, ("FAILED", "CreateFailed")),
        ("PENDING", VANISHED, 120, False, ("SCHEDULED", "Scheduled")),
        ("RUNNING", None, 9, False, None),
        ("RUNNING", None, 11, False, ("CRASHED", "Gone")),
        ("PAUSED", None, 11, False, ("CRASHED", "Gone")),
        ("RUNNING", LEFT, 120, True, None),
        ("RUNNING", VANISHED_WITH_JOB, 120, False, ("CRASHED", "Evicted")),
        # Its pod has ended, and Prefect has not heard how.
        ("PENDING", JUST_OVER, 120, False, None),
        ("PENDING", OVER, 120, False, ("SCHEDULED", "Scheduled")),
        ("PENDING", WELL, 120, False, ("SCHEDULED", "Scheduled")),
        ("PENDING", OOM, 120, False, ("FAILED", "CreateFailed")),
        ("RUNNING", JUST_OVER, 120, False, None),
        ("RUNNING", OVER, 120, False, ("CRASHED", "ScriptFailed")),
        ("RUNNING", OOM, 120, False, ("CRASHED", "OOMKilled")),
        ("RUNNING", WELL, 120, False, ("CRASHED", "Gone")),
        ("RUNNING", VANISHED, 120, False, ("CRASHED", "Evicted")),
        ("RUNNING", TIMED_OUT, 120, False, ("FAILED", "TimedOut")),
        ("RUNNING", ENDING, 120, False, None),
        # It waits for too long.
        ("PENDING", LATE, 120, True, ("FAILED", "CreateFailed")),
        ("PENDING", LATE_GANG, 120, True, ("FAILED", "CreateFailed")),
        ("PENDING", SILENT_START, 120, True, ("FAILED", "CreateFailed")),
        ("RUNNING", LATE_GANG, 120, True, ("CRASHED", "NodeNeverJoined")),
        # It is being stopped.
        ("CANCELLING", GOING, 120, True, None),
        ("CANCELLING", ENDING, 120, True, None),
        ("CANCELLING", LEFT, 120, True, None),
        ("CANCELLING", OVER, 1, False, ("CANCELLED", "Cancelled")),
        ("CANCELLING", None, 9, False, None),
        ("CANCELLING", None, 11, False, ("CANCELLED", "Cancelled")),
        # Nobody has it, or it is over, or it was deleted.
        ("SCHEDULED", GOING, 120, True, None),
        ("SCHEDULED", OVER, 120, False, None),
        ("SCHEDULED", None, 120, False, None),
        ("COMPLETED", GOING, 29, False, None),
        ("COMPLETED", GOING, 31, True, None),
        ("CRASHED", GOING, 29, False, None),
        ("FAILED", ENDING, 1, True, None),
        ("COMPLETED", CONCLUDING, 29, False, None),
        ("COMPLETED", CONCLUDING, 31, True, None),
        ("CANCELLED", GOING, 1, True, None),
        (None, GOING, 0, True, None),
        ("COMPLETED", WELL, 3600, False, None),
        ("FAILED", OVER, 3600, False, None),
        (None, OVER, 0, False, None),
    ],
)
def test_decisions(
    state: str | None, of: AttemptStatus | None, age: float, stops: bool, becoming: Any
) -> None:
    decision = decide(case(state, of, age=age))

    assert bool(decision.stop) is stops
    assert all(one is of for one in decision.stop)
    assert becomes(decision) == becoming


@pytest.mark.parametrize("state", STATES)
def test_older_attempts_are_ended_and_finished_ones_left(state: str | None) -> None:
    decision = decide(case(state, GOING, GOING, OVER, age=5, attempt=2))

    assert decision.stop[0] is GOING
    assert OVER not in decision.stop


def test_a_run_is_not_stopped_before_its_older_attempts_are() -> None:
    assert becomes(decide(case("CANCELLING", None, GOING, attempt=2))) is None
    assert becomes(decide(case("CANCELLING", None, OVER, attempt=2))) == ("CANCELLED", "Cancelled")


def test_a_run_that_we_never_started_is_left_alone() -> None:
    assert decide(case("RUNNING", None, attempt=0)) == NOTHING


@pytest.mark.parametrize("state", STATES)
def test_where_the_cluster_does_not_answer_nothing_is_decided(state: str | None) -> None:
    decision = decide(case(state, None, age=3600, looked=False))

    assert decision == (RunDecision(waiting=SILENT) if state == "PENDING" else NOTHING)


@pytest.mark.parametrize(
    ("state", "of", "words"),
    [
        ("PENDING", STUCK, "ImagePull: The image registry.example/flows:1 cannot be pulled"),
        ("PENDING", WAITING, "being created"),
        ("PENDING", GOING, "has not begun the run yet"),
        ("RUNNING", GANG, "1 of 2 nodes have started."),
    ],
)
def test_it_is_told_what_a_run_waits_for(state: str, of: AttemptStatus, words: str) -> None:
    assert words in (decide(case(state, of)).waiting or "")


def test_a_run_that_goes_on_waits_for_nothing() -> None:
    assert decide(case("RUNNING", GOING)).waiting == ""


def test_what_is_told_at_the_end() -> None:
    gone = decide(case("RUNNING", None)).next_state
    late = decide(case("PENDING", LATE)).next_state
    stopped = decide(case("CANCELLING", None)).next_state
    oom = decide(case("RUNNING", OOM))

    assert gone is not None
    assert f"modelyard runs retry {RUN}" in gone.message
    assert late is not None
    assert late.message.startswith("Unschedulable: No node can take it now: 0/3 nodes didn't")
    assert "given up after 10 minutes" in late.message
    assert stopped is not None
    assert stopped.message == "Stopped."
    assert oom.next_state is not None
    assert "modelyard runs retry" not in oom.next_state.message  # it would end as it did
    assert oom.died is not None
    assert (oom.died.container, oom.died.pod) == ("run", OOM.pods[0]["metadata"]["name"])


class TestQueue:
    """What waits for others waits without limit, unless the cluster's file sets one."""

    @pytest.mark.parametrize("holds", [True, None])
    def test_a_full_cluster_is_no_failure(self, holds: bool | None) -> None:
        decision = decide(case("PENDING", QUEUED, could_hold=holds))

        assert decision.next_state is None
        assert decision.queued
        assert "3 Insufficient nvidia.com/gpu" in (decision.waiting or "")

    def test_what_no_node_could_hold_is_given_up(self) -> None:
        decision = decide(case("PENDING", QUEUED, could_hold=False))

        assert becomes(decision) == ("FAILED", "CreateFailed")
        assert not decision.queued

    def test_a_quota_that_is_used_up_is_a_queue_as_well(self) -> None:
        refused = event(job(), "FailedCreate", 'pods "x" is forbidden: exceeded quota: gpus, '
                        "requested: requests.nvidia.com/gpu=2, used: requests.nvidia.com/gpu=3, "
                        "limited: requests.nvidia.com/gpu=4")  # fmt: skip
        late = found(the_job=job(age=9999))

        assert decide(case("PENDING", late, events=(refused,))).queued

    def test_what_a_quota_never_allows_is_given_up(self) -> None:
        refused = event(job(), "FailedCreate", 'pods "x" is forbidden: exceeded quota: gpus, '
                        "requested: memory=1Gi,requests.nvidia.com/gpu=8, used: memory=0,"
                        "requests.nvidia.com/gpu=0, limited: memory=2Gi,"
                        "requests.nvidia.com/gpu=4")  # fmt: skip
        late = found(the_job=job(age=9999))

        assert becomes(decide(case("PENDING", late, events=(refused,)))) is not None

    @pytest.mark.parametrize(("days", "given_up"), [(8, False), (6, True)])
    def test_the_file_may_set_a_limit(self, days: int, given_up: bool) -> None:
        decision = decide(case("PENDING", QUEUED, queue=timedelta(days=days)))

        assert (decision.next_state is not None) is given_up
        if decision.next_state:
            assert decision.next_state.message.startswith("Unschedulable: No node can take it now")
            assert "given up after 8640 minutes in the queue" in decision.next_state.message

    def test_after_the_queue_it_has_all_of_its_time_to_start(self) -> None:
        def starting(since: float) -> AttemptStatus:
            creating = waiting("ContainerCreating")
            one = pod("Pending", state=creating, conditions=scheduled(since))
            return found(one, the_job=job(age=7 * 24 * 3600))

        assert decide(case("PENDING", starting(599))).next_state is None
        assert becomes(decide(case("PENDING", starting(601)))) == ("FAILED", "CreateFailed")

    def test_what_has_just_left_the_queue_for_another_wait_is_not_given_up(self) -> None:
        left = NOW - timedelta(seconds=5)

        assert decide(case("PENDING", LATE, queued_at=left)).next_state is None

    def test_a_training_that_has_some_of_its_nodes_keeps_them_for_a_while_only(self) -> None:
        def after(seconds: float) -> RunDecision:
            holding = found(
                pod(conditions=scheduled(seconds)),
                pod("Pending", index=1, node="", conditions=unschedulable(BUSY)),
                the_job=job(nodes=2, age=9000),
            )
            return decide(case("RUNNING", holding, could_hold=True, failures=1))

        assert after(599).next_state is None
        let_go = after(1200)
        assert becomes(let_go) == ("SCHEDULED", "AwaitingRetry")
        assert [one.key for one in let_go.stop] == [(RUN, 1)]
        assert let_go.next_state is not None
        assert let_go.next_state.delay > timedelta(0)  # the other one has them meanwhile
        assert let_go.retry is not None
        assert let_go.retry.failures == 1  # a queue is none

    def test_two_that_hold_half_each_let_go_at_different_times(self) -> None:
        def holds(run: str, seconds: float) -> bool:
            one = replace(LATE_GANG_QUEUED, pods=(pod(conditions=scheduled(seconds)),
                                                  LATE_GANG_QUEUED.pods[1]))  # fmt: skip
            told = replace(case("RUNNING", one, could_hold=True), flow_run_id=run)
            return decide(told).next_state is None

        lets_go = {
            run: next(s for s in range(600, 1300, 5) if not holds(run, s)) for run in "abcd"
        }
        assert len(set(lets_go.values())) == 4

    def test_where_it_is_not_known_whether_there_are_so_many_nodes_it_is_given_up(self) -> None:
        assert becomes(decide(case("RUNNING", LATE_GANG_QUEUED))) == ("CRASHED", "Unschedulable")

    def test_a_queue_counts_from_the_first_attempt(self) -> None:
        first = NOW - timedelta(days=8)
        young = replace(QUEUED, jobs=(job(age=60),))

        told = case("PENDING", young, queue=timedelta(days=7), waiting_since=first)
        assert becomes(decide(told)) == ("FAILED", "CreateFailed")


class TestTriedAgain:
    """An attempt that ended before the run began is tried again by itself, a few times."""

    CANCELED = terminated(128, "StartError", "failed to create containerd task: context canceled")
    NO_PROGRAM = terminated(128, "StartError", 'exec: "python": executable file not found')

    def _ended(self, state: Any) -> AttemptStatus:
        return found(pod("Failed", state=state), the_job=FAILED_JOB)

    def test_it_is_counted_and_takes_longer_each_time(self) -> None:
        decisions = [
            decide(case("PENDING", self._ended(self.CANCELED), failures=number))
            for number in range(MOST_RETRIES + 1)
        ]

        *again, last = decisions
        assert [one.retry.failures for one in again if one.retry] == [1, 2, 3]
        assert [one.next_state.delay.seconds for one in again if one.next_state] == [5, 10, 20]
        assert "context canceled" in (again[0].retry or AttemptRetry("", 0)).reason
        assert "It is tried again (1 of 3) in 5 s." in message(again[0])
        assert again[0].died is not None  # its last lines are kept
        assert becomes(last) == ("FAILED", "CreateFailed")
        assert "4 attempts ended before the run began." in message(last)
        assert last.retry is None

    @pytest.mark.parametrize("of", [OVER, OOM, WELL, VANISHED, TIMED_OUT])
    @pytest.mark.parametrize("state", ["RUNNING", "PAUSED"])
    def test_never_once_the_run_had_begun(self, state: str, of: AttemptStatus) -> None:
        decision = decide(case(state, of))

        assert decision.retry is None
        assert becomes(decision) not in {None, ("SCHEDULED", "Scheduled")}

    def test_what_would_end_so_again_is_not(self) -> None:
        decision = decide(case("PENDING", self._ended(self.NO_PROGRAM)))

        assert becomes(decision) == ("FAILED", "CreateFailed")

    def test_what_somebody_deleted_is_not(self) -> None:
        assert decide(case("PENDING", DELETED)).retry is None

    def test_what_was_given_up_is_not(self) -> None:
        assert decide(case("PENDING", SILENT_START)).retry is None

    def test_a_worker_that_dies_with_it_time_and_again_ends_it(self) -> None:
        assert decide(case("PENDING", None, failures=2)).retry == AttemptRetry(
            "StartFailed: Its worker died before it made its Job.", 3
        )
        assert becomes(decide(case("PENDING", None, failures=3))) == ("FAILED", "CreateFailed")


_FOUND = st.sampled_from(
    [None, GOING, WAITING, STUCK, QUEUED, LATE_GANG_QUEUED,
     OVER, JUST_OVER, OOM, WELL, LEFT, ENDING, LATE, LATE_GANG,
     GANG, VANISHED, VANISHED_WITH_JOB, TIMED_OUT, SILENT_START]
)  # fmt: skip


@given(
    state=st.sampled_from(STATES),
    of=_FOUND,
    other=_FOUND,
    age=st.floats(0, 1e6),
    attempt=st.integers(0, 3),
    looked=st.booleans(),
)
def test_what_never_happens(
    state: str | None, of: AttemptStatus | None, other: AttemptStatus | None, age: float,
    attempt: int, looked: bool,
) -> None:  # fmt: skip
    others = (other,) if other else ()
    decision = decide(case(state, of, *others, age=age, attempt=attempt, looked=looked))
    becoming = becomes(decision)

    if state in {*FINAL, "SCHEDULED", None}:
        assert becoming is None
    if becoming and becoming[0] == "SCHEDULED":
        # Nothing of a user's has run: it has not begun, or waits for its other nodes.
        assert state == "PENDING" or decision.died is None
    if becoming and becoming[0] == "CANCELLED":
        assert not any(one.is_active for one in (of, other) if one)
    if becoming and of and of.is_active:
        assert of in decision.stop  # what has ended in Prefect is not kept on the cluster
    assert all(one.is_active for one in decision.stop)
    if not looked:
        assert not decision.stop
        assert becoming is None
