"""Tests of notifications: a message on demand, through Prefect's automation, and its outcome."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from uuid import UUID, uuid4

from prefect.events import Event
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventFilter, EventNameFilter, EventResourceFilter

from infra import prefect_events
from infra.errors import ConflictError, ModelyardError, StackError
from registry.notifications import notification_triggers, notifications
from registry.notifications.notification_outcomes import EXECUTED, FAILED, outcome_of
from registry.notifications.notification_targets import NotificationTarget
from registry.notifications.notification_views import NotificationTestView, NotificationView

_PATIENCE_SECONDS = 60.0
_AGAIN_SECONDS = 6.0  # an automation that was just added is not evaluated yet
_MOST_EVENTS = 5
_STORED_SECONDS = 10.0  # Prefect stores events every 5 s
_POLL_SECONDS = 0.5
_AUTOMATION = "prefect.automation."
_HINTS = {
    "mail": "Check --smtp, --smtp-security, --smtp-user and the password, and add it again.",
}
_HINT = "Check the URL, and that Prefect's server can reach it, and add it again."


def send_test(name: str, *, patience: float = _PATIENCE_SECONDS) -> NotificationTestView:
    """Have Prefect send a test message of a notification, and wait for the target's answer.

    Args:
        name: The notification.
        patience: Seconds to wait for Prefect to have sent it.

    Raises:
        NotFoundError: With the code ``NotificationUnknown``.
        ConflictError: With the code ``NotificationDisabled``.
        ModelyardError: With the code ``NotificationRefused``, if the target cannot be reached or
            refuses the message.
        StackError: With the code ``NotificationSilent``, if Prefect sends nothing.
    """
    view, target = notifications.show(name)
    if not view.enabled or target is None:
        raise ConflictError(
            f"The notification {name} is switched off in Prefect, or its block is gone.",
            "Switch it on in the Prefect UI (Automations), or add it again.",
            code="NotificationDisabled",
        )
    try:
        event = asyncio.run(_deliver(view, patience))
    except TimeoutError:
        raise StackError(
            f"Prefect has not sent the test of {name} within {patience:.0f} s.",
            "See the log of the part prefect: modelyard status, and the home's folder logs.",
            code="NotificationSilent",
        ) from None
    _await_stored(view)
    return _result(view, target, event)


def _await_stored(view: NotificationView) -> None:
    """Wait until Prefect has stored the outcome, seconds after it happened, so that lists show it.

    Args:
        view: The notification before the test.
    """
    deadline = time.monotonic() + _STORED_SECONDS
    while notifications.show(view.name)[0].last == view.last and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def _result(
    view: NotificationView, target: NotificationTarget, event: Event
) -> NotificationTestView:
    outcome = outcome_of(event, target)
    if not outcome.sent:
        again = f"The notification is kept. Test it again: modelyard notify test {view.name}"
        raise ModelyardError(
            f"The test of {view.name} did not arrive: {outcome.answer}",
            f"{_HINTS.get(view.kind, _HINT)} {again}",
            code="NotificationRefused",
        )
    return NotificationTestView(
        name=view.name, target=view.target, sent=True, answer=outcome.answer
    )


async def _deliver(view: NotificationView, patience: float) -> Event:
    """Emit test events until the automation is triggered; return the event of its action's end.

    Raises:
        TimeoutError: If there is none in time.
    """
    sent: set[str] = set()
    triggered = asyncio.Event()

    def emit() -> None:
        key = uuid4()
        sent.add(f"prefect.event.{key}")
        _emit(view, key)

    wanted = EventFilter(
        event=EventNameFilter(prefix=[_AUTOMATION]),
        resource=EventResourceFilter(id=[f"prefect.automation.{view.automation_id}"]),
    )
    async with (
        asyncio.timeout(patience),
        get_events_subscriber(filter=wanted) as events,
        _repeated(emit, triggered),
    ):
        async for event in events:
            # Those of real runs arrive as well.
            if sent.isdisjoint(one.id for one in event.related):
                continue
            triggered.set()
            if event.event in {EXECUTED, FAILED}:
                return event
    raise TimeoutError


@contextlib.asynccontextmanager
async def _repeated(emit: Callable[[], None], triggered: asyncio.Event) -> AsyncIterator[None]:
    """Call ``emit`` until ``triggered`` is set."""

    async def repeat() -> None:
        for _ in range(_MOST_EVENTS):
            await asyncio.to_thread(emit)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(triggered.wait(), _AGAIN_SECONDS)
                return

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _emit(view: NotificationView, key: UUID) -> None:
    """Emit a test event, which passes the notification's own filters."""
    tags = [*view.tags, *(f"schedule:{one}" for one in view.schedules[:1])]
    prefect_events.emit(
        prefect_events.TESTED_NOTIFICATION,
        notification_triggers.test_resource(view.name),
        view.name,
        event_id=key,
        related=[
            *(prefect_events.related("tag", tag, "") for tag in tags),
            *(prefect_events.related("flow", flow, flow) for flow in view.flows[:1]),
        ],
    )
