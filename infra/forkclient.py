"""Run a Python module in a process forked from the fork server, as if it had been started here.

Used as ``python -I -S forkclient.py SOCKET MODULE [ARGUMENT...]``. Standard streams, working
directory and environment are handed to the forked process, signals are passed on, and the
client ends with the status of the module. Where the fork server does not answer within
``PATIENCE_SECONDS`` the client becomes an ordinary interpreter that runs the module.

The connection is the life line between both: the forked process ends when the client is gone,
so whoever ends the client ends the run. Imports only the standard library and is run by path,
because it stands between a trigger and its run.
"""

from __future__ import annotations

import contextlib
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


def _request(connection: socket.socket, module: str, arguments: list[str]) -> None:
    job = json.dumps(
        {"module": module, "arguments": arguments, "env": dict(os.environ), "cwd": os.getcwd()}  # noqa: PTH109
    ).encode()
    socket.send_fds(connection, [len(job).to_bytes(4, "big")], [0, 1, 2])
    connection.sendall(job)


def _wait(connection: socket.socket, wake: int, owner: int) -> int:
    """Wait for the module's status; pass signals on meanwhile, and end with the owner."""
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


def main(path: str, module: str, arguments: list[str]) -> int:
    """Run ``module`` through the fork server at ``path``; its exit status."""
    owner = os.getppid()
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    for signum in _SIGNALS:
        signal.signal(signum, lambda *_: None)
    connection = _connect(path)
    if connection is None:
        os.execv(  # noqa: S606
            sys.executable, [sys.executable, "-P", "-m", module, *arguments]
        )
    _request(connection, module, arguments)
    return _wait(connection, wake_read, owner)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
