"""What the scheduler's process adds to a scheduler: it waits, goes on after errors, is seen."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from infra import forked
from infra.home import Home
from modelyard import scheduler
from registry import catalogue, schedules
from schedules.scheduler import Scheduler
from tests.processes import eventually
from tests.registry.conftest import new_database


@pytest.fixture(autouse=True)
def _catalogue(database_home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MODELYARD_DATABASE_URL", new_database(database_home))
    catalogue.migrate()
    yield
    catalogue.engine().dispose()


def _ring() -> None:
    with catalogue.engine().begin() as connection:
        schedules.tell(connection, "any")


def _end_others() -> None:
    """End the database's other connections, as a restart of it would."""
    with psycopg.connect(_url(), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def _url() -> str:
    url = catalogue.engine().url.set(drivername="postgresql")
    return url.render_as_string(hide_password=False)


class Scripted(Scheduler):
    """Its steps do as they are told, one after the other, and the last ends the work."""

    def __init__(self, stopped: threading.Event, *steps: float | Exception) -> None:
        self.left = list(steps)
        self._stopped = stopped

    def step(self) -> float:
        found = self.left.pop(0)
        if not self.left:
            self._stopped.set()
        if isinstance(found, Exception):
            raise found
        return found


class TestBell:
    def test_it_wakes_who_waits(self) -> None:
        bell = scheduler.Bell()
        bell.wait(0.01)  # from now on it listens
        waits = threading.Thread(target=bell.wait, args=(600,))
        waits.start()
        _ring()
        waits.join(60)

        assert not waits.is_alive()

    def test_what_rang_before_is_heard(self) -> None:
        bell = scheduler.Bell()
        bell.wait(0.01)
        _ring()
        waits = threading.Thread(target=bell.wait, args=(600,))
        waits.start()
        waits.join(60)

        assert not waits.is_alive()

    def test_it_says_when_the_database_is_gone_and_listens_again(self) -> None:
        bell = scheduler.Bell()
        bell.wait(0.01)
        _end_others()
        with pytest.raises(psycopg.OperationalError):
            bell.wait(600)
        bell.wait(0.01)


class TestWork:
    def test_it_goes_on_after_any_error(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(scheduler, "_RETRY_SECONDS", 0.01)
        stopped = threading.Event()
        gone = OperationalError("SELECT 1", {}, Exception("gone"))
        scripted = Scripted(stopped, gone, ValueError("odd"), 0.0, 0.01)
        scheduler.work(scripted, stopped)

        assert scripted.left == []
        assert "The database does not answer" in caplog.text
        assert "odd" in caplog.text

    def test_it_waits_for_the_bell_between_steps(self) -> None:
        stopped = threading.Event()
        scripted = Scripted(stopped, 0.0, 600.0, 0.0)
        works = threading.Thread(target=scheduler.work, args=(scripted, stopped))
        works.start()
        eventually(lambda: len(scripted.left) == 1, "it waits")
        while works.is_alive():  # it may not listen yet
            _ring()
            time.sleep(0.05)

        assert scripted.left == []


def test_it_makes_its_home_where_nobody_else_has(home: Home) -> None:
    shutil.rmtree(home.root)

    with scheduler._announced():
        assert forked.accepts(home.sockets / "scheduler.sock")


def test_it_is_seen_though_another_was_killed_and_left_its_socket(home: Home) -> None:
    path = home.sockets / "scheduler.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert path.exists()
    assert not forked.accepts(path)

    with scheduler._announced():
        assert forked.accepts(path)
