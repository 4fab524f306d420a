from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg.errors
import pytest
import sqlalchemy
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import DBAPIError, OperationalError

import registry
from infra import identity
from infra.errors import DiskFullError, StackError
from registry import catalogue, history
from registry.tunings import trials
from tests.processes import eventually
from tests.registry.tuned import row


def _revision() -> str | None:
    with catalogue.engine().connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def _head() -> str | None:
    return ScriptDirectory.from_config(catalogue.configuration()).get_current_head()


def test_an_empty_database_is_brought_up_to_date(database: str) -> None:
    assert _revision() is None

    catalogue.migrate()
    catalogue.migrate()

    assert _revision() == _head()


def test_the_rows_are_what_the_migrations_make(database: str) -> None:
    for module in pkgutil.walk_packages(registry.__path__, "registry."):
        if ".migrations" not in module.name:
            importlib.import_module(module.name)
    catalogue.migrate()

    with catalogue.engine().connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, catalogue.Base.metadata) == []


def test_migrations_can_be_undone(database: str) -> None:
    catalogue.migrate()
    config = catalogue.configuration()
    with catalogue.engine().begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")

    tables = sqlalchemy.inspect(catalogue.engine()).get_table_names()
    assert tables == ["alembic_version"]
    catalogue.migrate()
    assert _revision() == _head()


def test_a_deleted_pipeline_of_an_earlier_version_leaves_its_name(database: str) -> None:
    catalogue.migrate()
    config = catalogue.configuration()
    with catalogue.engine().begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0014")
        connection.execute(
            sqlalchemy.text(
                "INSERT INTO pipelines VALUES ('i', 'gone', '', 2, now(), '', now(), '')"
            )
        )
        command.upgrade(config, "head")

        left = connection.execute(sqlalchemy.text("SELECT count(*) FROM pipelines")).scalar()
        names = connection.execute(sqlalchemy.text("SELECT * FROM pipeline_former_names")).all()
    assert (left, [tuple(one) for one in names]) == (0, [("gone", 2, "i")])


def test_there_is_one_head() -> None:
    script = ScriptDirectory.from_config(catalogue.configuration())

    assert len(script.get_heads()) == 1


