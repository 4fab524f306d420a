"""Targets of notifications: a webhook, a chat that reads Slack's format, and mail.

A target is kept in a block of Prefect's, with its secrets, and nowhere else.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self
from urllib.parse import SplitResult, urlsplit
from uuid import UUID

from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.webhook import Webhook
from prefect.events.actions import ActionTypes, CallWebhook, SendNotification
from prefect.types import SecretDict
from pydantic import SecretStr

from infra.errors import BadInputError
from infra.masking import MASK
from infra.smtp_mail import PORTS, Security, SmtpMail
from registry.notifications import notification_messages as messages

_JSON = {"Content-Type": "application/json"}
_ADDRESS = re.compile(r"[^\s@<>,;:\"()\[\]\\]+@[^\s@<>,;:\"()\[\]\\]+")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]+\]")


class NotificationTarget(ABC):
    """Where a notification goes.

    Attributes:
        kind: Its word in the command and in tags.
        block_type: The slug of the block that keeps it.
    """

    kind: ClassVar[str]
    block_type: ClassVar[str]

    @abstractmethod
    def block(self) -> Webhook | NotificationBlock:
        """Build the block that keeps the target."""

    @classmethod
    @abstractmethod
    def action(cls, block: UUID) -> ActionTypes:
        """Build the action that sends a message to the target kept in ``block``."""

    @classmethod
    @abstractmethod
    def from_block(cls, data: Mapping[str, Any]) -> Self:
        """Read a target from its block's data, with secrets."""

    @abstractmethod
    def describe(self) -> str:
        """Return where it goes, without secrets."""

    @abstractmethod
    def redact(self, text: str) -> str:
        """Replace the target's secrets in what a server answered."""


@dataclass(frozen=True)
class WebhookTarget(NotificationTarget):
    """A URL that accepts JSON by POST. The URL may hold a token."""

    url: str = field(repr=False)

    kind = "webhook"
    block_type = "webhook"
    payload: ClassVar[str] = messages.WEBHOOK

    def __post_init__(self) -> None:
        """Check the URL.

        Raises:
            BadInputError: With the code ``NotificationUrlInvalid``.
        """
        parts = _split(self.url)
        if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname:
            raise BadInputError(
                f"The URL of a {self.kind} must be http:// or https:// with a host.",
                "Paste it whole, without quotes or spaces.",  # it may be a secret: not quoted here
                code="NotificationUrlInvalid",
            )

    def block(self) -> Webhook:  # noqa: D102
        return Webhook(url=SecretStr(self.url), headers=SecretDict(_JSON))

    @classmethod
    def action(cls, block: UUID) -> ActionTypes:  # noqa: D102
        return CallWebhook(block_document_id=block, payload=cls.payload)

    @classmethod
    def from_block(cls, data: Mapping[str, Any]) -> Self:  # noqa: D102
        return cls(str(data["url"]))

    def describe(self) -> str:  # noqa: D102
        parts = _split(self.url)
        assert parts is not None
        rest = f"/{MASK}" if parts.path.strip("/") or parts.query else ""
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{rest}"

    def redact(self, text: str) -> str:  # noqa: D102
        parts = _split(self.url)
        assert parts is not None
        secrets = [self.url, parts.query, *(one for one in parts.path.split("/") if len(one) > 7)]
        return _without(text, [*secrets, parts.password or ""])


@dataclass(frozen=True)
class SlackTarget(WebhookTarget):
    """An incoming webhook of Slack, or of a chat that reads the same JSON."""

    kind = "slack"
    payload = messages.SLACK


@dataclass(frozen=True)
class MailTarget(NotificationTarget):
    """Addresses, and the SMTP server that mail is handed to.

    Attributes:
        recipients: Addresses in To.
        host: The SMTP server.
        sender: Address in From.
        security: TLS after the greeting, from the start, or none.
        port: Its port; 0 for the usual one.
        user: The user to log in as; "" for no login.
        password: The user's password.
    """

    recipients: tuple[str, ...]
    host: str
    sender: str
    security: Security = "starttls"
    port: int = 0
    user: str = ""
    password: str = field(default="", repr=False)

    kind = "mail"
    block_type = SmtpMail.get_block_type_slug()

    def __post_init__(self) -> None:
        """Check addresses and server.

        Raises:
            BadInputError: With the code ``MailAddressInvalid`` or ``SmtpServerInvalid``.
        """
        for address in (*self.recipients, self.sender):
            if not _ADDRESS.fullmatch(address):
                raise BadInputError(
                    f"{address[:80]!r} is not a mail address.",
                    "Write it as name@example.com, without a display name.",
                    code="MailAddressInvalid",
                )
        if not self.host:
            raise BadInputError(
                "The mail server is missing.",
                "Write --smtp HOST or --smtp HOST:PORT.",
                code="SmtpServerInvalid",
            )
        if not _HOST.fullmatch(self.host) or not 0 <= self.port <= 65535:
            raise BadInputError(
                f"{self.host[:80]!r} with the port {self.port} is not an SMTP server.",
                "Write --smtp HOST or --smtp HOST:PORT.",
                code="SmtpServerInvalid",
            )

    def block(self) -> SmtpMail:  # noqa: D102
        return SmtpMail(
            host=self.host,
            port=self.port or PORTS[self.security],
            security=self.security,
            user=self.user,
            password=SecretStr(self.password),
            sender=self.sender,
            recipients=list(self.recipients),
        )

    @classmethod
    def action(cls, block: UUID) -> ActionTypes:  # noqa: D102
        return SendNotification(
            block_document_id=block, subject=messages.SUBJECT, body=messages.BODY
        )

    @classmethod
    def from_block(cls, data: Mapping[str, Any]) -> Self:  # noqa: D102
        return cls(**{**data, "recipients": tuple(data["recipients"])})

    def describe(self) -> str:  # noqa: D102
        server = f"{self.host}:{self.port or PORTS[self.security]}"
        return f"{', '.join(self.recipients)} via {server}"

    def redact(self, text: str) -> str:  # noqa: D102
        return _without(text, [self.password])


KINDS: dict[str, type[NotificationTarget]] = {
    target.kind: target for target in (WebhookTarget, SlackTarget, MailTarget)
}
BLOCK_TYPES = sorted({target.block_type for target in KINDS.values()})


def holds_secret(url: str) -> bool:
    """Whether a URL has a user, a query, or a path that may be a token."""
    parts = _split(url)
    return bool(
        parts and ("@" in parts.netloc or parts.query or re.search(r"[^/]{16,}", parts.path))
    )


def _without(text: str, secrets: Sequence[str]) -> str:
    for secret in filter(None, secrets):
        text = text.replace(secret, MASK)
    return text


def _split(url: str) -> SplitResult | None:
    """Parse a URL; None if it has white space or no valid port."""
    if re.search(r"[\s\x00-\x20\x7f]", url):
        return None
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts
