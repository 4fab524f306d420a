"""The worker against a real Prefect, with a cluster in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Cancelling, Scheduled
from sqlalchemy.exc import OperationalError

from infra.errors import BadInputError
from infra.instance_types import InstanceType
from infra.kubernetes import names
from infra.kubernetes.api_errors import ClusterError
from infra.kubernetes.attempt_spec import Placement
from infra.kubernetes.attempts import AttemptRecord
from infra.kubernetes.cluster import ClusterConfig
from infra.kubernetes.jobs import Jobs
from infra.kubernetes.worker import KubernetesWorker, WorkerDependencies
from tests import prefect_server
from tests.infra.kubernetes.fake_api import FakeApi, silent
from tests.infra.kubernetes.objects import job, pod
from tests.registry.fake_attempts import FakeAttempts

pytestmark = pytest.mark.usefixtures("prefect_api")

PLACEMENT = Placement(InstanceType(cpu=1, memory_gib=1))


@pytest.fixture
def pool() -> prefect_server.Pool:
    return prefect_server.Pool.made("flows.catalogue:nothing")


def placed(_: str, __: FlowRun) -> Placement:
    return PLACEMENT


def poll(
    pool: prefect_server.Pool,
    api: FakeApi,
    place: Callable[[str, FlowRun], Placement] = placed,
    attempts: FakeAttempts | None = None,
) -> None:
    """Let a worker look once for runs, and see to those that it finds."""
    jobs = Jobs(api, ClusterConfig(image="flows:1"))  # type: ignore[arg-type]
    means = WorkerDependencies(jobs, place, attempts or FakeAttempts())

    async def once() -> None:
        async with KubernetesWorker(pool.name, dependencies=means, name="w") as worker:
            await worker.get_and_submit_flow_runs()

    asyncio.run(once())


def only_job(api: FakeApi) -> dict[str, Any]:
    (found,) = [one for (kind, _), one in api.objects.items() if kind == "Job"]
    return found


def test_a_run_becomes_a_job_and_is_left_to_it(pool: prefect_server.Pool) -> None:
    run = pool.run(**{"modelyard.schedule": "s-1", "modelyard.slot": "2026-03-04T12:00:00Z"})
    api, attempts = FakeApi(), FakeAttempts()

    poll(pool, api, attempts=attempts)

    made = only_job(api)
    assert made["metadata"]["name"] == names.job_name(str(run.id), 1)
    assert made["metadata"]["labels"][names.SCHEDULE] == "s-1"
    assert made["metadata"]["labels"][names.POOL] == pool.name
    assert made["metadata"]["annotations"][names.SLOT] == "2026-03-04T12:00:00Z"
    now = prefect_server.read(run)
    assert now.state is not None
    assert now.state.type == StateType.PENDING
    assert attempts.of == {str(run.id): AttemptRecord(1, state_id=str(now.state_id))}
    assert now.infrastructure_pid == made["metadata"]["name"]


def test_the_workers_own_settings_stay_out_of_the_manifest(
    pool: prefect_server.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "canary-7302")
    pool.run()
    api = FakeApi()

    poll(pool, api)

    assert "canary-7302" not in str(only_job(api))
    assert "PREFECT_API_URL" not in str(only_job(api))


def test_each_start_is_an_attempt(pool: prefect_server.Pool) -> None:
    run = pool.run()
    api, attempts = FakeApi(), FakeAttempts()
    attempts.of[str(run.id)] = AttemptRecord(4)

    poll(pool, api, attempts=attempts)

    assert only_job(api)["metadata"]["name"] == names.job_name(str(run.id), 5)


def test_what_is_refused_ends_with_the_reason_and_is_not_tried_again(
    pool: prefect_server.Pool,
) -> None:
    run = pool.run()
    api = FakeApi()

    def refuse(_: str, __: FlowRun) -> Placement:
        raise BadInputError("It asks for 9 GPUs, and there are 8.", "Ask less.", code="TooMany")

    poll(pool, api, refuse)
    poll(pool, api)

    kind, name, message = prefect_server.state_of(run)
    assert (kind, name) == ("FAILED", "CreateFailed")
    assert message == "TooMany: It asks for 9 GPUs, and there are 8. Ask less."
    assert api.objects == {}


def test_while_the_cluster_does_not_answer_a_run_waits_and_says_so(
    pool: prefect_server.Pool,
) -> None:
    run = pool.run()
    api, attempts = FakeApi(), FakeAttempts()
    api.fails["create Job"] = silent()

    poll(pool, api, attempts=attempts)

    now = prefect_server.read(run)
    assert now.state is not None
    assert now.state.type == StateType.SCHEDULED
    assert now.state.state_details.scheduled_time is not None
    assert now.state.state_details.scheduled_time > now.state.timestamp
    assert "gave no answer" in attempts.of[str(run.id)].waiting
    assert api.objects == {}


@pytest.mark.parametrize(
    "env", [{"HF_TOKEN": "canary-7302"}, {"PROXY": "http://me:canary-7302@proxy"}]
)
def test_a_secret_among_the_variables_of_a_deployment_is_refused(
    pool: prefect_server.Pool, env: dict[str, str]
) -> None:
    with get_client(sync_client=True) as client:
        run = client.create_flow_run_from_deployment(
            pool.deployment, state=Scheduled(), job_variables={"env": {"EPOCHS": "3", **env}}
        )
    api = FakeApi()

    poll(pool, api)

    kind, _, message = prefect_server.state_of(run)
    assert kind == "FAILED"
    assert message.startswith(f"SecretInEnvironment: The variable {next(iter(env))}")
    assert "canary" not in message
    assert api.objects == {}


def test_while_a_quota_is_used_up_a_run_waits_and_says_so(pool: prefect_server.Pool) -> None:
    run = pool.run()
    api, attempts = FakeApi(), FakeAttempts()
    api.fails["create Job"] = ClusterError(
        "exceeded quota: q, requested: count/jobs.batch=1", code="QuotaExceeded", later=True
    )

    poll(pool, api, attempts=attempts)

    assert prefect_server.state_of(run)[0] == "SCHEDULED"
    assert "count/jobs.batch=1" in attempts.of[str(run.id)].waiting


def test_while_the_catalogue_is_away_a_run_waits_and_says_so(
    pool: prefect_server.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = pool.run()
    api, attempts = FakeApi(), FakeAttempts()

    def away(*_: str) -> int:
        raise OperationalError("insert", {}, OSError("connection refused"))

    monkeypatch.setattr(attempts, "begin", away)
    poll(pool, api, attempts=attempts)

    kind, _, message = prefect_server.state_of(run)
    assert kind == "SCHEDULED"
    assert message == "The catalogue's database does not answer."
    assert api.objects == {}


def test_a_new_attempt_waits_for_the_end_of_the_old_one(pool: prefect_server.Pool) -> None:
    run = pool.run()
    old = str(run.id)
    api, attempts = FakeApi(job(run=old), pod(run=old)), FakeAttempts()
    attempts.begin(old, "")

    poll(pool, api, attempts=attempts)

    assert prefect_server.state_of(run)[0] == "SCHEDULED"
    assert [(kind, grace) for kind, _, grace in api.deleted] == [("Job", None), ("Pod", None)]
    assert ("Job", names.job_name(old, 2)) not in api.objects


def test_a_run_that_is_stopped_meanwhile_keeps_that(pool: prefect_server.Pool) -> None:
    run = pool.run()
    api = FakeApi()
    api.fails["create Job"] = silent()

    def stopped(_: str, __: FlowRun) -> Placement:
        prefect_server.set_state(run, Cancelling())
        return PLACEMENT

    poll(pool, api, stopped)

    assert prefect_server.state_of(run)[0] == "CANCELLING"


def test_an_error_of_ours_ends_the_run(pool: prefect_server.Pool) -> None:
    run = pool.run()

    def broken(_: str, __: FlowRun) -> Placement:
        raise ZeroDivisionError

    poll(pool, FakeApi(), broken)

    assert prefect_server.state_of(run)[0] == "CRASHED"
