"""The client and its verbs."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows import connection as flows_connection
from infra.connection import Endpoints
from infra.errors import BadInputError, ConflictError
from modelyard import Algorithm, Client, Objective, Training
from modelyard.api import notify as notify_api
from modelyard.api import storage as storage_api
from modelyard.api import verbs
from modelyard.api.verbs import verb
from registry import storage_accesses
from registry.notifications import notifications
from registry.notifications.notification_triggers import NotificationFilter, Occasion


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each connection that a verb opens is to workers."""
    opened: list[bool] = []

    @contextlib.contextmanager
    def connected(*, to_workers: bool = False) -> Iterator[None]:
        opened.append(to_workers)
        yield

    monkeypatch.setattr(verbs, "connected", connected)
    return opened


@pytest.mark.parametrize("to_workers", [False, True])
def test_a_verb_is_its_function_with_a_connection(
    connections: list[bool], to_workers: bool
) -> None:
    def add(name: str, *, count: int = 1) -> str:
        """Add it."""
        if not count:
            raise ConflictError("There is none.")
        return name * count

    adding = verb(add, to_workers=to_workers)

    assert adding("a", count=2) == "aa"
    with pytest.raises(ConflictError):
        adding("a", count=0)
    assert connections == [to_workers, to_workers]
    assert adding.__doc__ == "Add it."


def test_verbs_that_start_runs_need_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    def connected(*, to_workers: bool = False) -> None:
        assert to_workers
        raise ConflictError("There are none.")

    monkeypatch.setattr(verbs, "connected", connected)
    for start in (Client().runs.copy, Client().runs.retry):
        with pytest.raises(ConflictError, match="There are none"):
            start("run")


@pytest.mark.parametrize(("noun", "verb"), [("runs", "list"), ("models", "create")])
def test_a_call_with_other_keywords_names_the_verb_and_what_it_takes(noun: str, verb: str) -> None:
    call = getattr(getattr(Client(), noun), verb)
    with pytest.raises(TypeError) as raised:
        call(stat="RUNNING")

    assert str(raised.value).startswith(f"client.{noun}.{verb}(): got an unexpected keyword")
    assert "It takes: " in str(raised.value)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda: Algorithm(ur="x"), "ParameterInvalid"),  # type: ignore[call-arg]
        (lambda: Training(hyperparameters=3), "ParameterInvalid"),  # type: ignore[arg-type]
        (lambda: Objective(metric="a", direction="up"), "ParameterInvalid"),  # type: ignore[arg-type]
        (lambda: Client().runs.list(limit=-1), "LimitInvalid"),
        (lambda: Client().storage.add("lake", ["ftp://x"]), "UnknownScheme"),
        (lambda: Client().notify.add("a", webhook="http://h", on=["odd"]), "OccasionUnknown"),
        (lambda: Client().notify.add("a"), "NotificationTarget"),
    ],
)  # fmt: skip
def test_what_is_invalid_is_an_error_for_users(
    connections: list[bool], call: Callable[[], Any], code: str
) -> None:
    with pytest.raises(BadInputError) as raised:
        call()

    assert raised.value.code == code
    assert raised.value.message
    assert raised.value.hint


def test_storage_and_notify_are_the_commands(
    connections: list[bool], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(storage_accesses, "add", lambda access: access)
    monkeypatch.setattr(notifications, "add", lambda *given: given)
    monkeypatch.setattr(storage_api, "connected", contextlib.nullcontext)
    monkeypatch.setattr(notify_api, "connected", contextlib.nullcontext)

    access = Client().storage.add("nas", ["nas://one"], folder=str(tmp_path))
    name, target, wanted = Client().notify.add(  # type: ignore[misc]
        "mail", mail=["a@b.org"], smtp="h:25", on=["ends"], flows=["train"]
    )

    assert (access.name, access.folder) == ("nas", str(tmp_path))
    assert (name, target.host, target.port, target.sender) == ("mail", "h", 25, "a@b.org")
    assert wanted == NotificationFilter(on=(Occasion.ENDS,), flows=("train",))


def test_in_a_block_it_stays_connected_and_tells_to_what(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[str] = []

    @contextlib.contextmanager
    def temporary_stack(*_: Any) -> Iterator[Endpoints]:
        events.append("started")
        yield Endpoints("http://127.0.0.1:1/api", "http://127.0.0.1:2", "sqlite://")
        events.append("ended")

    monkeypatch.setattr(flows_connection.stack, "temporary_stack", temporary_stack)
    monkeypatch.setattr(flows_connection.stack, "status", lambda _: None)
    monkeypatch.setattr(flows_connection.catalogue, "migrate", lambda: None)
    caplog.set_level(logging.INFO, "modelyard.client")
    client = Client()

    with client as entered:
        assert entered is client
        with client, flows_connection.connected():
            assert repr(client) == "<Client, stack: temporary>"
        assert events == ["started"]

    assert events == ["started", "ended"]
    assert "Connected to http://127.0.0.1:1/api (stack: temporary)." in caplog.messages
