"""The loop against a real Prefect, with a cluster in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.states import AwaitingRetry, Cancelling, Completed, Pending, Running, State

from infra.controllers import Controller, LeadershipLostError
from infra.kubernetes import names, run_policy
from infra.kubernetes.attempts import AttemptRecord
from infra.kubernetes.capacity import NodeCapacity
from infra.kubernetes.cluster import ClusterConfig
from infra.kubernetes.jobs import Jobs
from infra.kubernetes.reconciler import ClusterRunReconciler, RunWaitLimits
from infra.kubernetes.run_policy import MOST_RETRIES
from tests import prefect_server
from tests.infra.kubernetes import objects
from tests.infra.kubernetes.fake_api import FakeApi, silent
from tests.infra.kubernetes.objects import NOW, event, terminated, unschedulable, waiting
from tests.registry.fake_attempts import FakeAttempts

pytestmark = pytest.mark.usefixtures("prefect_api")


@pytest.fixture
def pool() -> prefect_server.Pool:
    return prefect_server.Pool.made("flows.catalogue:nothing")


def seconds_ago(seconds: float) -> float:
    """What the objects of tests, whose time stands still, are told for so long ago."""
    return seconds + (NOW - datetime.now(UTC)).total_seconds()


class World:
    """A pool, a cluster, and the loop between them."""

    def __init__(self, pool: prefect_server.Pool) -> None:
        self.pool = pool
        self.api = FakeApi()
        self.attempts = FakeAttempts()
        self.leads = True
        self.nodes: list[NodeCapacity] | None = None
        self._jobs = Jobs(self.api, ClusterConfig(image="flows:1"))  # type: ignore[arg-type]
        self.on_find: Callable[[], None] = lambda: None
        self.next_round = 0.0

    def run(self, state: State[Any], attempt: int = 1, failures: int = 0) -> FlowRun:
        """A run in a state."""
        run = self.pool.run()
        prefect_server.set_state(run, Pending())  # from Scheduled, Prefect cancels by itself
        prefect_server.set_state(run, state)
        self.begun(run, attempt, failures)
        return run

    def begun(self, run: FlowRun, attempt: int, failures: int = 0) -> None:
        """Its worker has begun an attempt."""
        state_id = str(prefect_server.read(run).state_id)
        self.attempts.of[str(run.id)] = AttemptRecord(
            attempt, state_id=state_id, failures=failures
        )

    def job(self, run: FlowRun, age: float = 60, **more: Any) -> dict[str, Any]:
        since = more.pop("since", 30)
        made = objects.job(run=str(run.id), age=seconds_ago(age), since=seconds_ago(since), **more)
        return self._ours(made)

    def pod(self, run: FlowRun, phase: str = "Running", **more: Any) -> dict[str, Any]:
        return self._ours(objects.pod(phase, run=str(run.id), **more))

    def _ours(self, made: dict[str, Any]) -> dict[str, Any]:
        made["metadata"]["labels"][names.POOL] = self.pool.name
        self.api.put(made)
        return made

    def failed(self, run: FlowRun, state: dict[str, Any], **more: Any) -> None:
        """A Job whose pod has ended."""
        self.job(run, condition="Failed", reason="BackoffLimitExceeded", **more)
        self.pod(run, "Failed", state=state)

    def is_leader(self) -> bool:
        return self.leads

    def confirm(self) -> None:
        if not self.leads:
            raise LeadershipLostError("another leads")

    def resign(self) -> None:
        self.leads = False

    def turn(self, times: int = 1) -> int:
        """Do so many rounds; in how many runs something was done in Prefect or the cluster.

        ``next_round`` is then the longest time until the next one.
        """

        async def rounds() -> int:
            async with get_client() as client:
                reconciler = ClusterRunReconciler(
                    client, self._jobs, [self.pool.name], self.attempts,
                    limits=RunWaitLimits(timedelta(minutes=10)), nodes=lambda: self.nodes,
                    leadership=self,
                )  # fmt: skip
                controller = Controller("runs", reconciler, resync_seconds=30.0, leadership=self)
                written = 0
                set_state = client.set_flow_run_state

                async def counting(*given: Any, **named: Any) -> Any:
                    nonlocal written
                    written += 1
                    return await set_state(*given, **named)

                client.set_flow_run_state = counting  # type: ignore[method-assign]
                for _ in range(times):
                    self.next_round = await controller.reconcile()
                    self.on_find()
                return written + len(self.api.deleted)

        return asyncio.run(rounds())


@pytest.fixture
def world(pool: prefect_server.Pool) -> World:
    return World(pool)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes every state so old that nobody waits any longer."""

    def make() -> None:
        for name in ("SUBMITTING", "STARTING", "SETTLING", "ENDING"):
            monkeypatch.setattr(run_policy, name, timedelta(0))

    return make


