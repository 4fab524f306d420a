from __future__ import annotations

import signal
import stat
import subprocess
from pathlib import Path

import psutil
import psycopg
import pytest
import sqlalchemy

from infra.errors import StackError
from infra.home import Home
from infra.settings import Settings
from infra.stack import postgres
from tests.processes import eventually


def _settings(home: Home) -> Settings:
    return Settings(home=home.root)


def test_a_user_without_a_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 4_000_000)

    with pytest.raises(StackError, match="4000000 has no entry in /etc/passwd"):
        postgres._as_owner(["initdb"])


def test_the_embedded_server_has_every_database(database_home: Home) -> None:
    for name in postgres.DATABASES:
        engine = sqlalchemy.create_engine(postgres.url(database_home, "psycopg", name))
        with engine.connect() as connection:
            assert connection.scalar(sqlalchemy.text("SELECT current_database()")) == name
        engine.dispose()


def test_text_sorts_the_same_everywhere(database_home: Home) -> None:
    with psycopg.connect(
        host=str(database_home.sockets), user=postgres.USER, dbname="modelyard"
    ) as connection:
        made = connection.execute(
            "SELECT pg_encoding_to_char(encoding), datlocprovider, datlocale, datcollate "
            "FROM pg_database WHERE datname = current_database()"
        ).fetchone()

    assert made == ("UTF8", "b", "C.UTF-8", "C")


@pytest.mark.parametrize("extension", ["pg_trgm", "vector"])
def test_the_extensions_that_others_need_are_there(database_home: Home, extension: str) -> None:
    with psycopg.connect(
        host=str(database_home.sockets), user=postgres.USER, dbname="postgres", autocommit=True
    ) as connection:
        connection.execute(f"CREATE EXTENSION IF NOT EXISTS {extension}")


def test_it_is_not_reached_by_network(database_home: Home) -> None:
    pid = int((database_home.database / "postmaster.pid").read_text().split()[0])
    server = psutil.Process(pid)

    for process in (server, *server.children(recursive=True)):
        assert process.net_connections("inet") == []
    assert stat.S_IMODE(database_home.sockets.stat().st_mode) == 0o700


def test_its_files_are_closed_to_others(database_home: Home) -> None:
    assert stat.S_IMODE(database_home.database.stat().st_mode) == 0o700


def test_a_database_that_is_there_is_left_alone(database_home: Home) -> None:
    before = (database_home.database / "PG_VERSION").stat()

    postgres.prepare(database_home, _settings(database_home))

    assert (database_home.database / "PG_VERSION").stat() == before
    assert postgres.ready(database_home)


def test_without_a_server_nothing_is_ready(home: Home) -> None:
    assert not postgres.ready(home)


def test_a_half_made_database_is_made_anew(home: Home) -> None:
    half = home.root / "postgres.making"
    half.mkdir()
    (half / "PG_VERSION").write_text("18")
    (half / "rubbish").touch()

    postgres.prepare(home, _settings(home))

    assert (home.database / "PG_VERSION").exists()
    assert (home.database / "global" / "pg_control").exists()
    assert not (home.database / "rubbish").exists()
    assert not half.exists()


def test_a_folder_with_other_things_is_refused_and_kept(home: Home) -> None:
    home.database.mkdir()
    (home.database / "thesis.txt").write_text("dear")

    with pytest.raises(StackError):
        postgres.prepare(home, _settings(home))

    assert (home.database / "thesis.txt").read_text() == "dear"
    assert [path.name for path in home.database.iterdir()] == ["thesis.txt"]


def test_binaries_that_are_missing_are_named(home: Home, tmp_path: Path) -> None:
    settings = Settings(home=home.root, postgres_bin=tmp_path)

    with pytest.raises(StackError) as raised:
        postgres.prepare(home, settings)

    assert str(tmp_path / "initdb") in raised.value.message
    assert "MODELYARD_POSTGRES_BIN" in raised.value.hint


