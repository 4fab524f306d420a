"""Views of notifications."""

from __future__ import annotations

from registry.views import View


class NotificationView(View):
    """A notification, as lists show it.

    Attributes:
        name: Its name.
        on: What it reports: failures, ends, paused.
        kind: webhook, slack or mail.
        target: Where it goes, without secrets.
        flows: Names of the flows whose runs it reports; none for all.
        schedules: Names of the schedules whose runs it reports; none for all.
        tags: Tags that a run must have.
        enabled: Whether its automation is on, which is switched in Prefect's UI.
        automation_id: Id of its automation in Prefect.
        last: When its last message was sent, or failed and why; "" if there was none.
    """

    name: str
    on: list[str]
    kind: str
    target: str
    flows: list[str]
    schedules: list[str]
    tags: list[str]
    enabled: bool
    automation_id: str
    last: str


class NotificationTestView(View):
    """What became of a test message.

    Attributes:
        name: The notification's name.
        target: Where the message went, without secrets.
        sent: Whether the target accepted it.
        answer: What a webhook answered: its status, and the first line of its body; "" for mail.
    """

    name: str
    target: str
    sent: bool
    answer: str
