"""The scheduler's process: its controller waits, is woken, and survives errors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress

import pytest
from sqlalchemy.exc import OperationalError

from infra.controllers import ALWAYS_LEADER, ThreadedReconciler
from infra.home import Home
from modelyard import scheduler
from registry import catalogue
from tests.infra.controllers.silent import SilentSubscription
from tests.registry.conftest import new_database
from tests.registry.test_channels import notify_schedule


@pytest.fixture(autouse=True)
def _catalogue(database_home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MODELYARD_DATABASE_URL", new_database(database_home))
    monkeypatch.setattr(scheduler, "EventSubscription", SilentSubscription)
    catalogue.migrate()
    yield
    catalogue.engine().dispose()


class Scripted:
    """A scheduler whose rounds do as they are told, one after the other."""

    def __init__(self, *rounds: float | Exception) -> None:
        self.left = list(rounds)
        self.done = asyncio.Event()

    def observe(self) -> None:
        """Observe nothing."""

    def decide(self, observed: None) -> float | Exception:
        return self.left.pop(0)

    def act(self, plan: float | Exception) -> float:
        if isinstance(plan, Exception):
            raise plan
        return plan


def _work(scripted: Scripted, *, ringing: bool = False) -> None:
    async def until_done() -> None:
        made = scheduler.controller(ThreadedReconciler(scripted), ALWAYS_LEADER)
        loop = asyncio.create_task(made.run())
        async with asyncio.timeout(60):
            while scripted.left:
                if ringing:
                    await asyncio.to_thread(notify_schedule)
                await asyncio.sleep(0.01)
        loop.cancel()
        with suppress(asyncio.CancelledError):
            await loop

    asyncio.run(until_done())


def test_it_goes_on_after_any_error(caplog: pytest.LogCaptureFixture) -> None:
    gone = OperationalError("SELECT 1", {}, Exception("gone"))
    _work(Scripted(gone, ValueError("odd"), 0.0, 0.01))

    assert "a server does not answer" in caplog.text
    assert "odd" in caplog.text


def test_a_written_schedule_wakes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_RESYNC_SECONDS", "_POLL_SECONDS"):
        monkeypatch.setattr(scheduler, name, 3600.0)
    _work(Scripted(0.0, 3600.0, 3600.0, 3600.0), ringing=True)
