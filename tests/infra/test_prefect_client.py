from __future__ import annotations

import ssl
from typing import Any

import pytest
from prefect.context import SyncClientContext
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.settings import PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED as _VERSION_CHECK

from infra.prefect_client import prefect_client


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """One entry for each time that the certificates of authorities are loaded."""
    found: list[Any] = []
    really = ssl.create_default_context

    def load(*args: Any, **kwargs: Any) -> ssl.SSLContext:
        found.append(args)
        return really(*args, **kwargs)

    monkeypatch.setattr(ssl, "create_default_context", load)
    return found


@pytest.mark.parametrize(("scheme", "times"), [("http", 0), ("https", 1)])
def test_certificates_are_loaded_where_there_is_tls(
    loaded: list[Any], scheme: str, times: int
) -> None:
    url = f"{scheme}://127.0.0.1:9/api"
    with temporary_settings({PREFECT_API_URL: url}), prefect_client() as client:
        assert str(client.api_url).rstrip("/") == url

    assert len(loaded) == times


def test_in_a_flow_run_it_is_the_runs_own() -> None:
    settings = {PREFECT_API_URL: "http://127.0.0.1:9/api", _VERSION_CHECK: False}
    with temporary_settings(settings), SyncClientContext() as context:
        assert prefect_client() is context.client
