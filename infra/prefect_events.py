"""Subscription of a controller to Prefect's events."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventAnyResourceFilter, EventFilter, EventNameFilter

RUNS = "prefect.flow-run."
POOLS = "prefect.work-pool."
QUEUES = "prefect.work-queue."
ENDED_RUNS = tuple(
    f"{RUNS}{name}" for name in ("Completed", "Failed", "TimedOut", "Crashed", "Cancelled")
)


class EventSubscription:
    """Subscription to events by name prefix, through Prefect's websocket."""

    def __init__(self, *prefixes: str, pool: UUID | None = None) -> None:
        """Subscribe when a controller listens.

        Args:
            prefixes: Prefixes of the events' names.
            pool: Restrict to events related to this work pool.
        """
        self._prefixes = list(prefixes)
        self._pool = pool

    async def listen(self, notify: Callable[[], None]) -> None:
        """Call ``notify`` once connected, and with each event.

        Raises:
            Exception: If Prefect cannot be reached, or the connection breaks.
        """
        wanted = EventFilter(event=EventNameFilter(prefix=self._prefixes))
        if self._pool:
            wanted.any_resource = EventAnyResourceFilter(id=[f"prefect.work-pool.{self._pool}"])
        async with get_events_subscriber(filter=wanted, reconnection_attempts=0) as subscriber:
            notify()
            async for _ in subscriber:
                notify()
