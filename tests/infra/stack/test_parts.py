from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys

import pytest
from prefect.settings import Settings as PrefectSettings

from infra.connection import Endpoints
from infra.door import credential
from infra.home import Home
from infra.settings import Settings
from infra.stack import parts
from infra.stack.parts import Part

_ENDPOINTS = Endpoints(
    "http://127.0.0.1:1/api", "http://127.0.0.1:2", "postgresql+psycopg://x", "http://127.0.0.1:3"
)


@pytest.fixture
def built(home: Home) -> list[Part]:
    with contextlib.ExitStack() as held:
        listeners = {name: held.enter_context(parts.bind(0)) for name in parts.SERVERS}
        return parts.build(home, Settings(home=home.root), _ENDPOINTS, listeners)


def test_a_free_port_is_taken() -> None:
    with parts.bind(0) as first:
        port = first.getsockname()[1]
    with parts.bind(port) as again:
        assert again.getsockname() == ("127.0.0.1", port)


def test_a_port_that_is_taken_is_replaced_by_a_free_one() -> None:
    with parts.bind(0) as first, parts.bind(first.getsockname()[1]) as second:
        host, port = second.getsockname()
        assert host == "127.0.0.1"
        assert port != first.getsockname()[1]


def test_a_bound_port_keeps_callers_waiting() -> None:
    with parts.bind(0) as listener, socket.create_connection(listener.getsockname(), 5) as caller:
        accepted, _ = listener.accept()
        with accepted:
            accepted.sendall(b"late")
            assert caller.recv(4) == b"late"


def test_each_part_comes_after_what_it_needs(built: list[Part]) -> None:
    seen: set[str] = set()
    for part in built:
        assert set(part.needs) <= seen
        seen.add(part.name)
    assert len(seen) == len(built)


def test_a_private_stack_needs_nothing_of_what_runs_flows(built: list[Part]) -> None:
    private = {part.name for part in built if not part.runs}

    assert private == {"database", "prefect", "mlflow"}
    assert all(set(part.needs) <= private for part in built if part.name in private)


def test_servers_and_the_fork_server_are_forks_of_what_is_imported_once(
    built: list[Part],
) -> None:
    forks = {part.name: part.preload for part in built if part.preload}
    modules = parts.preloaded(built)

    assert set(forks) == {*parts.SERVERS, "forkserver"}
    assert list(forks["forkserver"]) == modules
    for preload in forks.values():  # whoever needs less is forked earlier
        assert list(preload) == modules[: len(preload)]
    assert parts.preloaded([part for part in built if not part.runs]) == list(forks["mlflow"])


@pytest.mark.integration
def test_what_is_imported_once_starts_no_thread_and_leaves_out_what_few_runs_need(
    built: list[Part],
) -> None:
    script = """
import importlib, json, sys, threading
for module in sys.argv[1:]:
    importlib.import_module(module)
left_out = ["kfp.client", "kubernetes.client", "scipy.stats", "sklearn"]
print(json.dumps([threading.active_count(), [one for one in left_out if one in sys.modules]]))
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, *parts.preloaded(built)],
        capture_output=True, text=True, env={**os.environ, **parts.PRELOADER_ENV},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [1, []]


def test_each_server_has_its_own_socket(built: list[Part]) -> None:
    sockets = {part.name: part.sockets for part in built if part.sockets}

    assert set(sockets) == set(parts.SERVERS)
    assert len(set(sockets.values())) == len(parts.SERVERS)


def test_no_part_hears_the_callers_prefect_or_mlflow(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "a secret")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "a secret")

    found = parts.environment_of_parts(_ENDPOINTS, home)

    assert "a secret" not in found.values()
    assert found["PREFECT_API_URL"] == _ENDPOINTS.prefect_api_url
    assert found["MODELYARD_HOME"] == str(home.root)


def test_prefects_own_authentication_is_on_behind_the_door(home: Home) -> None:
    held = credential.ensure(home)

    for on in (True, False):
        with contextlib.ExitStack() as opened:
            listeners = {name: opened.enter_context(parts.bind(0)) for name in parts.SERVERS}
            settings = Settings(home=home.root, door=on)
            built = parts.build(home, settings, _ENDPOINTS, listeners)
        (prefect,) = [part for part in built if part.name == "prefect"]
        told = prefect.env.get("PREFECT_SERVER_API_AUTH_STRING")
        assert told == (held.auth_string if on else None)
        assert held.secret not in repr([part.command for part in built])


def test_a_machine_that_slept_is_no_failure_of_prefects_database(
    built: list[Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its server would answer with status 500, which its clients take for final."""
    (prefect,) = [part for part in built if part.name == "prefect"]
    for name, value in prefect.env.items():
        monkeypatch.setenv(name, value)

    database = PrefectSettings().server.database

    bounds = (
        database.timeout, database.connection_timeout, database.sqlalchemy.pool_timeout
    )  # fmt: skip
    assert all(seconds is not None and seconds >= 86400 for seconds in bounds)
