"""Outcomes of messages, read from the events that Prefect emits after an automation's action."""

from __future__ import annotations

from dataclasses import dataclass

from prefect.client.orchestration import SyncPrefectClient
from prefect.events import Event
from prefect.events.filters import (
    EventFilter,
    EventNameFilter,
    EventOrder,
    EventResourceFilter,
)

from registry.notifications.notification_targets import NotificationTarget

EXECUTED, FAILED = "prefect.automation.action.executed", "prefect.automation.action.failed"

_LONGEST_ANSWER = 200
_LONGEST_REASON = 500


@dataclass(frozen=True)
class Outcome:
    """The end of one message.

    Attributes:
        sent: Whether the target accepted it.
        answer: What a webhook answered, or why the message was not sent; "" for mail.
    """

    sent: bool
    answer: str


def outcome_of(event: Event, target: NotificationTarget) -> Outcome:
    """Read the outcome from an event of one of the two names, without the target's secrets."""
    payload = event.payload
    status = int(payload.get("status_code") or 0)
    body = str(payload.get("response_body") or "").strip().split("\n")[0][:_LONGEST_ANSWER]
    answer = f"{status} {body}".strip() if status else ""
    sent = event.event == EXECUTED and status < 300  # Prefect does not look at the status
    if not sent:
        reason = payload.get("notification_log") or payload.get("reason")
        answer = str(reason or f"It answered {answer}.")[:_LONGEST_REASON]
    return Outcome(sent, target.redact(answer))


def last_outcome(client: SyncPrefectClient, automation: str, target: NotificationTarget) -> str:
    """Return when the last message of an automation was sent, or why not; "" if there is none.

    Prefect stores events some seconds after they happen.
    """
    wanted = EventFilter(
        event=EventNameFilter(name=[EXECUTED, FAILED]),
        resource=EventResourceFilter(id=[f"prefect.automation.{automation}"]),
        order=EventOrder.DESC,
    )
    body = {"filter": wanted.model_dump(mode="json"), "limit": 1}
    found = client.request("POST", "/events/filter", json=body).raise_for_status().json()["events"]
    if not found:
        return ""
    event = Event.model_validate(found[0])
    outcome = outcome_of(event, target)
    at = f"{event.occurred:%Y-%m-%dT%H:%M:%SZ}"
    return f"sent {at}" if outcome.sent else f"failed {at}: {outcome.answer}"
