"""Client of the local stack's supervisor: find, start and stop the stack."""

from __future__ import annotations

import contextlib
import fcntl
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from infra.connection import Endpoints
from infra.errors import DiskFullError, StackError
from infra.forkclient import own_python
from infra.home import Home
from infra.settings import Settings

_STOP_SECONDS = 90.0

# Measured: a first start writes 68 MiB. Later, PostgreSQL needs a segment of its log.
_NEW_HOME_MIB = 100
_HOME_MIB = 16


def _connect(home: Home) -> socket.socket | None:
    """Connect to the home's supervisor; None if none runs.

    Raises:
        StackError: With the code ``HomeUnreadable``, if the home is another user's.
    """
    try:
        control = json.loads(home.record.read_text())["control"]
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(control)
    except PermissionError as error:
        raise StackError(
            f"The home {home.root} cannot be read by this user: {error.strerror}.",
            "Set MODELYARD_HOME to a folder of your own.",
            code="HomeUnreadable",
        ) from error
    except (OSError, ValueError, KeyError):
        return None
    return connection


def _ask(connection: socket.socket, operation: str) -> dict[str, Any] | None:
    """Send ``operation``; return the resulting status, or None if the stack is ending."""
    try:
        connection.sendall(json.dumps({"op": operation}).encode() + b"\n")
        with connection.makefile("rb") as reader:
            line = reader.readline()
    except OSError:
        return None
    if not line:
        return None
    status: dict[str, Any] = json.loads(line)
    if status["error"]:
        raise StackError(status["error"]["message"], status["error"]["hint"])
    return status


def status(home: Home) -> dict[str, Any] | None:
    """Return the status of the stack in ``home``; None if none is running."""
    connection = _connect(home)
    if connection is None:
        return None
    with connection:
        return _ask(connection, "status")


def check_up(home: Home, *, to_workers: bool) -> None:
    """Refuse what needs a stack where none is up.

    Args:
        home: The home.
        to_workers: Whether workers are needed, which a temporary stack does not have.

    Raises:
        StackError: If no stack is up in ``home``, or one without workers.
    """
    found = status(home)
    if found is None or (to_workers and not found.get("lasting")):
        raise not_up(to_workers=to_workers)


def not_up(*, to_workers: bool) -> StackError:
    """Error of what needs a stack, or its workers, where none is up."""
    if to_workers:
        return StackError(
            "The stack is not up, so no worker would start the run.",
            "Start it (modelyard up --detach), or run in this process: a flow by modelyard call, "
            "a pipeline by modelyard pipeline run --local.",
        )
    return StackError("The stack is not up.", "Start it: modelyard up --detach.")


def endpoints(home: Home) -> Endpoints | None:
    """Return the running stack's endpoints; None if none is running."""
    found = status(home)
    return Endpoints(**found["endpoints"]) if found else None


def _request(
    home: Home, settings: Settings, operation: str, *, lasting: bool
) -> tuple[socket.socket, dict[str, Any]]:
    """Do ``operation`` on the running stack, or start one; the connection, and the status.

    A stack that is ending is no answer: the next one is started as soon as it has ended.

    Raises:
        DiskFullError: If the home's disk has no room for it.
        StackError: If it does not come up.
    """
    home.make()
    failure = home.root / "error.json"
    failure.unlink(missing_ok=True)
    deadline = time.monotonic() + settings.start_timeout_seconds
    process: subprocess.Popen[bytes] | None = None
    while time.monotonic() < deadline:
        connection = _connect(home)
        if connection is not None:
            with contextlib.ExitStack() as unless_answered:
                unless_answered.enter_context(connection)
                if (status := _ask(connection, operation)) is not None:
                    unless_answered.pop_all()
                    return connection, status
        elif process is None or process.poll() is not None:
            if failure.exists():
                error = json.loads(failure.read_text())
                raise StackError(error["message"], error["hint"], code=error.get("code"))
            _check_room(home, settings)
            process = _spawn(home, lasting=lasting)
        time.sleep(0.05)
    raise StackError("The stack did not start in time.", f"Its logs are in {home.logs}.")


def _check_room(home: Home, settings: Settings) -> None:
    """Refuse to start where the disk has no room, which its parts would report in many ways."""
    new = not (settings.database_url or home.has_database)
    needed = _NEW_HOME_MIB if new else _HOME_MIB
    free = home.free_bytes() // 2**20
    if free < needed:
        raise DiskFullError(
            f"The disk of {home.root} is full: it has {free} MiB free, and the stack needs "
            f"{needed} MiB to start.",
            "Free space, or set MODELYARD_HOME to a folder on another disk.",
        )


def _spawn(home: Home, *, lasting: bool) -> subprocess.Popen[bytes]:
    options = ["--lasting"] if lasting else []
    with (home.logs / "supervisor.log").open("ab") as log:
        return subprocess.Popen(
            [*own_python("infra.stack.supervisor"), *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=home.root,
            start_new_session=True,
        )


def up(home: Home, settings: Settings) -> dict[str, Any]:
    """Ensure that a lasting stack is running and ready; return its status.

    Raises:
        DiskFullError: If the home's disk has no room for it.
        StackError: If it does not come up.
    """
    connection, status = _request(home, settings, "keep", lasting=True)
    connection.close()
    return status


@contextlib.contextmanager
def attached(home: Home, settings: Settings) -> Iterator[tuple[dict[str, Any], socket.socket]]:
    """The status of a lasting stack that ends with the block, or with this process.

    Yields:
        The status, and a socket that becomes readable when the stack ends by itself.

    Raises:
        StackError: If it does not come up.
    """
    connection, status = _request(home, settings, "attach", lasting=True)
    with connection:
        yield status, connection
    _await_end(home)


@contextlib.contextmanager
def temporary_stack(home: Home, settings: Settings) -> Iterator[Endpoints]:
    """Hold the stack, or start a temporary one that ends after its last holder.

    Raises:
        StackError: If it does not come up.
    """
    connection, status = _request(home, settings, "hold", lasting=False)
    with connection:
        yield Endpoints(**status["endpoints"])


def down(home: Home) -> bool:
    """End the running stack and wait for its end; False if none was running.

    Raises:
        StackError: If it does not end.
    """
    connection = _connect(home)
    if connection is None:
        return False
    with connection, contextlib.suppress(OSError):
        connection.sendall(b'{"op": "down"}\n')
    _await_end(home)
    return True


def _await_end(home: Home) -> None:
    deadline = time.monotonic() + _STOP_SECONDS
    while time.monotonic() < deadline:
        if _unlocked(home):
            return
        time.sleep(0.05)
    raise StackError("The stack does not end.", f"Its logs are in {home.logs}.")


def _unlocked(home: Home) -> bool:
    with home.lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