def waiting_text(world: World, run: FlowRun) -> str:
    return world.attempts.of[str(run.id)].waiting


def test_a_waiting_run_says_why_until_it_runs(world: World) -> None:
    run = world.run(Pending())
    world.job(run)
    pod = world.pod(run, "Pending", state=waiting("ContainerCreating"))
    world.api.put(
        {**event(pod, "FailedMount", 'claim "nas" not found'), "metadata": {"name": "e"}}
    )

    world.turn()
    assert waiting_text(world, run).startswith("ConfigInvalid: A volume cannot be mounted: claim")

    world.pod(run)
    prefect_server.set_state(run, Running())
    world.turn()
    assert waiting_text(world, run) == ""
    assert world.api.deleted == []


def test_the_next_round_takes_an_event_while_runs_only_run(world: World) -> None:
    world.turn()
    assert world.next_round == 30.0  # there is none

    run = world.run(Pending())
    world.job(run)
    world.pod(run, "Pending", state=waiting("ContainerCreating"))
    world.turn()
    assert world.next_round == 3.0

    prefect_server.set_state(run, Running())
    world.pod(run)
    world.turn()
    assert world.next_round == 30.0

    prefect_server.set_state(run, Cancelling())
    world.turn()
    assert world.next_round == 3.0

    world.api.fails["*"] = silent()
    world.turn()
    assert world.next_round == 3.0


def test_the_end_of_a_pod_that_may_be_reported_yet_is_looked_at_soon(world: World) -> None:
    run = world.run(Running())
    world.failed(run, terminated(1, since=seconds_ago(0)), since=0)
    world.turn()

    assert prefect_server.state_of(run)[0] == "RUNNING"
    assert world.next_round == 3.0


