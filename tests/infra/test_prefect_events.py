"""Subscriptions to events of Prefect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from infra import prefect_events
from infra.prefect_events import RUNS, EventSubscription


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> asyncio.Queue[str | None]:
    """Events that Prefect sends; None closes the connection."""
    sent: asyncio.Queue[str | None] = asyncio.Queue()

    @asynccontextmanager
    async def subscriber(**_: Any) -> AsyncIterator[AsyncIterator[str]]:
        async def received() -> AsyncIterator[str]:
            while (event := await sent.get()) is not None:
                yield event

        yield received()

    monkeypatch.setattr(prefect_events, "get_events_subscriber", subscriber)
    monkeypatch.setattr(prefect_events, "_COMMIT_SECONDS", 0.01)
    return sent


def test_a_reader_that_an_event_reached_before_its_commit_is_notified_again(
    events: asyncio.Queue[str | None],
) -> None:
    told: list[str] = []

    async def follow() -> None:
        again = asyncio.Event()

        def later() -> None:
            told.append("again")
            again.set()

        listening = asyncio.create_task(
            EventSubscription(RUNS).listen(lambda: told.append("event"), later)
        )
        await again.wait()  # once it is connected
        again.clear()
        events.put_nowait("one")
        events.put_nowait("two")
        await again.wait()
        events.put_nowait(None)
        await listening

    asyncio.run(asyncio.wait_for(follow(), 30))

    assert told == ["event", "again", "event", "event", "again"]


def test_what_ends_is_not_notified_later(events: asyncio.Queue[str | None]) -> None:
    told: list[str] = []

    async def follow() -> None:
        events.put_nowait(None)
        await EventSubscription(RUNS).listen(lambda: told.append("event"))
        await asyncio.sleep(0.05)

    asyncio.run(follow())

    assert told == ["event"]
