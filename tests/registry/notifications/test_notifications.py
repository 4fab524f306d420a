"""Notifications on a real Prefect server, to a webhook receiver and an SMTP server on loopback."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType
from prefect.events.actions import CallWebhook
from prefect.events.schemas.automations import Automation

from flows.scheduling import FlowRuns
from infra.errors import BadInputError, ConflictError, ModelyardError, NotFoundError, StackError
from registry import catalogue, deletion, history
from registry.notifications import notification_delivery, notifications
from registry.notifications.notification_targets import (
    BLOCK_TYPES,
    MailTarget,
    SlackTarget,
    WebhookTarget,
)
from registry.notifications.notification_triggers import NotificationFilter
from schedules.schedule import PausedSchedule
from tests import prefect_server, smtp_server, webhook_receiver
from tests.webhook_receiver import WebhookReceiver

TOKEN = "canary-of-a-token"
FAILURES = NotificationFilter(("failures",))

pytestmark = pytest.mark.usefixtures("prefect_api", "database")


@pytest.fixture(autouse=True)
def _none_left(prefect_api: str, database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(notification_delivery, "_AGAIN_SECONDS", 0.3)
    catalogue.migrate()
    yield
    for one in notifications.list_all():
        deletion.delete("notification", one.name)


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with webhook_receiver.receiving() as made:
        yield made


def automations() -> list[Automation]:
    with get_client(sync_client=True) as client:
        return notifications._read(client)


def blocks() -> list[str]:
    """The type and name of every block of notifications."""
    with get_client(sync_client=True) as client:
        return [
            f"{slug}/{found.name}"
            for slug in BLOCK_TYPES
            for found in client.read_block_documents_by_type(slug)
            if found.name and found.name.startswith("modelyard-notification-")
        ]


def mail(port: int = 25, **given: Any) -> MailTarget:
    usual = {"recipients": ("to@example.com",), "host": "127.0.0.1", "sender": "me@example.com"}
    return MailTarget(**{**usual, "port": port, "security": "none", **given})


class TestAdd:
    def test_adding_twice_leaves_one(self) -> None:
        target = SlackTarget(f"https://hooks.slack.com/services/T0/B0/{TOKEN}")
        wanted = NotificationFilter(("failures", "paused"), flows=("train", "tune"))
        first = notifications.add("chat", target, wanted)
        again = notifications.add("chat", target, wanted)

        assert first == again
        assert again.to_json() == {
            "name": "chat", "on": ["failures", "paused"], "kind": "slack",
            "target": "https://hooks.slack.com/***", "flows": ["train", "tune"], "schedules": [],
            "tags": [], "enabled": True, "automation_id": str(automations()[0].id),
            "last": "",
        }  # fmt: skip
        assert [one.name for one in automations()] == ["chat"]
        assert blocks() == ["webhook/modelyard-notification-chat"]
        assert notifications.list_all() == [again]

    def test_another_target_and_filter_replace_the_former(self) -> None:
        made = notifications.add("x", WebhookTarget("http://h/a"), FAILURES)
        changed = notifications.add(
            "x", mail(2525), NotificationFilter(("ends",), tags=("a [b]*",))
        )

        assert changed.automation_id == made.automation_id
        assert (changed.kind, changed.target) == ("mail", "to@example.com via 127.0.0.1:2525")
        assert (changed.on, changed.tags) == (["ends"], ["a [b]*"])
        assert blocks() == ["smtp-mail/modelyard-notification-x"]

    def test_it_stays_switched_off(self) -> None:
        made = notifications.add("x", WebhookTarget("http://h/a"), FAILURES)
        with get_client(sync_client=True) as client:
            client.pause_automation(made.automation_id)

        assert not notifications.add("x", WebhookTarget("http://h/b"), FAILURES).enabled
        with pytest.raises(ConflictError) as raised:
            notification_delivery.send_test("x")
        assert raised.value.code == "NotificationDisabled"

    def test_no_secret_is_shown_or_recorded(self) -> None:
        url = f"https://me:{TOKEN}@h.example:8443/{TOKEN}?t={TOKEN}"
        added = notifications.add("x", WebhookTarget(url), FAILURES)
        notifications.add("y", mail(user="me", password=TOKEN), FAILURES)

        assert added.target == "https://h.example:8443/***"
        shown = [one.to_json() for one in notifications.list_all()]
        told = [history.of("notification", name) for name in ("x", "y")]
        dumped = [one.model_dump(mode="json") for one in automations()]
        assert TOKEN not in json.dumps([shown, told, dumped])
        assert TOKEN not in repr([WebhookTarget(url), mail(password=TOKEN)])
        with get_client(sync_client=True) as client:  # as Prefect's pages read them
            read = [
                client.read_block_documents_by_type(slug, include_secrets=False)
                for slug in BLOCK_TYPES
            ]
        assert TOKEN not in str([one.data for found in read for one in found])

    @pytest.mark.parametrize("name", ["", "A", "a b", "-a", "a" * 61, "ä"])
    def test_a_name_that_no_block_can_have_is_refused(self, name: str) -> None:
        with pytest.raises(BadInputError) as raised:
            notifications.add(name, WebhookTarget("http://h"), FAILURES)
        assert raised.value.code == "NotificationNameInvalid"

    @pytest.mark.parametrize(
        ("wanted", "code"),
        [
            (NotificationFilter(()), "NotificationEmpty"),
            (NotificationFilter(("ends",), flows=("trian",)), "FlowUnknown"),
            (NotificationFilter(("ends",), schedules=("none",)), "ScheduleUnknown"),
        ],
    )
    def test_what_would_report_nothing_is_refused(
        self, wanted: NotificationFilter, code: str
    ) -> None:
        with pytest.raises(ModelyardError) as raised:
            notifications.add("x", WebhookTarget("http://h"), wanted)
        assert raised.value.code == code
        assert automations() == []
        assert blocks() == []


@pytest.mark.parametrize(
    "url", ["", "h", "ftp://h", "http://", "http://h:x", f"http://h/{TOKEN} x", "http://h\n"]
)
def test_a_url_that_is_none_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(BadInputError) as raised:
        WebhookTarget(url)
    assert raised.value.code == "NotificationUrlInvalid"
    assert TOKEN not in str(raised.value)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"recipients": ("Me <me@h>",)}, "MailAddressInvalid"),
        ({"sender": "a@b\nBcc: c@d"}, "MailAddressInvalid"),
        ({"host": ""}, "SmtpServerInvalid"),
        ({"host": "a b"}, "SmtpServerInvalid"),
        ({"port": -1}, "SmtpServerInvalid"),
    ],
)
def test_addresses_and_servers_that_are_none_are_refused(given: Any, code: str) -> None:
    with pytest.raises(BadInputError) as raised:
        mail(**given)
    assert raised.value.code == code


class TestRemove:
    def test_nothing_is_left(self) -> None:
        notifications.add("x", WebhookTarget("http://h"), FAILURES)
        notifications.add("y", WebhookTarget("http://h"), FAILURES)

        assert deletion.delete("notification", "x") == {"name": "x", "deleted": True}
        assert [one.name for one in automations()] == ["y"]
        assert blocks() == ["webhook/modelyard-notification-y"]
        with pytest.raises(NotFoundError) as raised:
            deletion.delete("notification", "x")
        assert raised.value.code == "NotificationUnknown"
        assert "There is: y." in raised.value.hint

    def test_one_that_was_added_in_part_only(self) -> None:
        WebhookTarget("http://h").block().save("modelyard-notification-x")

        assert deletion.delete("notification", "x")["deleted"]
        assert blocks() == []

    def test_one_whose_block_is_gone_is_listed(self) -> None:
        notifications.add("x", WebhookTarget("http://h"), FAILURES)
        with get_client(sync_client=True) as client:
            notifications._delete_blocks(client, "x")

        assert "add it again" in notifications.list_all()[0].target


def test_messages_of_an_earlier_version_are_written_anew() -> None:
    notifications.add("x", WebhookTarget("http://h"), FAILURES)
    [made] = automations()
    block = notifications._block(made)
    assert block is not None
    with get_client(sync_client=True) as client:
        old = CallWebhook(block_document_id=block, payload="old")
        notifications._update(client, made, actions=[old])
    assert automations()[0].actions == [old]

    notifications.refresh()

    assert automations()[0].actions == made.actions


def test_a_schedule_that_is_renamed_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications.schedules, "find", lambda *_: None)
    wanted = NotificationFilter(("failures",), ("train",), ("a [1]", "b"), ("t",))
    notifications.add("x", WebhookTarget("http://h"), wanted)
    notifications.add("y", WebhookTarget("http://h"), NotificationFilter(("ends",), (), ("b",)))

    assert notifications.rename_schedule("a [1]", "c") == ["x"]
    x, y = notifications.list_all()
    assert (x.schedules, x.flows, x.tags, x.on) == (["c", "b"], ["train"], ["t"], ["failures"])
    assert y.schedules == ["b"]


def test_a_tag_that_is_renamed_is_followed() -> None:
    wanted = NotificationFilter(("failures",), (), (), ("pipeline:old", "t"))
    notifications.add("x", WebhookTarget("http://h"), wanted)
    notifications.add(
        "y", WebhookTarget("http://h"), NotificationFilter(("ends",), (), (), ("t",))
    )

    assert notifications.rename_tag("pipeline:old", "pipeline:new") == ["x"]
    assert [one.tags for one in notifications.list_all()] == [["pipeline:new", "t"], ["t"]]


class TestDelivery:
    def test_a_test_passes_the_filters(
        self, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(notifications.schedules, "find", lambda *_: None)
        wanted = NotificationFilter(("paused",), ("train", "tune"), ("a*", "b"), ("t", "u"))
        notifications.add("hook", WebhookTarget(f"{receiver.url}/{TOKEN}"), wanted)

        tested = notification_delivery.send_test("hook")

        path, said = receiver.received()
        assert path == f"/{TOKEN}"
        assert (said["notification"], said["noun"]) == ("hook", "test")
        assert tested.to_json() == {
            "name": "hook", "target": f"{receiver.url}/***", "sent": True,
            "answer": "200 said 200 to /***",
        }  # fmt: skip

    def test_a_webhook_that_refuses(self, receiver: WebhookReceiver) -> None:
        receiver.status = 404
        notifications.add("hook", SlackTarget(f"{receiver.url}/{TOKEN}"), FAILURES)

        with pytest.raises(ModelyardError) as raised:
            notification_delivery.send_test("hook")
        assert raised.value.code == "NotificationRefused"
        assert "404 said 404 to /***" in raised.value.message
        assert set(receiver.received()[1]) == {"text"}
        assert "is kept" in raised.value.hint
        assert "modelyard notify test hook" in raised.value.hint
        last = notifications.list_all()[0].last
        assert re.fullmatch(r"failed \S+Z: It answered 404 said 404 to /\*\*\*\.", last), last

    def test_a_webhook_that_is_not_there(self) -> None:
        notifications.add("hook", WebhookTarget(f"http://127.0.0.1:1/{TOKEN}"), FAILURES)

        with pytest.raises(ModelyardError) as raised:
            notification_delivery.send_test("hook")
        assert raised.value.code == "NotificationRefused"
        assert "ConnectError" in raised.value.message
        assert TOKEN not in str(raised.value)

    def test_mail(self) -> None:
        with smtp_server.serving(user="me", password=TOKEN) as box:
            notifications.add("post", mail(box.port, user="me", password=TOKEN), FAILURES)
            notification_delivery.send_test("post")
            notifications.add("post", mail(box.port, user="me", password="wrong"), FAILURES)
            with pytest.raises(ModelyardError) as raised:
                notification_delivery.send_test("post")

        got = box.mails[0]
        assert got["Subject"] == "Test of the notification post"
        assert raised.value.code == "NotificationRefused"
        assert "login refused: 535" in raised.value.message

    def test_what_prefect_does_not_send_ends_as_an_error(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        notifications.add("hook", WebhookTarget("http://127.0.0.1:1"), FAILURES)
        monkeypatch.setattr(notification_delivery, "_emit", lambda *_: None)

        with pytest.raises(StackError) as raised:
            notification_delivery.send_test("hook", patience=0.5)
        assert raised.value.code == "NotificationSilent"


def test_runs_are_reported_by_state_flow_and_tag(receiver: WebhookReceiver) -> None:
    add = notifications.add
    add("failures", WebhookTarget(f"{receiver.url}/failures"), FAILURES)
    add("ends", WebhookTarget(f"{receiver.url}/ends"), NotificationFilter(("ends",), ("train",)))
    add(
        "tunings",
        WebhookTarget(f"{receiver.url}/tunings"),
        NotificationFilter(("ends",), ("tune",)),
    )
    tagged = NotificationFilter(("ends",), tags=("red",))
    add("tagged", WebhookTarget(f"{receiver.url}/tagged"), tagged)
    for name in ("failures", "ends", "tunings", "tagged"):  # each is evaluated from now on
        notification_delivery.send_test(name)

    pool = prefect_server.Pool.made("flows.training.train")
    with get_client(sync_client=True) as client:
        red = client.create_flow_run_from_deployment(pool.deployment, tags=["red"], name="red")
    failed = State(type=StateType.FAILED, name="Failed", message="Exit code 1.")
    prefect_server.set_state(red, failed)
    got = dict(receiver.received_of("run") for _ in range(3))
    assert set(got) == {"/failures", "/ends", "/tagged"}
    assert {(one["name"], one["state"], one["reason"]) for one in got.values()} == {
        ("red", "FAIL TRAIN", "Exit code 1.")
    }
    assert got["/ends"]["link"].endswith(f"/runs/flow-run/{red.id}")

    plain = pool.run()
    prefect_server.set_state(plain, State(type=StateType.CANCELLED, name="Cancelled"))
    path, said = receiver.received_of("run")
    assert (path, said["state"], said["id"]) == ("/ends", "STOPPED", str(plain.id))


def test_a_schedule_that_paused_itself_is_reported_once(
    receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications.schedules, "find", lambda *_: None)
    wanted = NotificationFilter(("paused",), ("pipeline-run",), ("nightly",))
    notifications.add("hook", WebhookTarget(receiver.url), wanted)
    notification_delivery.send_test("hook")
    paused = PausedSchedule("s1", "nightly", "hello:1", "3 runs in a row failed.", uuid4())

    FlowRuns().announce_pause(paused)
    FlowRuns().announce_pause(paused)
    _, said = receiver.received_of("schedule")
    assert (said["name"], said["reason"], said["state"]) == (
        "nightly", "3 runs in a row failed.", "DISABLED",
    )  # fmt: skip
    notification_delivery.send_test("hook")  # what came before it was sent before it
    assert {said["noun"] for _, said in receiver.left()} == {"test"}