def test_runs_that_wait_for_the_same_know_their_places(world: World) -> None:
    first, second, large = (world.run(Pending()) for _ in range(3))
    full = unschedulable("0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
    for run, age, gpus in ((first, 7200, 1), (second, 3600, 1), (large, 7200, 4)):
        template = {"containers": [{"resources": {"requests": {"nvidia.com/gpu": gpus}}}]}
        made = world.job(run, age=age)
        made["spec"]["template"] = {"spec": template}
        world.api.put(made)
        world.pod(run, "Pending", node="", conditions=full)
    world.nodes = [NodeCapacity(allocatable={"nvidia.com/gpu": 2})]

    world.turn()

    assert waiting_text(world, first).startswith("Place 1 of 2 in the queue. Unschedulable: ")
    assert waiting_text(world, second).startswith("Place 2 of 2 in the queue. Unschedulable: ")
    assert prefect_server.state_of(large)[:2] == ("FAILED", "CreateFailed")  # no node is so large
    assert prefect_server.state_of(first)[0] == "PENDING"


def test_a_run_that_ends_while_it_waits_waits_no_longer(world: World) -> None:
    run = world.run(Pending())
    world.job(run)
    world.pod(run, "Pending", node="", conditions=unschedulable("0/1 nodes are available"))

    def completes() -> None:
        assert waiting_text(world, run)
        prefect_server.set_state(run, Completed())
        world.job(run, condition="Complete")
        world.pod(run, "Succeeded")
        world.on_find = lambda: None

    world.on_find = completes
    world.turn(2)

    assert waiting_text(world, run) == ""


def test_a_pod_that_died_before_prefect_leaves_its_last_lines(world: World) -> None:
    run = world.run(Pending(name="InfrastructurePending"), failures=MOST_RETRIES)
    world.failed(run, terminated(1, since=seconds_ago(30)))
    pod = names.job_name(str(run.id), 1) + "-0-abcde"
    world.api.logs[pod, "run"] = "Traceback:\nImportError: no module flows"

    world.turn()

    kind, name, message = prefect_server.state_of(run)
    assert (kind, name) == ("FAILED", "CreateFailed")
    assert message.startswith("StartFailed: Its container run ended with status 1")
    assert message.endswith("\nTraceback:\nImportError: no module flows")
    assert prefect_server.log_of(run)[-2:] == ["Traceback:", "ImportError: no module flows"]


def test_an_attempt_that_never_began_is_tried_again_by_itself(world: World) -> None:
    run = world.run(Pending())
    canceled = terminated(128, "StartError", "context canceled", since=seconds_ago(30))
    world.failed(run, canceled)

    world.turn(2)

    kind, name, message = prefect_server.state_of(run)
    assert (kind, name) == ("SCHEDULED", "Scheduled")
    assert "context canceled. The run had not begun. It is tried again (1 of 3)" in message
    due = prefect_server.read(run).next_scheduled_start_time
    assert due is not None
    assert due > datetime.now(UTC) - timedelta(seconds=60)
    (retry,) = world.attempts.retried[str(run.id)]
    assert retry.failures == 1
    assert prefect_server.log_of(run)[-1] == message
    assert world.attempts.begin(str(run.id), "next") == 2
    assert world.attempts.of[str(run.id)].failures == 1


def test_lines_that_the_log_has_are_not_written_again(world: World) -> None:
    run = world.run(Running())
    world.failed(run, terminated(137, "OOMKilled", since=seconds_ago(30)))
    pod = names.job_name(str(run.id), 1) + "-0-abcde"
    world.api.logs[pod, "run"] = "12:00:01.000 | INFO | Flow run 'x' - epoch 1\nepoch 2\nKilled"

    async def told() -> None:
        async with get_client() as client:
            now = datetime.now(UTC).isoformat()
            lines = [{"name": "x", "level": 20, "message": text, "timestamp": now,
                      "flow_run_id": str(run.id)} for text in ("epoch 1", "epoch 2")]  # fmt: skip
            await client.create_logs(lines)

    asyncio.run(told())
    world.turn()

    kind, name, message = prefect_server.state_of(run)
    assert (kind, name) == ("CRASHED", "OOMKilled")
    assert "limit of 8Gi" in message
    log = prefect_server.log_of(run)
    assert [log.count(line) for line in ("epoch 1", "epoch 2", "Killed")] == [1, 1, 1]


def test_a_stopped_run_is_cancelled_when_its_pods_are_gone(
    world: World, later: Callable[[], None]
) -> None:
    run = world.run(Cancelling())
    world.job(run)
    world.pod(run)

    world.turn()
    assert prefect_server.state_of(run)[0] == "CANCELLING"

    (left,) = [key for key in world.api.objects if key[0] == "Pod"]
    del world.api.objects[left]
    world.turn()
    assert prefect_server.state_of(run)[0] == "CANCELLING"  # perhaps a worker is just starting it

    later()
    world.turn()
    assert prefect_server.state_of(run) == ("CANCELLED", "Cancelled", "Stopped.")


def test_what_nobody_has_is_mended_on_both_sides(world: World, later: Callable[[], None]) -> None:
    orphan = world.run(Running())
    waiting_for_nobody = world.run(Pending())
    deleted = world.run(Running())
    done = world.run(Completed())
    for run in (deleted, done):
        world.job(run)
    with get_client(sync_client=True) as client:
        client.delete_flow_run(deleted.id)

    later()
    world.turn()

    assert prefect_server.state_of(orphan)[:2] == ("CRASHED", "Gone")
    assert prefect_server.state_of(waiting_for_nobody)[:2] == ("SCHEDULED", "Scheduled")
    assert prefect_server.state_of(done)[0] == "COMPLETED"
    assert world.api.objects == {}


def test_an_eviction_is_told_though_the_pod_is_gone(world: World) -> None:
    run = world.run(Running())
    world.job(run)
    evicted = world.pod(run, conditions=objects.disrupted("EvictionByEvictionAPI", "drained"))
    name = evicted["metadata"]["name"]

    def goes() -> None:
        world.api.objects.pop(("Pod", name), None)
        world.job(run, condition="Failed", reason="BackoffLimitExceeded")

    world.on_find = goes
    world.turn(2)

    kind, state_name, message = prefect_server.state_of(run)
    assert (kind, state_name) == ("CRASHED", "Evicted")
    assert "drained" in message
    assert f"modelyard runs retry {run.id}" in message


def test_an_older_attempt_is_ended(world: World) -> None:
    run = world.run(Running(), attempt=2)
    world.job(run)
    world.job(run, attempt=2)
    world.pod(run, attempt=2)

    world.turn()

    assert world.api.deleted == [("Job", names.job_name(str(run.id), 1), None)]
    assert prefect_server.state_of(run)[0] == "RUNNING"


def test_a_run_that_ends_while_it_is_looked_at_keeps_its_end(world: World) -> None:
    run = world.run(Running())
    world.failed(run, terminated(1, since=seconds_ago(30)))
    find, calls = world._jobs.find, []

    def ends_before_the_second(flow_run_id: str = "") -> Any:
        calls.append(flow_run_id)
        if len(calls) == 2:
            prefect_server.set_state(run, Completed(message="[GoalReached]"))
        return find(flow_run_id)

    world._jobs.find = ends_before_the_second  # type: ignore[method-assign]
    world.turn()

    assert calls == ["", str(run.id)]
    assert prefect_server.state_of(run)[:2] == ("COMPLETED", "GoalReached")


def test_while_the_cluster_is_silent_nothing_ends(world: World) -> None:
    running, pending = world.run(Running()), world.run(Pending())
    world.api.fails["*"] = silent()

    world.turn()

    assert prefect_server.state_of(running)[0] == "RUNNING"
    assert prefect_server.state_of(pending)[0] == "PENDING"
    assert waiting_text(world, pending) == "The cluster does not answer."
    assert waiting_text(world, running) == ""


def test_one_runs_trouble_is_not_the_others(world: World, later: Callable[[], None]) -> None:
    world.job(world.run(Cancelling()))
    other = world.run(Running())
    world.api.fails["delete Job"] = silent()

    later()
    world.turn()

    assert prefect_server.state_of(other)[:2] == ("CRASHED", "Gone")


def test_who_does_not_lead_does_nothing(world: World) -> None:
    run = world.run(Running())
    world.leads = False

    assert world.turn() == 0
    assert prefect_server.state_of(run)[0] == "RUNNING"
    assert world.api.asked == []


def test_who_is_overtaken_in_the_middle_of_a_round_ends_nothing(
    world: World, later: Callable[[], None]
) -> None:
    orphan, done = world.run(Running()), world.run(Completed())
    world.job(done)
    find = world._jobs.find

    def overtaken(flow_run_id: str = "") -> Any:
        found = find(flow_run_id)
        world.leads = False
        return found

    world._jobs.find = overtaken  # type: ignore[method-assign]
    later()

    assert world.turn(2) == 0
    assert prefect_server.state_of(orphan)[0] == "RUNNING"


def test_who_is_overtaken_while_it_reads_lines_writes_no_state(world: World) -> None:
    run = world.run(Pending(name="InfrastructurePending"), failures=MOST_RETRIES)
    world.failed(run, terminated(1, since=seconds_ago(30)))
    last_lines = world._jobs.last_lines

    def overtaken(*given: Any, **named: Any) -> list[str]:
        world.leads = False
        return last_lines(*given, **named)

    world._jobs.last_lines = overtaken  # type: ignore[method-assign]

    assert world.turn() == 0
    assert prefect_server.state_of(run)[0] == "PENDING"


def test_runs_of_other_pools_are_others_to_judge(world: World) -> None:
    other = World(prefect_server.Pool.made("flows.catalogue:nothing"))
    run = other.run(Running())
    world.api.put(other.job(run, attempt=7))

    world.turn()

    assert prefect_server.state_of(run)[0] == "RUNNING"
    assert world.api.deleted == []


def test_finished_jobs_are_left_to_their_time(world: World) -> None:
    run = world.run(Completed())
    world.job(run, condition="Complete")
    world.pod(run, "Succeeded")

    assert world.turn() == 0
    assert world.api.deleted == []


def test_what_an_earlier_try_died_of_is_not_told_of_the_next(world: World) -> None:
    run = world.run(Running())
    world.failed(run, terminated(137, "OOMKilled", since=seconds_ago(30)))
    world.turn()
    assert prefect_server.state_of(run)[0] == "CRASHED"

    prefect_server.set_state(run, AwaitingRetry())
    prefect_server.set_state(run, Pending())  # a worker has it, and has not begun the attempt yet
    world.turn()
    assert prefect_server.state_of(run)[0] == "PENDING"

    world.begun(run, 2)
    world.job(run, attempt=2)
    world.pod(run, "Failed", attempt=2, state=terminated(137, "OOMKilled", since=seconds_ago(30)))
    world.turn()
    assert prefect_server.state_of(run)[:2] == ("FAILED", "CreateFailed")
