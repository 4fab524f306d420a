from __future__ import annotations

import asyncio
import contextlib
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prefect.client.schemas.objects import FlowRun, State, StateType

from infra import worker
from infra.home import Home
from tests.locks import holding

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
LONG_AGO = NOW - timedelta(hours=1)
POOLS = ("gpu", "cpu")

RUNNING = StateType.RUNNING
PENDING = StateType.PENDING
CANCELLING = StateType.CANCELLING


def _run(kind: StateType | None, since: datetime, pool: str | None = "gpu") -> FlowRun:
    state = State(type=kind, timestamp=since) if kind else None
    return FlowRun(id=uuid.uuid4(), flow_id=uuid.uuid4(), state=state, work_pool_name=pool)


@pytest.mark.parametrize(
    ("kind", "age", "locked", "pool", "becomes"),
    [
        # Somebody executes it.
        (RUNNING, 3600, True, "gpu", None),
        (PENDING, 3600, True, "gpu", None),
        (CANCELLING, 3600, True, "gpu", None),
        # Its executor is gone.
        (RUNNING, 16, False, "gpu", StateType.CRASHED),
        (RUNNING, 14, False, "gpu", None),
        (CANCELLING, 16, False, "gpu", StateType.CANCELLED),
        (CANCELLING, 14, False, "gpu", None),
        (PENDING, 61, False, "gpu", StateType.SCHEDULED),
        (PENDING, 59, False, "gpu", None),
        # It never began here.
        (RUNNING, 16, None, "cpu", StateType.CRASHED),
        (CANCELLING, 16, None, "cpu", StateType.CANCELLED),
        (PENDING, 61, None, "cpu", StateType.SCHEDULED),
        # It is another worker's, or was called in a process elsewhere.
        (RUNNING, 3600, None, "elsewhere", None),
        (PENDING, 3600, None, "elsewhere", None),
        (CANCELLING, 3600, None, None, None),
        # It was called in a process here that is gone.
        (RUNNING, 16, False, None, StateType.CRASHED),
        # Prefect knows no state.
        (None, 0, False, "gpu", None),
    ],
)
def test_verdict(
    kind: StateType | None,
    age: float,
    locked: bool | None,
    pool: str | None,
    becomes: StateType | None,
) -> None:
    run = _run(kind, NOW - timedelta(seconds=age), pool)

    found = worker.verdict(run, locked=locked, pools=POOLS, started=LONG_AGO, now=NOW)

    assert (found.type if found else None) == becomes


@pytest.mark.parametrize(
    ("pending_before_start", "up_for", "queued"),
    [(1, 6, True), (1, 4, False), (-1, 6, False)],
)
def test_what_a_dead_worker_left_pending_is_queued_soon(
    pending_before_start: float, up_for: float, queued: bool
) -> None:
    started = NOW - timedelta(seconds=up_for)
    run = _run(PENDING, started - timedelta(seconds=pending_before_start))

    found = worker.verdict(run, locked=None, pools=POOLS, started=started, now=NOW)

    assert (found is not None) is queued


def test_a_crashed_run_says_how_to_go_on() -> None:
    run = _run(RUNNING, LONG_AGO)

    found = worker.verdict(run, locked=False, pools=POOLS, started=LONG_AGO, now=NOW)

    assert found is not None
    assert f"modelyard runs retry {run.id}" in (found.message or "")


@dataclass
class FakeClient:
    """Prefect's runs in memory; ``on_read`` happens after they were read."""

    runs: list[FlowRun]
    on_read: Any = None
    mended: dict[uuid.UUID, State[Any]] = field(default_factory=dict)

    async def read_flow_runs(
        self,
        *,
        flow_run_filter: Any,
        work_pool_filter: Any = None,
        sort: Any = None,
        limit: int = 200,
        offset: int = 0,
    ) -> list[FlowRun]:
        assert work_pool_filter is None
        wanted = flow_run_filter.state.type.any_
        found = [run.model_copy() for run in self.runs if run.state and run.state.type in wanted]
        if self.on_read:
            self.on_read()
        return found[offset : offset + limit]

    async def read_flow_run(self, flow_run_id: uuid.UUID) -> FlowRun:
        return next(run for run in self.runs if run.id == flow_run_id).model_copy()

    async def set_flow_run_state(
        self, flow_run_id: uuid.UUID, state: State[Any], force: bool = False
    ) -> None:
        run = next(run for run in self.runs if run.id == flow_run_id)
        run.state = state
        self.mended[flow_run_id] = state


def _reconcile(client: FakeClient, home: Home, turns: int = 3) -> int:
    async def repeat() -> int:
        return sum(
            [await worker.reconcile(client, home, POOLS, LONG_AGO) for _ in range(turns)]  # type: ignore[arg-type]
        )

    return asyncio.run(repeat())


def test_only_what_nobody_executes_is_mended(home: Home) -> None:
    old = datetime.now(UTC) - timedelta(minutes=5)
    executed, orphan, elsewhere = _run(RUNNING, old), _run(RUNNING, old), _run(RUNNING, old, "x")
    ended = _run(StateType.COMPLETED, old)
    client = FakeClient([executed, orphan, elsewhere, ended])

    with holding(home, str(executed.id)):
        assert _reconcile(client, home) == 1

    assert {run: state.type for run, state in client.mended.items()} == {
        orphan.id: StateType.CRASHED
    }


def test_runs_beyond_the_first_page_are_mended_too(home: Home) -> None:
    old = datetime.now(UTC) - timedelta(minutes=5)
    orphan = _run(RUNNING, old)
    client = FakeClient([*(_run(RUNNING, old, "elsewhere") for _ in range(200)), orphan])

    assert _reconcile(client, home) == 1
    assert set(client.mended) == {orphan.id}


def test_a_run_that_ends_while_it_is_looked_at_is_left_alone(home: Home) -> None:
    """An executor lets go of its lock just before Prefect has the run's final state."""
    run = _run(RUNNING, datetime.now(UTC) - timedelta(minutes=5))
    with holding(home, str(run.id)):
        pass

    def complete() -> None:
        run.state = State(type=StateType.COMPLETED)

    client = FakeClient([run], on_read=complete)
    _reconcile(client, home)

    assert client.mended == {}


class TestPools:
    """Pools that become a cluster's, or this machine's again, while a worker serves them."""

    @pytest.fixture(autouse=True)
    def _turns(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found: list[Any] = []

        async def local_ones(*_: Any) -> Any:
            turn = self.found.pop(0)
            if isinstance(turn, Exception):
                raise turn
            return turn

        @contextlib.asynccontextmanager
        async def client() -> Any:
            yield None

        monkeypatch.setattr(worker, "_POOLS_SECONDS", 0)
        monkeypatch.setattr(worker, "get_client", client)
        monkeypatch.setattr(worker.work_pools, "local_ones", local_ones)

    @pytest.mark.parametrize("now", [("cpu",), (), ("gpu", "cpu", "more")])
    def test_a_worker_ends_when_its_pools_change(self, now: tuple[str, ...]) -> None:
        self.found = [POOLS, OSError("no answer"), POOLS, now]
        with pytest.raises(worker.PoolsChangedError):
            asyncio.run(worker._until_changed(POOLS, POOLS))

        assert self.found == []

    def test_only_this_machines_are_served(
        self, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        served: list[str] = []

        class Worker:
            def __init__(self, work_pool_name: str, **_: Any) -> None:
                served.append(work_pool_name)

                self.started = asyncio.Event()

            async def start(self) -> None:
                self.started.set()

        async def ended(_: Any, pools: tuple[str, ...], __: Any) -> None:
            served.append(f"reconciles {pools}")
            raise KeyError

        monkeypatch.setattr(worker, "LocalWorker", Worker)
        monkeypatch.setattr(worker, "_reconcile_for_ever", ended)
        monkeypatch.setattr(worker, "_POOLS_SECONDS", 60)
        self.found = [("cpu",)]
        with pytest.raises(ExceptionGroup):
            asyncio.run(worker.work(POOLS, lambda _: None))

        assert served == ["cpu", "reconciles ('cpu',)"]
