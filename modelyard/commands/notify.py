"""``modelyard notify``."""

from __future__ import annotations

from typing import Annotated

import typer

from infra.smtp_mail import Security
from modelyard import output, secret_input
from modelyard.api import notify as api
from modelyard.connecting import connected
from modelyard.options import Json
from registry import deletion
from registry.notifications import notification_delivery, notification_targets, notifications
from registry.notifications.notification_targets import (
    NotificationTarget,
    SlackTarget,
    WebhookTarget,
)
from registry.notifications.notification_triggers import NotificationFilter, Occasion

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Report failed runs, ended runs or paused schedules by webhook, Slack or mail.",
)

SECRET_VARIABLE = "MODELYARD_NOTIFY_SECRET"  # noqa: S105 (a variable's name)
_COLUMNS = ("name", "on", "kind", "target", "flows", "schedules", "tags", "enabled", "last")
_IN_HISTORY = (
    "The URL seems to hold a secret, and is in your shell's history now. Write - instead of it "
    "to be asked for it."
)

Notification = Annotated[str, typer.Argument(help="Name of the notification.")]
On = Annotated[
    list[Occasion] | None,
    typer.Option(
        help="What to report; may be given several times. failures: runs that failed, timed out "
        "or crashed. ends: every run that ended. paused: schedules that paused themselves. "
        "Without, failures."
    ),
]
Webhook = Annotated[
    str | None, typer.Option(metavar="URL", help="POST JSON to this URL; - asks for it.")
]
Slack = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Post to this incoming webhook of Slack, or of a chat that reads the same JSON "
        "(Mattermost, Rocket.Chat); - to be asked for it.",
    ),
]
Mail = Annotated[
    list[str] | None,
    typer.Option(metavar="ADDRESS", help="Send mail to this address."),
]
Smtp = Annotated[str, typer.Option(metavar="HOST[:PORT]", help="SMTP server of --mail.")]
Sender = Annotated[
    str,
    typer.Option(
        "--from",
        metavar="ADDRESS",
        help="Sender of the mail; --smtp-user or the first --mail if left out.",
    ),
]
SmtpUser = Annotated[str, typer.Option(help="User of the SMTP server; the password is asked for.")]
SmtpSecurity = Annotated[
    Security, typer.Option(help="STARTTLS, TLS from the start, or no encryption.")
]


@app.command()
def add(
    name: Notification,
    on: On = None,
    webhook: Webhook = None,
    slack: Slack = None,
    mail: Mail = None,
    smtp: Smtp = "",
    sender: Sender = "",
    smtp_user: SmtpUser = "",
    smtp_security: SmtpSecurity = "starttls",
    flow: Annotated[
        list[str] | None,
        typer.Option(metavar="FLOW", help="Only runs of this flow."),
    ] = None,
    schedule: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this schedule and its runs."),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TAG", help="Only runs with this tag in Prefect; all of them if repeated."
        ),
    ] = None,
    test: Annotated[bool, typer.Option("--test", help="Send a test message afterwards.")] = False,
    json: Json = False,
) -> None:
    """Add a notification, or replace the one of this name.

    A secret, such as a URL or the password of --smtp-user, is taken from the variable
    MODELYARD_NOTIFY_SECRET, else from a prompt, else from standard input.
    """
    wanted = NotificationFilter(
        on=tuple(dict.fromkeys(on or [Occasion.FAILURES])),
        flows=tuple(flow or ()),
        schedules=tuple(schedule or ()),
        tags=tuple(tag or ()),
    )
    target = _target(webhook, slack, mail)
    if target is None:
        asked = f"Password of {smtp_user}"
        password = secret_input.read(asked, SECRET_VARIABLE) if smtp_user else ""
        target = api.mail_target(mail or (), smtp, sender, smtp_user, password, smtp_security)
    with connected():
        added = api.store(name, target, wanted, test=test)
    output.thing(added, as_json_=json)


def _target(
    webhook: str | None, slack: str | None, mail: list[str] | None
) -> NotificationTarget | None:
    """Return the target that has a URL; None for mail.

    Raises:
        BadInputError: With the code ``NotificationTarget``, unless exactly one is given.
    """
    api.check_one_target(webhook, slack, mail)
    url = webhook or slack
    if url is None:
        return None
    if url == secret_input.FROM_INPUT:
        url = secret_input.read("URL", SECRET_VARIABLE)
    elif notification_targets.holds_secret(url):
        output.warning(_IN_HISTORY)
    return WebhookTarget(url) if webhook else SlackTarget(url)


@app.command("list")
def list_(json: Json = False) -> None:
    """List every notification; secrets are not shown."""
    with connected():
        found = notifications.list_all()
    columns = [name for name in _COLUMNS if any(row[name] not in ("", []) for row in found)]
    output.rows(found, columns, as_json_=json)


@app.command("test")
def send_test(name: Notification, json: Json = False) -> None:
    """Send a test message, and report whether the target accepted it."""
    with connected():
        output.thing(notification_delivery.send_test(name), as_json_=json)


@app.command()
def remove(name: Notification, json: Json = False) -> None:
    """Remove a notification with its secrets."""
    with connected():
        output.thing(deletion.delete("notification", name), as_json_=json)
