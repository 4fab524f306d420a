"""Every test has a home of its own, and nothing of the caller's environment."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from infra.home import Home
from infra.settings import Settings
from infra.stack import postgres
from tests.processes import eventually

_OURS = ("MODELYARD_", "PREFECT_", "MLFLOW_", "_MLFLOW_", "EM_")

# A test that asks Prefect without saying so fails, instead of waiting for a server of its own.
_WITHOUT_SERVER = "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"
os.environ[_WITHOUT_SERVER] = "false"

# Fixtures that take long to make: one worker runs all tests that want one, the longest first.
_STACKS = ("cluster", "stack", "spare", "bare_home")
_SERVERS = ("mlflow_server", "prefect_url")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Spare the garbage collector what is made for good: thousands of tests, and what they import.

    It would look through a million objects again and again, and find nothing.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave soaks to ``make soak``, and have a worker run all tests of one group."""
    soaking = bool(os.environ.get("MODELYARD_SOAK"))
    if not soaking:
        left = [item for item in items if item.get_closest_marker("soak")]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if not item.get_closest_marker("soak")]
    groups = {item.path: str(item.path) for item in items}
    for item in items:
        if server := _wanted(item, _SERVERS):
            groups[item.path] = server
            item.add_marker(pytest.mark.integration)
    ranks = {group: rank for rank, group in enumerate((*_STACKS, None, *_SERVERS))}
    found = [(_wanted(item, _STACKS) or groups[item.path], item) for item in items]
    for group, item in found:
        item.add_marker(pytest.mark.xdist_group(group))
        if item.get_closest_marker("e2e"):
            ranks.setdefault(group, len(_STACKS))  # it starts a stack of its own
    found.sort(key=lambda one: ranks.get(one[0], len(ranks)))
    items[:] = [item for _, item in found]


def group_of(item: pytest.Item) -> str:
    """The tests of one group run in one worker, one after the other."""
    return str(next(item.iter_markers("xdist_group")).args[0])


def _wanted(item: pytest.Item, fixtures: tuple[str, ...]) -> str | None:
    """The first of the fixtures that a test wants."""
    if fixtures is _STACKS and not item.get_closest_marker("e2e"):
        return None
    names = getattr(item, "fixturenames", ())
    return next((name for name in fixtures if name in names), None)


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
    monkeypatch.setenv(_WITHOUT_SERVER, "false")
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
