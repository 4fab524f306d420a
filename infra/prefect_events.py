"""Events of Prefect: Modelyard's own, and subscriptions of controllers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

from prefect.events import Event
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventAnyResourceFilter, EventFilter, EventNameFilter

from infra.prefect_client import prefect_client

RUNS = "prefect.flow-run."
POOLS = "prefect.work-pool."
QUEUES = "prefect.work-queue."
ENDED_RUNS = tuple(
    f"{RUNS}{name}" for name in ("Completed", "Failed", "TimedOut", "Crashed", "Cancelled")
)
PAUSED_SCHEDULE = "modelyard.schedule.paused"
TESTED_NOTIFICATION = "modelyard.notification.tested"
REASON_LABEL = "modelyard.reason"
_COMMIT_SECONDS = 1.0


def emit(
    name: str,
    resource: str,
    title: str,
    *,
    event_id: UUID,
    labels: Mapping[str, str] | None = None,
    related: Sequence[Mapping[str, str]] = (),
) -> None:
    """Send an event to Prefect, and return once its server has it.

    Args:
        name: Its name, such as ``PAUSED_SCHEDULE``.
        resource: Id of the resource that it is about.
        title: The resource's name.
        event_id: Its id. Prefect ignores an id that it has seen in the last minutes.
        labels: Further labels of the resource.
        related: Related resources, with their labels.

    Raises:
        httpx.HTTPError: If Prefect does not answer or refuses it.
    """
    event = Event.model_validate({
        "id": event_id,
        "event": name,
        "occurred": datetime.now(UTC),
        "resource": {
            "prefect.resource.id": resource, "prefect.resource.name": title, **(labels or {})
        },
        "related": [dict(one) for one in related],
    })  # fmt: skip
    with prefect_client() as client:
        client.request("POST", "/events", json=[event.model_dump(mode="json")]).raise_for_status()


def related(kind: str, key: str, name: str) -> dict[str, str]:
    """Build a related resource of Prefect's, such as a flow or a tag, as its own events have it.

    Args:
        kind: Its kind, which is its role as well.
        key: The part of its id after the kind.
        name: Its name; "" for none.
    """
    named = {"prefect.resource.name": name} if name else {}
    return {"prefect.resource.id": f"prefect.{kind}.{key}", "prefect.resource.role": kind} | named


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

    async def listen(
        self, notify: Callable[[], None], again: Callable[[], None] | None = None
    ) -> None:
        """Call ``notify`` once connected, and with each event.

        Args:
            notify: Called once connected and with each event.
            again: Called a second after the last of these; ``notify`` by default. Prefect emits
                an event before it commits what the event is about, so that a reader that is
                notified at once may read too early.

        Raises:
            Exception: If Prefect cannot be reached, or the connection breaks.
        """
        wanted = EventFilter(event=EventNameFilter(prefix=self._prefixes))
        if self._pool:
            wanted.any_resource = EventAnyResourceFilter(id=[f"prefect.work-pool.{self._pool}"])
        loop, later = asyncio.get_running_loop(), again or notify
        pending: asyncio.TimerHandle | None = None

        def tell() -> None:
            nonlocal pending
            notify()
            if pending:
                pending.cancel()
            pending = loop.call_later(_COMMIT_SECONDS, later)

        try:
            async with get_events_subscriber(filter=wanted, reconnection_attempts=0) as subscriber:
                tell()
                async for _ in subscriber:
                    tell()
        finally:
            if pending:
                pending.cancel()
