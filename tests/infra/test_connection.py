from __future__ import annotations

import dataclasses
import os

import pytest

from infra import connection
from infra.connection import Endpoints
from infra.door import credential
from infra.home import Home

_ENDPOINTS = Endpoints(
    prefect_api_url="http://127.0.0.1:1/api",
    mlflow_tracking_uri="http://127.0.0.1:2",
    database_url="postgresql+psycopg://u@/d",
)


def test_the_environment_names_all_endpoints(monkeypatch: pytest.MonkeyPatch, home: Home) -> None:
    for name, value in connection.environment(_ENDPOINTS, home).items():
        monkeypatch.setenv(name, value)

    assert connection.from_environment() == _ENDPOINTS


@pytest.mark.parametrize("web", ["", "http://127.0.0.1:3"])
def test_the_pages_are_pointed_to_where_there_are_any(
    monkeypatch: pytest.MonkeyPatch, home: Home, web: str
) -> None:
    endpoints = dataclasses.replace(_ENDPOINTS, web_url=web)
    for name, value in connection.environment(endpoints, home).items():
        monkeypatch.setenv(name, value)

    assert connection.from_environment() == endpoints


@pytest.mark.parametrize(
    "missing", ["PREFECT_API_URL", "MLFLOW_TRACKING_URI", "MODELYARD_DATABASE_URL"]
)
@pytest.mark.parametrize("empty", [True, False])
def test_an_environment_that_names_some_is_not_used(
    monkeypatch: pytest.MonkeyPatch, home: Home, missing: str, empty: bool
) -> None:
    for name, value in connection.environment(_ENDPOINTS, home).items():
        monkeypatch.setenv(name, value)
    if empty:
        monkeypatch.setenv(missing, "")
    else:
        monkeypatch.delenv(missing)

    assert connection.from_environment() is None


def test_the_clean_environment_has_nothing_of_prefects_or_mlflows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("PREFECT_X", "PREFECT__X", "MLFLOW_X", "_MLFLOW_X", "OTHER_PREFECT"):
        monkeypatch.setenv(name, "1")

    clean = connection.clean_environment()

    assert clean["OTHER_PREFECT"] == "1"
    assert clean["PATH"] == os.environ["PATH"]
    assert not [name for name in clean if name.startswith(("PREFECT_", "MLFLOW_", "_MLFLOW_"))]


def test_nothing_reports_to_its_maker(home: Home) -> None:
    found = connection.environment(_ENDPOINTS, home)

    assert found["DO_NOT_TRACK"] == "true"
    assert found["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert found["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


def test_the_ui_is_beside_the_api() -> None:
    assert _ENDPOINTS.prefect_ui_url == "http://127.0.0.1:1"


def test_browsers_are_sent_to_the_servers(monkeypatch: pytest.MonkeyPatch, home: Home) -> None:
    monkeypatch.setenv("PREFECT_UI_URL", "https://another.example")
    for name, value in connection.environment(_ENDPOINTS, home).items():
        monkeypatch.setenv(name, value)

    assert connection.prefect_page("/runs") == "http://127.0.0.1:1/runs"
    monkeypatch.delenv("PREFECT_UI_URL")
    monkeypatch.delenv("MODELYARD_MLFLOW_URL")
    assert connection.prefect_page("/runs") == "http://127.0.0.1:1/runs"
    assert connection.mlflow_page("experiments/0") == "http://127.0.0.1:2/#/experiments/0"
    assert connection.mlflow_model_page("a/b") == "http://127.0.0.1:2/#/models/a%2Fb"
    assert connection.mlflow_model_page("a", "3") == "http://127.0.0.1:2/#/models/a/versions/3"


def test_browsers_are_sent_where_they_find_the_servers(
    monkeypatch: pytest.MonkeyPatch, home: Home
) -> None:
    for name, value in connection.environment(_ENDPOINTS, home).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PREFECT_UI_URL", "https://prefect.example")
    monkeypatch.setenv("MODELYARD_MLFLOW_URL", "https://mlflow.example")

    assert connection.prefect_page("/runs") == "https://prefect.example/runs"
    assert connection.mlflow_run_page("7", "m1") == (
        "https://mlflow.example/#/experiments/7/runs/m1?workflowType=machine_learning"
    )


def test_user_code_inherits_nothing_of_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = ("PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_PASSWORD", "MODELYARD_DATABASE_URL")
    for name in (*ours, "COLOUR"):
        monkeypatch.setenv(name, "x")

    found = connection.user_environment()

    assert found["COLOUR"] == "x"
    assert not [one for one in found if one.startswith(("PREFECT_", "MLFLOW_", "MODELYARD_"))]


def test_what_lets_a_process_in_is_the_homes_credential(home: Home) -> None:
    assert "PREFECT_API_AUTH_STRING" not in connection.environment(_ENDPOINTS, home)
    held = credential.ensure(home)

    found = connection.environment(_ENDPOINTS, home)

    assert held.environment().items() <= found.items()


def test_other_clients_are_told_where_and_who(monkeypatch: pytest.MonkeyPatch, home: Home) -> None:
    held = credential.ensure(home)
    where = {
        "PREFECT_API_URL": "http://127.0.0.1:1/api",
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:2",
        "MLFLOW_REGISTRY_URI": "http://127.0.0.1:2",
    }

    assert connection.client_environment(_ENDPOINTS, home) == {**where, **held.environment()}

    for name, value in connection.environment(_ENDPOINTS, home).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "of:elsewhere")  # a cluster's
    found = connection.client_environment(_ENDPOINTS, home)
    assert found["PREFECT_API_AUTH_STRING"] == "of:elsewhere"
