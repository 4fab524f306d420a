"""Find, start and stop the local stack from another process."""

from __future__ import annotations

import contextlib
import fcntl
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from infra.connection import Endpoints
from infra.errors import StackError
from infra.home import Home
from infra.settings import Settings

_STOP_SECONDS = 90.0


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
            f"The home {home.root} is not yours to read: {error.strerror}.",
            "Set MODELYARD_HOME to a folder of your own.",
            code="HomeUnreadable",
        ) from error
    except (OSError, ValueError, KeyError):
        return None
    return connection


def _ask(connection: socket.socket, operation: str) -> dict[str, Any]:
    connection.sendall(json.dumps({"op": operation}).encode() + b"\n")
    with connection.makefile("rb") as reader:
        line = reader.readline()
    if not line:
        raise StackError("The stack ended meanwhile.", "Its logs say why: modelyard status.")
    status: dict[str, Any] = json.loads(line)
    if status["error"]:
        raise StackError(status["error"]["message"], status["error"]["hint"])
    return status


def status(home: Home) -> dict[str, Any] | None:
    """What runs in ``home``; None if nothing does."""
    connection = _connect(home)
    if connection is None:
        return None
    with connection:
        try:
            return _ask(connection, "status")
        except (OSError, StackError):
            return None


def endpoints(home: Home) -> Endpoints | None:
    """The running stack's endpoints; None if none runs."""
    found = status(home)
    return Endpoints(**found["endpoints"]) if found else None


def _start(home: Home, settings: Settings, *, lasting: bool) -> socket.socket:
    """Connect to the running supervisor, or start one and connect to that."""
    home.make()
    failure = home.root / "error.json"
    failure.unlink(missing_ok=True)
    deadline = time.monotonic() + settings.start_timeout_seconds
    process: subprocess.Popen[bytes] | None = None
    while time.monotonic() < deadline:
        connection = _connect(home)
        if connection is not None:
            return connection
        if process is None or process.poll() is not None:
            if failure.exists():
                error = json.loads(failure.read_text())
                raise StackError(error["message"], error["hint"])
            process = _spawn(home, lasting=lasting)
        time.sleep(0.05)
    raise StackError("The stack did not start in time.", f"Its logs are in {home.logs}.")


def _spawn(home: Home, *, lasting: bool) -> subprocess.Popen[bytes]:
    options = ["--lasting"] if lasting else []
    with (home.logs / "supervisor.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "infra.stack.supervisor", *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=home.root,
            start_new_session=True,
        )


def up(home: Home, settings: Settings) -> dict[str, Any]:
    """Make sure that a lasting stack runs, and wait until it is ready; its status.

    Raises:
        StackError: If it does not come up.
    """
    with _start(home, settings, lasting=True) as connection:
        return _ask(connection, "keep")


@contextlib.contextmanager
def held(home: Home, settings: Settings) -> Iterator[Endpoints]:
    """The stack's endpoints; where none runs, of a private one that ends after the last holder.

    Raises:
        StackError: If it does not come up.
    """
    with _start(home, settings, lasting=False) as connection:
        yield Endpoints(**_ask(connection, "hold")["endpoints"])


def down(home: Home) -> bool:
    """End the running stack and wait until it has; False if none ran.

    Raises:
        StackError: If it does not end.
    """
    connection = _connect(home)
    if connection is None:
        return False
    with connection, contextlib.suppress(OSError):
        connection.sendall(b'{"op": "down"}\n')
    deadline = time.monotonic() + _STOP_SECONDS
    while time.monotonic() < deadline:
        if _unlocked(home):
            return True
        time.sleep(0.05)
    raise StackError("The stack does not end.", f"Its logs are in {home.logs}.")


def _unlocked(home: Home) -> bool:
    with home.lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