@pytest.mark.parametrize(
    ("reason", "message", "code"),
    [
        ("no rights at all", "no rights at all", "Stack"),
        ("initdb: could not write: No space left on device", "is full", "DiskFull"),
    ],
)
def test_an_initdb_that_fails_says_why_and_leaves_nothing(
    home: Home, tmp_path: Path, reason: str, message: str, code: str
) -> None:
    tmp_path.chmod(0o755)
    initdb = tmp_path / "initdb"
    lines = ("first", reason, "initdb: removing contents of data directory")
    initdb.write_text("\n".join(["#!/bin/sh", *(f"echo '{one}' >&2" for one in lines), "exit 1"]))
    initdb.chmod(0o755)

    with pytest.raises(StackError, match=message) as raised:
        postgres.prepare(home, Settings(home=home.root, postgres_bin=tmp_path))

    assert raised.value.code == code
    assert raised.value.hint

    assert not home.database.exists()
    assert not (home.root / "postgres.making").exists()


@pytest.mark.parametrize("alive", [False, True])
def test_the_locks_of_a_server_that_nobody_reaped_are_none(home: Home, alive: bool) -> None:
    home.database.mkdir()
    (home.database / "PG_VERSION").write_text("18\n")
    process = subprocess.Popen(["sleep", "60"])  # not waited for: a zombie when it is dead
    if not alive:
        process.kill()
        found = psutil.Process(process.pid)
        eventually(lambda: found.status() == psutil.STATUS_ZOMBIE, "a zombie")
    locks = [home.database / "postmaster.pid", home.sockets / ".s.PGSQL.5432.lock"]
    for lock in locks:
        lock.write_text(f"{process.pid}\n{home.database}\n")

    postgres.prepare(home, _settings(home))

    assert [lock.exists() for lock in locks] == [alive, alive]
    process.kill()
    process.wait()


@pytest.mark.skipif(not postgres._SEGMENTS.exists(), reason="the kernel has no such list")
def test_the_last_processes_of_a_killed_server_are_waited_for(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.prepare(home, _settings(home))
    command = [*postgres.command(home, _settings(home)), "-c", "fsync=off"]
    server = subprocess.Popen(command, cwd=home.root, stderr=subprocess.DEVNULL)
    eventually(lambda: postgres.ready(home), "the database answers")
    last = psutil.Process(server.pid).children()[0]
    last.suspend()  # it does not notice
    server.kill()
    server.wait()
    waited = []

    def sleep(_: float) -> None:
        waited.append((home.database / "postmaster.pid").exists())
        last.kill()

    monkeypatch.setattr(postgres.time, "sleep", sleep)
    postgres.prepare(home, _settings(home))

    assert waited[0]
    again = subprocess.Popen(command, cwd=home.root, stderr=subprocess.DEVNULL)
    eventually(lambda: postgres.ready(home), "the database answers")
    again.send_signal(signal.SIGQUIT)
    again.wait(30)


@pytest.mark.parametrize("content", ["", "no number", "-7", "999999999"])
def test_an_odd_lock_is_left_to_postgresql(home: Home, content: str) -> None:
    home.database.mkdir()
    (home.database / "PG_VERSION").write_text("18\n")
    (home.database / "postmaster.pid").write_text(content)

    postgres.prepare(home, _settings(home))

    assert (home.database / "postmaster.pid").read_text() == content


def test_root_is_told_what_is_missing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres.os, "geteuid", lambda: 0)
    monkeypatch.setattr(postgres.shutil, "which", lambda _: None)

    with pytest.raises(StackError, match="refuses to run as root"):
        postgres.command(home, _settings(home))


def test_an_ordinary_user_runs_it_directly(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres.os, "geteuid", lambda: 1000)

    command = postgres.command(home, _settings(home))

    assert Path(command[0]).name == "postgres"
    assert "listen_addresses=" in command


def test_the_binaries_run() -> None:
    binary = postgres._embedded_bin() / "postgres"

    done = subprocess.run([str(binary), "--version"], capture_output=True, text=True)

    assert done.stdout.startswith("postgres (PostgreSQL)")


def test_a_socket_path_with_odd_signs_is_quoted() -> None:
    url = postgres.url(Home(Path("/a b&c=d")), "psycopg", "modelyard")

    assert sqlalchemy.make_url(url).query["host"] == "/a b&c=d/sockets"
