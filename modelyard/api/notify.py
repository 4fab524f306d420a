"""Notifications, as ``modelyard notify``."""

from __future__ import annotations

from collections.abc import Collection

from flows.connection import connected
from infra.errors import BadInputError
from infra.smtp_mail import Security
from modelyard.api.verbs import noun, verb
from registry import deletion
from registry.notifications import notification_delivery, notifications
from registry.notifications.notification_targets import (
    MailTarget,
    NotificationTarget,
    SlackTarget,
    WebhookTarget,
)
from registry.notifications.notification_triggers import NotificationFilter, Occasion
from registry.notifications.notification_views import NotificationView
from registry.views import JsonObject


def check_one_target(webhook: str | None, slack: str | None, mail: Collection[str] | None) -> None:
    """Refuse no target, or several.

    Raises:
        BadInputError: With the code ``NotificationTarget``.
    """
    if sum(bool(one) for one in (webhook, slack, mail)) != 1:
        raise BadInputError(
            "A notification has one target.",
            "Give one of --webhook, --slack and --mail; --mail several times for several "
            "addresses.",
            code="NotificationTarget",
        )


def mail_target(
    recipients: Collection[str], smtp: str, sender: str, user: str, password: str,
    security: Security,
) -> MailTarget:  # fmt: skip
    """Build the target of mail; ``smtp`` is ``HOST`` or ``HOST:PORT``."""
    host, colon, port = smtp.rpartition(":")
    if not colon or port.endswith("]"):  # the end of an IPv6 address
        host, port = smtp, "0"
    addresses = tuple(recipients)
    return MailTarget(
        recipients=addresses,
        host=host,
        port=int(port) if port.isdecimal() else -1,
        sender=sender or (user if "@" in user else addresses[0]),
        security=security,
        user=user,
        password=password,
    )


def store(
    name: str, target: NotificationTarget, wanted: NotificationFilter, *, test: bool
) -> NotificationView:
    """Store a notification; with ``test``, and send a test message."""
    added = notifications.add(name, target, wanted)
    if test:
        notification_delivery.send_test(name)
    return added


def _add(
    name: str,
    *,
    on: Collection[str] = (Occasion.FAILURES,),
    webhook: str = "",
    slack: str = "",
    mail: Collection[str] = (),
    smtp: str = "",
    sender: str = "",
    smtp_user: str = "",
    smtp_password: str = "",
    smtp_security: Security = "starttls",
    flows: Collection[str] = (),
    schedules: Collection[str] = (),
    tags: Collection[str] = (),
    test: bool = False,
) -> NotificationView:
    """Add a notification, or replace the one of this name.

    Args:
        name: The notification's name.
        on: What to report: ``failures``, ``ends``, ``paused``.
        webhook: POST JSON to this URL.
        slack: Post to this incoming webhook of Slack, or of a chat that reads the same JSON.
        mail: Send mail to these addresses.
        smtp: The SMTP server, ``HOST`` or ``HOST:PORT``.
        sender: From; without, ``smtp_user`` or the first address.
        smtp_user: The user to log in as.
        smtp_password: Its password.
        smtp_security: ``starttls``, ``tls`` or ``none``.
        flows: Only runs of these flows.
        schedules: Only these schedules and their runs.
        tags: Only runs with all of these tags in Prefect.
        test: Whether to send a test message.

    Raises:
        BadInputError: With a code of its own for each fault.
        NotFoundError: If there is no such flow or schedule.
    """
    check_one_target(webhook, slack, mail)
    unknown = [one for one in on if one not in set(Occasion)]
    if unknown:
        raise BadInputError(
            f"{unknown[0]!r} is nothing that a notification reports.",
            f"Give some of: {', '.join(Occasion)}.",
            code="OccasionUnknown",
        )
    target: NotificationTarget
    if mail:
        target = mail_target(mail, smtp, sender, smtp_user, smtp_password, smtp_security)
    else:
        target = WebhookTarget(webhook) if webhook else SlackTarget(slack)
    wanted = NotificationFilter(
        on=tuple(Occasion(one) for one in dict.fromkeys(on)),
        flows=tuple(flows), schedules=tuple(schedules), tags=tuple(tags),
    )  # fmt: skip
    with connected():
        return store(name, target, wanted, test=test)


def _remove(name: str) -> JsonObject:
    """Remove a notification with its secrets."""
    return deletion.delete("notification", name)


@noun("notify")
class NotifyVerbs:
    """Notifications."""

    add = staticmethod(_add)
    list = staticmethod(verb(notifications.list_all))
    test = staticmethod(verb(notification_delivery.send_test))
    remove = staticmethod(verb(_remove))
