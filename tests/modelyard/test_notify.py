"""``modelyard notify``: targets, and secrets that are in no argument."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from modelyard import main, secret_input
from modelyard.commands import notify as command
from registry.notifications import notification_delivery, notifications
from registry.notifications.notification_targets import MailTarget, SlackTarget, WebhookTarget
from registry.notifications.notification_triggers import NotificationFilter

Do = Callable[..., tuple[int, Any, str]]
SLACK = "https://hooks.slack.com/services/T0/B0/canary"


class _Input(io.StringIO):
    """Standard input."""


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was to be added, in order."""
    calls: list[Any] = []

    def add(*given: Any) -> dict[str, Any]:
        calls.append(given)
        return {"name": given[0]}

    monkeypatch.setattr(notifications, "add", add)
    monkeypatch.setattr(notification_delivery, "send_test", calls.append)
    monkeypatch.setattr(command, "connected", contextlib.nullcontext)
    return calls


@pytest.fixture
def do(
    added: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Do:
    def run(*arguments: str, stdin: str = "") -> tuple[int, Any, str]:
        monkeypatch.setattr(sys, "argv", ["modelyard", "notify", *arguments, "--json"])
        monkeypatch.setattr(sys, "stdin", _Input(stdin))
        with pytest.raises(SystemExit) as raised:
            main.main()
        said = capsys.readouterr()
        assert isinstance(raised.value.code, int)
        return raised.value.code, json.loads(said.out), said.err

    return run


def test_a_url_from_standard_input(do: Do, added: list[Any]) -> None:
    code, _, warning = do("add", "chat", "--slack", "-", stdin=f"{SLACK}\n")

    assert (code, warning) == (0, "")
    assert added == [("chat", SlackTarget(SLACK), NotificationFilter(("failures",)))]


def test_a_url_from_the_environment(
    do: Do, added: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(command.SECRET_VARIABLE, SLACK)
    assert do("add", "chat", "--webhook", "-", "--test")[0] == 0

    assert added == [("chat", WebhookTarget(SLACK), NotificationFilter(("failures",))), "chat"]


def test_a_url_from_a_prompt(do: Do, added: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Input, "isatty", lambda _: True)
    monkeypatch.setattr(secret_input.getpass, "getpass", lambda _: SLACK)
    do("add", "chat", "--slack", "-")

    assert added[0][1] == SlackTarget(SLACK)


def test_no_secret_at_all_is_refused(do: Do, added: list[Any]) -> None:
    code, said, _ = do("add", "chat", "--slack", "-")

    assert (code, said["error"]["code"]) == (1, "SecretNotGiven")
    assert added == []


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        (SLACK, False),
        ("https://hooks.example.com/hooks/x7k2p9q4m8n1b5v3c6z0", True),
        ("http://me:x@127.0.0.1", True),
        ("http://h/path?token=x", True),
        ("http://127.0.0.1:8080/hook", False),
    ],
)
def test_a_secret_in_an_argument_is_warned_of(do: Do, url: str, warned: bool) -> None:
    _, _, warning = do("add", "hook", "--webhook", url)

    assert ("shell's history" in warning.replace("\n", " ")) == warned
    assert url not in warning


def test_mail_and_filters(do: Do, added: list[Any]) -> None:
    do(
        "add", "post", "--mail", "a@example.com", "--mail", "b@example.com",
        "--smtp", "smtp.example.com:2525", "--smtp-user", "me@example.com", "--on", "ends",
        "--on", "paused", "--on", "ends", "--flow", "train", "--schedule", "nightly",
        "--tag", "t", stdin="the password\n",
    )  # fmt: skip

    assert added == [
        (
            "post",
            MailTarget(
                ("a@example.com", "b@example.com"), "smtp.example.com", "me@example.com",
                "starttls", 2525, "me@example.com", "the password",
            ),
            NotificationFilter(("ends", "paused"), ("train",), ("nightly",), ("t",)),
        )
    ]  # fmt: skip


def test_mail_needs_no_login(do: Do, added: list[Any]) -> None:
    do("add", "post", "--mail", "a@example.com", "--smtp", "[::1]", "--smtp-security", "none")

    target = added[0][1]
    assert (target.host, target.port, target.user, target.sender) == (
        "[::1]", 0, "", "a@example.com",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), "NotificationTarget"),
        (("--slack", "http://h", "--webhook", "http://h"), "NotificationTarget"),
        (("--mail", "a@b", "--slack", "http://h"), "NotificationTarget"),
        (("--mail", "a@b"), "SmtpServerInvalid"),
        (("--mail", "a@b", "--smtp", "h:x"), "SmtpServerInvalid"),
        (("--mail", "a", "--smtp", "h"), "MailAddressInvalid"),
        (("--webhook", "h"), "NotificationUrlInvalid"),
        (("--webhook", "http://h", "--on", "never"), "Usage"),
    ],
)
def test_what_cannot_be_is_refused(
    do: Do, added: list[Any], arguments: tuple[str, ...], code: str
) -> None:
    assert do("add", "x", *arguments)[1]["error"]["code"] == code
    assert added == []