def test_several_processes_may_migrate_at_once(
    postgresql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have seen an empty database when the first one begins."""
    monkeypatch.setenv("MODELYARD_DATABASE_URL", postgresql)
    command_line = [sys.executable, "-c", "from registry import catalogue; catalogue.migrate()"]
    waiting = sqlalchemy.text(
        "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database "
        "WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"
    )
    with catalogue.engine().begin() as connection:
        connection.execute(sqlalchemy.text(f"SELECT pg_advisory_xact_lock({catalogue._LOCK})"))
        processes = [
            subprocess.Popen(command_line, stderr=subprocess.PIPE, text=True) for _ in range(2)
        ]
        eventually(lambda: connection.scalar(waiting) == 2, "both wait for their turn")
    for process in processes:
        assert process.communicate(timeout=60) == (None, "")
        assert process.returncode == 0

    assert _revision() == _head()
    catalogue.engine().dispose()


def test_another_database_than_postgresql_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_DATABASE_URL", "sqlite:///catalogue.db")

    with pytest.raises(StackError) as raised:
        catalogue.engine()
    assert raised.value.code == "DatabaseUnsupported"
    assert "catalogue.db" not in str(raised.value)  # a URL may hold a password


class TestPatience:
    @pytest.fixture(autouse=True)
    def _at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(catalogue, "_RETRY_SECONDS", 0.001)
        monkeypatch.setattr(catalogue, "_given_up", threading.Event())

    def _ended(self, *, times: int) -> Callable[[], list[int]]:
        """Has its own connection ended by the server so many times, then answers."""
        left = [times]

        def ask() -> list[int]:
            with catalogue.engine().begin() as connection:
                if left[0]:
                    left[0] -= 1
                    me = sqlalchemy.text("SELECT pg_terminate_backend(pg_backend_pid())")
                    connection.execute(me)
                return list(connection.scalars(sqlalchemy.text("SELECT 7")))

        return ask

    def test_a_database_that_is_started_anew_is_waited_for(
        self, postgresql: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MODELYARD_DATABASE_URL", postgresql)

        assert catalogue.retry_transient(self._ended(times=3)) == [7]
        catalogue.engine().dispose()

    def test_it_is_not_waited_for_ever(
        self, postgresql: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MODELYARD_DATABASE_URL", postgresql)
        monkeypatch.setattr(catalogue, "_PATIENCE_SECONDS", 0.05)

        with pytest.raises(OperationalError):
            catalogue.retry_transient(self._ended(times=10**6))
        catalogue.engine().dispose()

    def test_who_comes_after_that_does_not_wait_until_it_has_answered(
        self, postgresql: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MODELYARD_DATABASE_URL", postgresql)
        monkeypatch.setattr(catalogue, "_PATIENCE_SECONDS", 0.05)
        with pytest.raises(OperationalError):
            catalogue.retry_transient(self._ended(times=10**6))
        monkeypatch.setattr(catalogue, "_PATIENCE_SECONDS", 60.0)

        with pytest.raises(OperationalError):
            catalogue.retry_transient(self._ended(times=1))
        assert catalogue.retry_transient(self._ended(times=0)) == [7]
        assert catalogue.retry_transient(self._ended(times=1)) == [7]
        catalogue.engine().dispose()

    def test_a_full_disk_is_told_at_once(self, database: str) -> None:
        asked: list[bool] = []

        def ask() -> None:
            asked.append(True)
            raise OperationalError("", {}, psycopg.errors.DiskFull("No space left on device"))

        with pytest.raises(DiskFullError) as raised:
            catalogue.retry_transient(ask)
        assert len(asked) == 1
        assert "database" in raised.value.message

    def test_what_is_wrong_with_the_question_is_told_at_once(self, database: str) -> None:
        asked: list[bool] = []

        def ask() -> None:
            asked.append(True)
            with catalogue.engine().begin() as connection:
                connection.execute(sqlalchemy.text("SELECT * FROM nowhere"))

        with pytest.raises(DBAPIError):
            catalogue.retry_transient(ask)
        assert len(asked) == 1


def test_a_trial_is_saved_though_the_database_was_away(
    postgresql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELYARD_DATABASE_URL", postgresql)
    catalogue.migrate()
    really = catalogue.engine().begin
    away = iter([True, True])

    def begin() -> Any:
        if next(away, False):
            raise OperationalError("", {}, Exception("the server is starting up"))
        return really()

    monkeypatch.setattr(catalogue.engine(), "begin", begin)
    trials.save("t", row(0))
    monkeypatch.undo()
    monkeypatch.setenv("MODELYARD_DATABASE_URL", postgresql)

    assert [one["number"] for one in trials.of("t")] == [0]
    catalogue.engine().dispose()


def test_without_a_database_the_way_out_is_told() -> None:
    with pytest.raises(StackError) as raised:
        catalogue.engine()

    assert "modelyard up" in raised.value.hint


@pytest.fixture
def _migrated(postgresql: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MODELYARD_DATABASE_URL", postgresql)
    catalogue.migrate()
    yield
    catalogue.engine().dispose()


@pytest.mark.usefixtures("_migrated")
class TestHistory:
    def test_what_nobody_touched_has_none(self) -> None:
        assert history.of("run", "r1") == []

    def test_deeds_are_told_in_order_with_who_and_when(self) -> None:
        before = datetime.now(UTC)
        history.record("run", "r1", "stop")
        history.record("run", "r1", "retry", was="STOPPED", nested={"a": [1]})

        stop, retry = history.of("run", "r1")

        assert (stop["verb"], stop["detail"]) == ("stop", {})
        assert (retry["verb"], retry["detail"]) == (
            "retry",
            {"was": "STOPPED", "nested": {"a": [1]}},
        )
        assert stop["user"] == retry["user"] == identity.caller()
        assert before <= datetime.fromisoformat(stop["at"]) <= datetime.now(UTC)

    def test_subjects_and_nouns_are_told_apart(self) -> None:
        history.record("run", "r1", "stop")
        history.record("run", "r2", "delete")
        history.record("model", "r1", "show")

        assert [deed["verb"] for deed in history.of("run", "r1")] == ["stop"]
