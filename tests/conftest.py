"""Every test has a home of its own, and nothing of the caller's environment."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.home import Home
from infra.settings import Settings
from infra.stack import postgres
from tests.processes import eventually

_OURS = ("MODELYARD_", "PREFECT_", "MLFLOW_", "_MLFLOW_", "EM_")

# Fixtures that take long to make: whoever has one runs all tests that want it, and those with the
# longest begin.
_SHARED = ("stack", "cluster", "spare", "bare_home")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave soaks to ``make soak``, and have a worker run all tests of one group."""
    soaking = bool(os.environ.get("MODELYARD_SOAK"))
    left = [item for item in items if item.get_closest_marker("soak") and not soaking]
    if left:
        config.hook.pytest_deselected(items=left)
    wanted = set(left)
    groups = {item: _group(item) for item in items if item not in wanted}
    items[:] = sorted(groups, key=lambda item: _rank(groups[item]))
    for item in items:
        item.add_marker(pytest.mark.xdist_group(groups[item]))


def _group(item: pytest.Item) -> str:
    if item.get_closest_marker("e2e"):
        names = getattr(item, "fixturenames", ())
        return next((name for name in _SHARED if name in names), "e2e")
    return item.nodeid.partition("::")[0]


def _rank(group: str) -> int:
    return _SHARED.index(group) if group in _SHARED else len(_SHARED)


@pytest.fixture
def home() -> Iterator[Home]:
    # Not below pytest's own folder, whose path is too long for a socket.
    with tempfile.TemporaryDirectory(prefix="modelyard-") as folder:
        made = Home(Path(folder).resolve() / "home")
        made.make()
        yield made


@pytest.fixture(autouse=True)
def _isolated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("e2e"):
        return
    home = request.getfixturevalue("home")
    for name in list(os.environ):
        if name.startswith(_OURS):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MODELYARD_HOME", str(home.root))
    monkeypatch.setenv("PREFECT_HOME", str(home.prefect))
    monkeypatch.setenv("DO_NOT_TRACK", "true")


@pytest.fixture(scope="session")
def database_home() -> Iterator[Home]:
    """A home whose embedded PostgreSQL runs."""
    with tempfile.TemporaryDirectory(prefix="modelyard-") as folder:
        made = Home(Path(folder).resolve() / "home")
        made.make()
        settings = Settings(home=made.root)
        postgres.prepare(made, settings)
        with (made.logs / "database.log").open("wb") as log:
            server = subprocess.Popen(
                [*postgres.command(made, settings), "-c", "fsync=off"],
                stdout=log,
                stderr=log,
                cwd=made.root,
            )
        try:
            eventually(lambda: postgres.ready(made), "the database answers")
            yield made
        finally:
            server.send_signal(signal.SIGQUIT)  # at once: the data is thrown away
            server.wait(30)


@pytest.fixture(scope="session")
def prefect_url() -> Iterator[str]:
    """The address of a Prefect server of the session's."""
    from tests import prefect_server

    with prefect_server.serving() as url:
        yield url


@pytest.fixture
def prefect_api(prefect_url: str, _isolated: None) -> Iterator[str]:
    """The same, which this process talks to for the test."""
    import prefect.context

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_API_URL", prefect_url)
        prefect.context.refresh_global_settings_context()
        yield prefect_url
    prefect.context.refresh_global_settings_context()
