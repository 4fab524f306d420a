"""The connection of a process to a stack."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import httpx
import prefect.context
import pytest
from prefect.client.orchestration import SyncPrefectClient
from sqlalchemy.exc import OperationalError

from flows import connection as flows_connection
from flows import lifecycle
from infra import connection
from infra.connection import Endpoints
from infra.errors import StackError
from infra.home import Home
from infra.mlflow import MlflowException

_ENDPOINTS = Endpoints("http://127.0.0.1:1/api", "http://127.0.0.1:2", "sqlite://")


def test_scripts_of_earlier_versions_find_it() -> None:
    assert lifecycle.connected is flows_connection.connected


class TestConnected:
    def test_the_environment_comes_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PREFECT_API_URL", _ENDPOINTS.prefect_api_url)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", _ENDPOINTS.mlflow_tracking_uri)
        monkeypatch.setenv("MODELYARD_DATABASE_URL", _ENDPOINTS.database_url)
        monkeypatch.setattr(
            flows_connection.stack, "temporary_stack", lambda *_: pytest.fail("it started a stack")
        )

        with flows_connection.connected() as endpoints:
            assert endpoints == _ENDPOINTS

    @pytest.mark.parametrize("status", [None, {"lasting": False}])
    def test_workers_are_not_to_be_had_of_a_private_stack(
        self, monkeypatch: pytest.MonkeyPatch, status: dict[str, Any] | None
    ) -> None:
        monkeypatch.setattr(flows_connection.stack, "status", lambda _: status)
        monkeypatch.setattr(
            flows_connection.stack, "temporary_stack", lambda *_: pytest.fail("it started a stack")
        )

        with pytest.raises(StackError) as raised, flows_connection.connected(to_workers=True):
            pass

        assert "modelyard up" in raised.value.hint
        assert "modelyard pipeline run --local" in raised.value.hint

    @pytest.mark.parametrize(
        ("problem", "part"),
        [
            (httpx.ConnectError("refused"), "Prefect"),
            (httpx.ReadTimeout("late"), "Prefect"),
            (OperationalError("SELECT 1", {}, Exception("No space left")), "database"),
        ],
    )
    def test_a_part_that_does_not_answer_is_named(
        self, monkeypatch: pytest.MonkeyPatch, problem: Exception, part: str
    ) -> None:
        monkeypatch.setattr(
            flows_connection.stack,
            "temporary_stack",
            lambda *_: contextlib.nullcontext(_ENDPOINTS),
        )
        monkeypatch.setattr(flows_connection.catalogue, "migrate", lambda: None)

        with pytest.raises(StackError) as raised, flows_connection.connected():
            raise problem
        assert raised.value.code == "StackSilent"
        assert part in raised.value.message
        assert "modelyard status" in raised.value.hint

    def test_a_database_that_is_away_while_connecting_is_named(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def migrate() -> None:
            raise OperationalError("SELECT 1", {}, ConnectionError("refused"))

        monkeypatch.setattr(
            flows_connection.stack,
            "temporary_stack",
            lambda *_: contextlib.nullcontext(_ENDPOINTS),
        )
        monkeypatch.setattr(flows_connection.catalogue, "migrate", migrate)
        before = dict(os.environ)

        with pytest.raises(StackError, match="database") as raised, flows_connection.connected():
            pytest.fail("it connected")
        assert raised.value.code == "StackSilent"
        assert dict(os.environ) == before

    def test_a_silent_part_that_the_environment_names_is_sought_there(
        self, monkeypatch: pytest.MonkeyPatch, home: Home
    ) -> None:
        for name, value in connection.environment(_ENDPOINTS, home).items():
            monkeypatch.setenv(name, value)

        with pytest.raises(StackError) as raised, flows_connection.connected():
            raise httpx.ConnectError("refused")
        assert "PREFECT_API_URL" in raised.value.hint

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_server_that_does_not_let_us_in_is_named(
        self, monkeypatch: pytest.MonkeyPatch, home: Home, status: int
    ) -> None:
        for name, value in connection.environment(_ENDPOINTS, home).items():
            monkeypatch.setenv(name, value)
        response = httpx.Response(status, request=httpx.Request("GET", "http://prefect/api"))
        for problem, part, variable in (
            (httpx.HTTPStatusError("no", request=response.request, response=response),
             "Prefect", "PREFECT_API_AUTH_STRING"),
            (MlflowException("no", status_code=status), "MLflow", "MLFLOW_TRACKING_URI"),
        ):  # fmt: skip
            with pytest.raises(StackError, match=part) as raised, flows_connection.connected():
                raise problem
            assert raised.value.code == "StackRefused"
            assert str(status) in raised.value.message
            assert variable in raised.value.hint

    @pytest.mark.parametrize(("status", "kind"), [(500, StackError), (409, httpx.HTTPStatusError)])
    def test_prefect_that_fails_is_told_with_what_it_was_asked(
        self, monkeypatch: pytest.MonkeyPatch, home: Home, status: int, kind: type[Exception]
    ) -> None:
        for name, value in connection.environment(_ENDPOINTS, home).items():
            monkeypatch.setenv(name, value)
        asked = httpx.Request("POST", "http://prefect/api/flow_runs/filter")
        response = httpx.Response(status, request=asked)

        with pytest.raises(kind) as raised, flows_connection.connected():
            raise httpx.HTTPStatusError("no", request=asked, response=response)
        if isinstance(raised.value, StackError):
            assert raised.value.code == "StackFailed"
            assert "answered 500 to POST /api/flow_runs/filter" in raised.value.message

    def test_what_else_a_server_says_stays_as_it_is(
        self, monkeypatch: pytest.MonkeyPatch, home: Home
    ) -> None:
        for name, value in connection.environment(_ENDPOINTS, home).items():
            monkeypatch.setenv(name, value)

        with pytest.raises(MlflowException, match="no such run"), flows_connection.connected():
            raise MlflowException("no such run")

    @pytest.mark.parametrize("fails", [True, False])
    def test_else_a_stack_is_held_and_the_environment_restored(
        self, monkeypatch: pytest.MonkeyPatch, fails: bool
    ) -> None:
        events: list[str] = []

        @contextlib.contextmanager
        def held(*_: Any) -> Iterator[Endpoints]:
            events.append("held")
            try:
                yield _ENDPOINTS
            finally:
                events.append("let go")

        monkeypatch.setattr(flows_connection.stack, "temporary_stack", held)
        monkeypatch.setattr(
            flows_connection.catalogue, "migrate", lambda: events.append("migrated")
        )
        monkeypatch.setenv("PREFECT_API_URL", "http://of.the.caller/api")
        before = dict(os.environ)
        expected = pytest.raises(ZeroDivisionError) if fails else contextlib.nullcontext()

        with expected, flows_connection.connected() as endpoints:
            assert endpoints == _ENDPOINTS
            assert os.environ["PREFECT_API_URL"] == _ENDPOINTS.prefect_api_url
            assert os.environ["MODELYARD_DATABASE_URL"] == _ENDPOINTS.database_url
            assert events == ["held", "migrated"]
            if fails:
                raise ZeroDivisionError

        assert dict(os.environ) == before
        assert events == ["held", "migrated", "let go"]


class TestStackKind:
    def test_the_environment_names_it(self, monkeypatch: pytest.MonkeyPatch, home: Home) -> None:
        for name, value in connection.environment(_ENDPOINTS, home).items():
            monkeypatch.setenv(name, value)

        assert flows_connection.stack_kind() == "environment"

    @pytest.mark.parametrize(
        ("status", "kind"),
        [(None, "temporary"), ({"lasting": False}, "temporary"), ({"lasting": True}, "running")],
    )
    def test_an_open_connection_does_not_change_it(
        self, monkeypatch: pytest.MonkeyPatch, status: dict[str, Any] | None, kind: str
    ) -> None:
        monkeypatch.setattr(flows_connection.stack, "status", lambda _: status)
        monkeypatch.setattr(
            flows_connection.stack,
            "temporary_stack",
            lambda *_: contextlib.nullcontext(_ENDPOINTS),
        )
        monkeypatch.setattr(flows_connection.catalogue, "migrate", lambda: None)
        refused = contextlib.nullcontext() if kind == "running" else pytest.raises(StackError)

        with flows_connection.kept_open():
            assert flows_connection.stack_kind() == kind
            with refused, flows_connection.connected(to_workers=True):
                pass


class TestRunOfAnotherServer:
    @pytest.fixture(autouse=True)
    def _reached(self, monkeypatch: pytest.MonkeyPatch, home: Home) -> None:
        for name, value in connection.environment(_ENDPOINTS, home).items():
            monkeypatch.setenv(name, value)

    @pytest.mark.parametrize(
        ("address", "hidden"),
        [("http://127.0.0.1:9/api", True), (f"{_ENDPOINTS.prefect_api_url}/", False)],
    )
    def test_its_client_and_its_run_are_hidden(self, address: str, hidden: bool) -> None:
        context = prefect.context.SyncClientContext
        running = context.model_construct(client=SyncPrefectClient(address))
        token = context.__var__.set(running)
        try:
            with flows_connection.connected():
                assert context.get() is (None if hidden else running)
            with flows_connection.kept_open():  # a caller's own code runs within
                assert context.get() is running
            assert context.get() is running
        finally:
            context.__var__.reset(token)
