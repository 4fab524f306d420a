"""Threads that are woken by events."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from infra.controllers import EventNotifier, Subscription
from tests.infra.controllers.silent import SilentSubscription
from tests.processes import eventually


class Sent:
    """Events that the test sends."""

    def __init__(self) -> None:
        self.send: Callable[[], object] | None = None

    async def listen(self, notify: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self.send = lambda: loop.call_soon_threadsafe(notify)
        await asyncio.Event().wait()


class Broken:
    """Events that cannot be had."""

    async def listen(self, notify: Callable[[], None]) -> None:
        raise OSError("no connection")


def test_each_event_notifies_until_it_is_closed() -> None:
    sent, told = Sent(), threading.Event()
    notifier = EventNotifier("it", told.set, [sent], resync_seconds=1000, poll_seconds=1000)
    eventually(lambda: sent.send, "it listens")
    assert sent.send is not None
    for _ in range(2):
        told.clear()
        sent.send()
        assert told.wait(60)
    notifier.close()

    assert not notifier._thread.is_alive()
    notifier.close()  # does nothing


@pytest.mark.parametrize(
    ("subscription", "resync", "poll"),
    [(SilentSubscription(), 0.01, 1000.0), (Broken(), 1000.0, 0.01)],
)
def test_without_events_it_notifies_at_the_interval(
    subscription: Subscription, resync: float, poll: float
) -> None:
    told = threading.Semaphore(0)
    notifier = EventNotifier(
        "it", told.release, [subscription], resync_seconds=resync, poll_seconds=poll
    )
    assert all(told.acquire(timeout=60) for _ in range(4))
    notifier.close()
