"""Prefect's events, as a subscription of a controller."""

from __future__ import annotations

from collections.abc import Callable

from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventFilter, EventNameFilter

# Changes of runs, and of what decides which runs may start.
RUNS_AND_POOLS = ("prefect.flow-run.", "prefect.work-pool.", "prefect.work-queue.")


class EventSubscription:
    """Events whose names have one of some prefixes, through Prefect's websocket."""

    def __init__(self, *prefixes: str) -> None:
        """Subscribe to events with these prefixes when a controller listens."""
        self._prefixes = list(prefixes)

    async def listen(self, notify: Callable[[], None]) -> None:
        """Call ``notify`` once connected, and with each event.

        Raises:
            Exception: If Prefect cannot be reached, or the connection breaks.
        """
        wanted = EventFilter(event=EventNameFilter(prefix=self._prefixes))
        async with get_events_subscriber(filter=wanted, reconnection_attempts=0) as subscriber:
            notify()
            async for _ in subscriber:
                notify()
