"""One connection of a subscription for several listeners of an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from infra.controllers.controller import Subscription


class SharedSubscription:
    """Connects with the first listener, and ends for all of them together."""

    def __init__(self, source: Subscription) -> None:
        """Share ``source``."""
        self._source = source
        self._listeners: list[Callable[[], None]] = []
        self._listening: asyncio.Task[None] | None = None
        self._connected = False

    async def listen(self, notify: Callable[[], None]) -> None:
        """Call ``notify`` once connected, then with each event, until the connection ends.

        Raises:
            Exception: If the source cannot connect, or loses the connection.
        """
        self._listeners.append(notify)
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen())
        elif self._connected:
            notify()
        listening = self._listening
        try:
            await asyncio.shield(listening)
        finally:
            self._listeners.remove(notify)
            if not self._listeners:
                listening.cancel()

    async def _listen(self) -> None:
        try:
            await self._source.listen(self._notify)
        finally:
            self._connected, self._listening = False, None

    def _notify(self) -> None:
        self._connected = True
        for notify in tuple(self._listeners):
            notify()
