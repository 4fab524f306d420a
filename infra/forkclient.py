"""Run a Python module in a process forked from the fork server, as if it had been started here.

Used as ``python -I -S forkclient.py SOCKET MODULE [ARGUMENT...]``. Standard streams, working
directory and environment are handed to the forked process, signals are passed on, and the
client ends with the status of the module. Where the fork server does not answer within
``PATIENCE_SECONDS`` the client becomes an ordinary interpreter that runs the module.

Where ``MODELYARD_RUN_LOCK`` names a lock file, the client locks it before anything else and hands
the open file to the forked process: the lock is held until both are gone. If another process
holds it, nothing is run. (:mod:`infra.run_lock` is the other side.)

The connection is the life line between both: the forked process ends when the client is gone,
so ending the client ends the run. Imports only the standard library and is run by path,
because it stands between a trigger and its run.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import sys
import time

PATIENCE_SECONDS = 20.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_OWNER_POLL_SECONDS = 0.5
_KILLED = 137
_LOCK_VARIABLE = "MODELYARD_RUN_LOCK"
_LOCK_PATIENCE_SECONDS = 2.0  # a check acquires it for a moment


def _connect(path: str) -> socket.socket | None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(path)
        except OSError:
            connection.close()
            if time.monotonic() > deadline:
                return None
            time.sleep(0.1)
        else:
            return connection


def _lock(path: str) -> int | None:
    """The lock file, open and locked; None if another process holds it."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)  # noqa: PTH103, PTH120
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + _LOCK_PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return None
            time.sleep(0.01)
        else:
            return descriptor


def _request(
    connection: socket.socket, module: str, arguments: list[str], kept: list[int]
) -> None:
    job = json.dumps(
        {"module": module, "arguments": arguments, "env": dict(os.environ), "cwd": os.getcwd()}  # noqa: PTH109
    ).encode()
    socket.send_fds(connection, [len(job).to_bytes(4, "big")], [0, 1, 2, *kept])
    connection.sendall(job)


def _wait(connection: socket.socket, wake: int, owner: int) -> int:
    """Wait for the module's status, pass on signals, and end with the owner."""
    answer = b""
    while True:
        watched: list[socket.socket | int] = [connection, wake]
        ready = select.select(watched, [], [], _OWNER_POLL_SECONDS)[0]
        if wake in ready:
            with contextlib.suppress(OSError):
                connection.sendall(os.read(wake, 64))
        if connection in ready:
            received = connection.recv(64)
            if not received:
                return int(answer) if answer else _KILLED
            answer += received
        if os.getppid() != owner:
            return _KILLED


def own_python(module: str) -> list[str]:
    """Build the command line that runs a module of Modelyard's in an interpreter of its own.

    PYTHONPATH is for the user's scripts, which inherit it: a project there may have packages with
    the names of Modelyard's. It is left out unless Modelyard itself is found through it.
    """
    root = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # noqa: PTH120
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    is_needed = root in map(os.path.realpath, entries)
    return [sys.executable, "-P" if is_needed else "-PE", "-m", module]


def main(path: str, module: str, arguments: list[str]) -> int:
    """Run ``module`` through the fork server at ``path``; its exit status."""
    owner = os.getppid()
    kept: list[int] = []
    if lock_path := os.environ.pop(_LOCK_VARIABLE, ""):
        lock = _lock(lock_path)
        if lock is None:
            print("Nothing is run: another process executes this run.", flush=True)
            return 0
        kept = [lock]
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    for signum in _SIGNALS:
        signal.signal(signum, lambda *_: None)
    connection = _connect(path)
    if connection is None:
        for descriptor in kept:
            os.set_inheritable(descriptor, True)
            os.environ[f"{_LOCK_VARIABLE}_FD"] = str(descriptor)
        os.execv(sys.executable, [*own_python(module), *arguments])  # noqa: S606
    _request(connection, module, arguments, kept)
    return _wait(connection, wake_read, owner)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
