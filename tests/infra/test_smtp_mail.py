"""Mail through a real SMTP server on loopback."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from prefect.blocks.abstract import NotificationError

from infra.smtp_mail import SmtpMail
from tests import smtp_server


def mail(port: int, **given: Any) -> SmtpMail:
    usual: dict[str, Any] = {
        "host": "127.0.0.1", "port": port, "security": "none", "sender": "from@example.com",
        "recipients": ["to@example.com"],
    }  # fmt: skip
    return SmtpMail(**{**usual, **given})


def send(block: SmtpMail, body: str = "body", subject: str = "subject") -> None:
    asyncio.run(block.notify(body, subject))


def refusal(block: SmtpMail) -> str:
    with pytest.raises(NotificationError) as raised:
        send(block)
    return raised.value.log


def certificate(folder: Path) -> Path:
    """A certificate of 127.0.0.1 that signs itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


def test_it_arrives_as_it_is() -> None:
    with smtp_server.serving() as box:
        recipients = ["a@example.com", "b@example.com"]
        send(
            mail(box.port, recipients=recipients),
            "학습이 실패했습니다.\nx < y",
            "FAIL TRAIN: 숫자",
        )

    [got] = box.mails
    assert got["Subject"] == "FAIL TRAIN: 숫자"
    assert (got["From"], got["To"]) == ("from@example.com", "a@example.com, b@example.com")
    assert got["Auto-Submitted"] == "auto-generated"
    assert got.get_content().splitlines() == ["학습이 실패했습니다.", "x < y"]


def test_a_subject_adds_no_header() -> None:
    with smtp_server.serving() as box:
        send(mail(box.port), subject="one\r\nBcc: other@example.com")

    [got] = box.mails
    assert got["Subject"] == "one Bcc: other@example.com"
    assert got["Bcc"] is None


def test_a_login() -> None:
    with smtp_server.serving(user="me", password="right") as box:
        send(mail(box.port, user="me", password="right"))
        reason = refusal(mail(box.port, user="me", password="canary"))

    assert len(box.mails) == 1
    assert reason.startswith(f"127.0.0.1:{box.port}: login refused: 535 ")
    assert "canary" not in reason


def test_starttls_with_a_certificate_that_is_trusted_and_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
    with smtp_server.serving(tls=context) as box:
        assert "no TLS: CERTIFICATE_VERIFY_FAILED" in refusal(mail(box.port, security="starttls"))
        assert "refused: 530" in refusal(mail(box.port))
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
        send(mail(box.port, security="starttls"))

    assert len(box.mails) == 1


def test_what_a_server_cannot_do_is_named() -> None:
    with smtp_server.serving() as box:
        assert "STARTTLS" in refusal(mail(box.port, security="starttls"))
        assert "AUTH" in refusal(mail(box.port, user="me", password="x"))
        gone = refusal(mail(box.port, recipients=["nobody@example.com"]))

    assert gone == f"127.0.0.1:{box.port}: refused nobody@example.com: 550 no such mailbox"
    assert "ConnectionRefusedError" in refusal(mail(box.port))


def test_some_recipients_that_are_refused_are_named() -> None:
    with smtp_server.serving() as box:
        recipients = ["to@example.com", "nobody@example.com"]
        reason = refusal(mail(box.port, recipients=recipients))

    assert reason == f"127.0.0.1:{box.port}: refused nobody@example.com"
    assert len(box.mails) == 1
