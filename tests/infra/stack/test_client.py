from __future__ import annotations

import json
import socket
import threading

import pytest

from infra.errors import DiskFullError, StackError
from infra.home import Home
from infra.settings import Settings
from infra.stack import client


def test_nothing_runs_in_a_new_home(home: Home) -> None:
    assert client.status(home) is None
    assert client.endpoints(home) is None
    assert client.down(home) is False


@pytest.mark.parametrize("record", ["", "{}", '{"control": "/nowhere/control.sock"}'])
def test_a_stale_record_is_no_stack(home: Home, record: str) -> None:
    home.record.write_text(record)

    assert client.status(home) is None
    assert client.down(home) is False


def test_a_socket_that_nobody_serves_is_no_stack(home: Home) -> None:
    control = home.sockets / "control.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(control))
    home.record.write_text(json.dumps({"control": str(control)}))

    assert client.status(home) is None


def test_another_users_home_is_not_taken_for_one_without_a_stack(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_text", unreadable)
    for ask in (client.status, client.down):
        with pytest.raises(StackError) as refused:
            ask(home)
        assert refused.value.code == "HomeUnreadable"


def test_the_reason_of_a_failed_start_is_passed_on(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        "import json, pathlib, os; pathlib.Path('error.json').write_text("
        "json.dumps({'message': 'No luck.', 'hint': 'Try again.'})); raise SystemExit(1)"
    )
    real = client.subprocess.Popen
    monkeypatch.setattr(
        client.subprocess,
        "Popen",
        lambda command, **options: real([command[0], "-c", script], **options),
    )

    with pytest.raises(StackError, match=r"No luck\. Try again\."):
        client.up(home, Settings(home=home.root))


@pytest.mark.parametrize(
    ("free_mib", "new", "refused"),
    [(20, True, True), (20, False, False), (5, False, True), (0, True, True)],
)
def test_a_full_disk_is_named_before_anything_starts(
    home: Home, monkeypatch: pytest.MonkeyPatch, free_mib: int, new: bool, refused: bool
) -> None:
    class SpawnedError(Exception):
        pass

    def spawned(*_: object, **__: object) -> object:
        raise SpawnedError

    monkeypatch.setattr(client.subprocess, "Popen", spawned)
    monkeypatch.setattr(Home, "free_bytes", lambda _: free_mib * 2**20)
    if not new:
        home.database.mkdir()
        (home.database / "PG_VERSION").write_text("18")

    if refused:
        with pytest.raises(DiskFullError, match=rf"is full: it has {free_mib} MiB free") as full:
            client.up(home, Settings(home=home.root))
        assert full.value.code == "DiskFull"
        assert "MODELYARD_HOME" in full.value.hint
    else:
        with pytest.raises(SpawnedError):
            client.up(home, Settings(home=home.root))


def test_a_stack_that_does_not_start_in_time_is_told(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = client.subprocess.Popen
    started = []

    def sleeper(command: list[str], **options: object) -> object:
        started.append(real(["sleep", "600"], **options))  # type: ignore[call-overload]
        return started[-1]

    monkeypatch.setattr(client.subprocess, "Popen", sleeper)
    try:
        with pytest.raises(StackError, match="did not start in time"):
            client.up(home, Settings(home=home.root, start_timeout_seconds=0.3))
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_a_stack_that_is_ending_is_waited_for(home: Home) -> None:
    """A command that comes while a private stack ends gets the next stack."""
    control = home.sockets / "control.sock"
    home.record.write_text(json.dumps({"control": str(control)}))
    status = {"ready": True, "error": None}
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(control))
        server.listen()

        def serve() -> None:
            for answer in (b"", json.dumps(status).encode() + b"\n"):
                connection, _ = server.accept()
                with connection:
                    connection.recv(100)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert client.up(home, Settings(home=home.root)) == status
        thread.join()
