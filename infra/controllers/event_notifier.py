"""Events for code that has no event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence

from infra.controllers.controller import Controller, PeriodicTask, Subscription

_SETTLE_SECONDS = 0.1
_CLOSE_SECONDS = 2.0


class EventNotifier:
    """A controller in a thread, which only notifies."""

    def __init__(
        self,
        name: str,
        notify: Callable[[], None],
        subscriptions: Sequence[Subscription],
        *,
        resync_seconds: float,
        poll_seconds: float,
    ) -> None:
        """Start the thread.

        Args:
            name: Its name, and that of its controller in the log.
            notify: Called in the thread; returns at once.
            subscriptions: The events.
            resync_seconds: The longest time between two notifications.
            poll_seconds: The same while a subscription is not connected.
        """

        async def wake() -> None:
            notify()

        controller = Controller(
            name,
            PeriodicTask(wake),
            resync_seconds=resync_seconds,
            poll_seconds=poll_seconds,
            settle_seconds=_SETTLE_SECONDS,
            subscriptions=subscriptions,
        )
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(controller.run())
        self._thread = threading.Thread(target=self._run, daemon=True, name=name)
        self._thread.start()

    def close(self) -> None:
        """Notify no more; returns within two seconds."""
        with contextlib.suppress(RuntimeError):  # its loop is closed
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._task)
        self._loop.close()
