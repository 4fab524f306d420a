from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.states import AwaitingRetry, Completed, Scheduled

from infra import event_driven_worker
from infra.home import Home
from infra.local_worker import LocalWorker
from tests import prefect_server
from tests.prefect_server import Pool

pytestmark = pytest.mark.usefixtures("prefect_api")


@pytest.fixture
def polls(home: Home, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When Prefect was polled, by the clock of ``Clock``."""
    found: list[float] = []
    poll = PrefectClient.get_scheduled_flow_runs_for_work_pool

    async def watched(*given: Any, **named: Any) -> Any:
        found.append(Clock.now)
        return await poll(*given, **named)

    monkeypatch.setattr(PrefectClient, "get_scheduled_flow_runs_for_work_pool", watched)
    monkeypatch.setattr(event_driven_worker.time, "monotonic", lambda: Clock.now)
    monkeypatch.setenv("MODELYARD_HOME", str(home.root))
    return found


class Clock:
    now = 1000.0


def _look(pool: Pool, *steps: float | Callable[[], object]) -> list[list[UUID]]:
    """The runs that a worker finds at these times; what else is among them is done between."""

    async def look() -> list[list[UUID]]:
        worker = LocalWorker(work_pool_name=pool.name)
        found = []
        async with get_client() as client:
            worker._client = client
            for step in steps:
                if callable(step):
                    await asyncio.to_thread(step)
                    continue
                Clock.now = step
                found.append([one.flow_run.id for one in await worker._get_scheduled_flow_runs()])
        return found

    return asyncio.run(look())


def _in(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def test_a_pool_in_which_nothing_is_due_is_polled_every_thirty_seconds(polls: list[float]) -> None:
    ours, others = (Pool.made("flows.catalogue:nothing") for _ in range(2))
    others.run()
    ours.run(Scheduled(scheduled_time=_in(3600)))
    prefect_server.set_state(ours.run(), Completed())

    assert _look(ours, 1000.0, 1000.5, 1029.9, 1030.0, 1059.9) == [[]] * 5
    assert polls == [1000.0, 1030.0]


@pytest.mark.parametrize("state", [Scheduled, AwaitingRetry])
def test_what_is_due_is_found_at_once(state: Any, polls: list[float]) -> None:
    pool = Pool.made("flows.catalogue:nothing")
    made: list[UUID] = []

    def submit() -> None:
        made.append(pool.run(state()).id)

    assert _look(pool, 1000.0, submit, 1000.5) == [[], made]
    assert polls == [1000.0, 1000.5]


def test_an_event_has_a_run_found_at_once(polls: list[float]) -> None:
    """Without one the pool would be looked at after ten seconds of the clock, which stands."""
    pool = Pool.made("flows.catalogue:nothing")

    async def found() -> list[UUID]:
        worker = LocalWorker(work_pool_name=pool.name)
        taken: asyncio.Queue[UUID] = asyncio.Queue()

        async def submit(flow_run_response: Any) -> list[Any]:
            for one in flow_run_response:
                taken.put_nowait(one.flow_run.id)
            return []

        worker._submit_scheduled_flow_runs = submit  # type: ignore[method-assign]
        works = asyncio.create_task(worker.start())
        try:
            await asyncio.wait_for(worker.started.wait(), 60)
            run = await asyncio.to_thread(pool.run)
            while (one := await asyncio.wait_for(taken.get(), 60)) != run.id:
                pass
            return [one]
        finally:
            works.cancel()
            await asyncio.wait([works])

    assert len(asyncio.run(found())) == 1
