"""Prefect notification block that sends mail through any SMTP server.

Prefect itself sends mail through SendGrid only. Its server finds this block by the entry point
``prefect.collections`` of the distribution.
"""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Literal

from prefect.blocks.abstract import NotificationBlock, NotificationError
from pydantic import Field, SecretStr

Security = Literal["starttls", "tls", "none"]
PORTS: dict[Security, int] = {"starttls": 587, "tls": 465, "none": 25}

_TIMEOUT_SECONDS = 20.0


class SmtpMail(NotificationBlock):
    """Send notifications by mail through an SMTP server."""

    _block_type_name = "SMTP Mail"
    _block_type_slug = "smtp-mail"
    _description = "Sends notifications by mail through an SMTP server."

    host: str = Field(description="The SMTP server.")
    port: int = Field(description="Its port.")
    security: Security = Field(
        "starttls", description="TLS after the greeting, TLS from the start, or neither."
    )
    user: str = Field("", description="The user to log in as; empty for no login.")
    password: SecretStr = Field(SecretStr(""), description="The user's password.")
    sender: str = Field(description="The address in From.")
    recipients: list[str] = Field(description="The addresses in To.")

    async def notify(self, body: str, subject: str | None = None) -> None:
        """Send a mail.

        Raises:
            NotificationError: If the server cannot be reached or refuses the mail.
        """
        await asyncio.to_thread(self._send, body, subject or "")

    def _send(self, body: str, subject: str) -> None:
        message = EmailMessage()
        message["Subject"] = " ".join(subject.split())  # one line: no header can be added
        message["From"], message["To"] = self.sender, ", ".join(self.recipients)
        message["Date"], message["Message-ID"] = formatdate(), make_msgid(domain="modelyard")
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(body)
        try:
            with self._connect() as server:
                if self.user:
                    server.login(self.user, self.password.get_secret_value())
                refused = server.send_message(message, self.sender, self.recipients)
        except (smtplib.SMTPException, OSError) as error:
            raise NotificationError(f"{self.host}:{self.port}: {_reason(error)}") from None
        if refused:
            raise NotificationError(f"{self.host}:{self.port}: refused {', '.join(refused)}")

    def _connect(self) -> smtplib.SMTP:
        if self.security == "tls":
            return smtplib.SMTP_SSL(
                self.host, self.port, timeout=_TIMEOUT_SECONDS,
                context=ssl.create_default_context(),
            )  # fmt: skip
        server = smtplib.SMTP(self.host, self.port, timeout=_TIMEOUT_SECONDS)
        try:
            if self.security == "starttls":
                server.starttls(context=ssl.create_default_context())
        except BaseException:
            server.close()
            raise
        return server


def _reason(error: Exception) -> str:
    """One line that says why no mail was sent."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return "; ".join(
            f"refused {address}: {_answer(code, text)}"
            for address, (code, text) in error.recipients.items()
        )
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return f"login refused: {_answer(error.smtp_code, error.smtp_error)}"
    if isinstance(error, smtplib.SMTPResponseException):
        return f"refused: {_answer(error.smtp_code, error.smtp_error)}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS: {error.reason or error}"
    return f"{type(error).__name__}: {error}"


def _answer(code: int, text: bytes | str) -> str:
    shown = text.decode(errors="replace") if isinstance(text, bytes) else text
    return f"{code} {' '.join(shown.split())}"
