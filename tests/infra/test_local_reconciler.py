from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prefect.client.schemas.objects import FlowRun, State, StateType

from infra.controllers import Controller
from infra.home import Home
from infra.local_reconciler import LocalRunReconciler, ObservedRun, decide_state
from tests.locks import holding

POOLS = ("gpu", "cpu")

RUNNING = StateType.RUNNING
PENDING = StateType.PENDING
CANCELLING = StateType.CANCELLING


def _run(kind: StateType | None, pool: str | None = "gpu") -> FlowRun:
    state = State(type=kind) if kind else None
    return FlowRun(id=uuid.uuid4(), flow_id=uuid.uuid4(), state=state, work_pool_name=pool)


def _starts_none(_: uuid.UUID) -> bool:
    return False


@pytest.mark.parametrize(
    ("kind", "locked", "pool", "becomes"),
    [
        # A process executes it.
        (RUNNING, True, "gpu", None),
        (PENDING, True, "gpu", None),
        (CANCELLING, True, "gpu", None),
        # Its executor is gone.
        (RUNNING, False, "gpu", StateType.CRASHED),
        (CANCELLING, False, "gpu", StateType.CANCELLED),
        (PENDING, False, "gpu", StateType.SCHEDULED),
        # It never began here.
        (RUNNING, None, "cpu", StateType.CRASHED),
        (CANCELLING, None, "cpu", StateType.CANCELLED),
        (PENDING, None, "cpu", StateType.SCHEDULED),
        # It is another worker's, or was called in a process elsewhere.
        (RUNNING, None, "elsewhere", None),
        (PENDING, None, "elsewhere", None),
        (CANCELLING, None, None, None),
        # It was called in a process here that is gone.
        (RUNNING, False, None, StateType.CRASHED),
        # It is over, or Prefect knows no state.
        (StateType.COMPLETED, False, "gpu", None),
        (StateType.SCHEDULED, False, "gpu", None),
        (None, False, "gpu", None),
    ],
)
def test_states(
    kind: StateType | None, locked: bool | None, pool: str | None, becomes: StateType | None
) -> None:
    run = _run(kind, pool)

    found = decide_state(ObservedRun(run, locked, starting=False), POOLS)

    assert (found.type if found else None) == becomes


@pytest.mark.parametrize("kind", [RUNNING, PENDING, CANCELLING])
@pytest.mark.parametrize("locked", [True, False, None])
def test_a_run_that_a_worker_is_starting_or_concluding_is_left_to_it(
    kind: StateType, locked: bool | None
) -> None:
    assert decide_state(ObservedRun(_run(kind), locked, starting=True), POOLS) is None


def test_a_crashed_run_says_how_to_go_on() -> None:
    run = _run(RUNNING)

    found = decide_state(ObservedRun(run, locked=False, starting=False), POOLS)

    assert found is not None
    assert f"modelyard runs retry {run.id}" in (found.message or "")


@dataclass
class FakeClient:
    """Prefect's runs in memory; ``on_read`` happens after they were read."""

    runs: list[FlowRun]
    on_read: Any = None
    mended: dict[uuid.UUID, State[Any]] = field(default_factory=dict)
    writes: int = 0

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
        self.writes += 1


def _reconcile(client: FakeClient, home: Home, turns: int = 3, starts: Any = _starts_none) -> int:
    """Do so many rounds; how many states were set."""
    reconciler = LocalRunReconciler(
        client,
        home,
        POOLS,
        starts,
        lambda _: None,
        active_seconds=5.0,  # type: ignore[arg-type]
    )

    async def repeat() -> None:
        for _ in range(turns):
            await Controller("runs", reconciler, resync_seconds=60.0).reconcile()

    asyncio.run(repeat())
    return client.writes


def test_only_what_nobody_executes_is_mended(home: Home) -> None:
    executed, orphan, elsewhere = _run(RUNNING), _run(RUNNING), _run(RUNNING, "x")
    client = FakeClient([executed, orphan, elsewhere, _run(StateType.COMPLETED)])

    with holding(home, str(executed.id)):
        assert _reconcile(client, home) == 1

    assert {run: state.type for run, state in client.mended.items()} == {
        orphan.id: StateType.CRASHED
    }


def test_a_run_that_has_just_begun_is_not_judged_by_its_age(home: Home) -> None:
    """However long its process takes from Pending to Running and on, a worker has it."""
    old = State(type=PENDING, timestamp=datetime.now(UTC) - timedelta(hours=1))
    run = _run(None).model_copy(update={"state": old})
    client = FakeClient([run])

    assert _reconcile(client, home, starts=lambda run_id: run_id == run.id) == 0


def test_runs_beyond_the_first_page_are_mended_too(home: Home) -> None:
    orphan = _run(RUNNING)
    client = FakeClient([*(_run(RUNNING, "elsewhere") for _ in range(200)), orphan])

    assert _reconcile(client, home) == 1
    assert set(client.mended) == {orphan.id}


@pytest.mark.parametrize("kind", [StateType.COMPLETED, RUNNING])
def test_a_run_whose_state_changes_while_it_is_looked_at_is_left_alone(
    home: Home, kind: StateType
) -> None:
    """Its executor let go of the lock after it reported the end, or another one has begun."""
    run = _run(RUNNING)
    with holding(home, str(run.id)):
        pass

    def change() -> None:
        run.state = State(type=kind)

    client = FakeClient([run], on_read=change)

    assert _reconcile(client, home, turns=1) == 0


class TestRounds:
    def _after(self, home: Home, *runs: FlowRun) -> float:
        client = FakeClient(list(runs))
        reconciler = LocalRunReconciler(
            client,
            home,
            POOLS,
            _starts_none,
            lambda _: None,
            active_seconds=5.0,  # type: ignore[arg-type]
        )
        return asyncio.run(Controller("runs", reconciler, resync_seconds=60.0).reconcile())

    def test_while_a_run_is_active_they_follow_soon(self, home: Home) -> None:
        assert self._after(home, _run(RUNNING)) == 5.0
        assert self._after(home, _run(RUNNING, "elsewhere")) == 5.0
        assert self._after(home, _run(StateType.COMPLETED)) == 60.0

    def test_each_tidies_with_the_locks(self, home: Home) -> None:
        executed, ended = str(uuid.uuid4()), str(uuid.uuid4())
        with holding(home, ended):
            pass
        found: list[bool | None] = []

        def tidy(is_executed: Any) -> None:
            found.extend(is_executed(run) for run in (executed, ended, str(uuid.uuid4())))

        reconciler = LocalRunReconciler(
            FakeClient([]),
            home,
            POOLS,
            _starts_none,
            tidy,
            active_seconds=5.0,  # type: ignore[arg-type]
        )
        with holding(home, executed):
            asyncio.run(Controller("runs", reconciler, resync_seconds=60.0).reconcile())

        assert found == [True, False, None]
