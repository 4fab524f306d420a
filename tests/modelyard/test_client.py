"""The client and its verbs."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from flows import connection as flows_connection
from infra.connection import Endpoints
from infra.errors import ConflictError
from modelyard import Client
from modelyard.api import verbs
from modelyard.api.verbs import verb


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


def test_verbs_that_start_runs_need_workers(
    connections: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    for start in (Client().runs.copy, Client().runs.retry):
        with pytest.raises(TypeError):  # it connects before it calls
            start(nothing="given")  # type: ignore[call-arg]

    assert connections == [True, True]


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
