"""Server that has everything imported and forks on request.

``python -m infra.forkserver SOCKET MODULE...`` imports the modules once and then answers
``forkclient.py``: each request becomes a forked process that runs a module as ``__main__``.
Importing Prefect and MLflow takes seconds and a fork takes milliseconds, which is most of the
time between a trigger and its run.

The server has one thread, always: a fork copies the calling thread only, and whatever lock
another one held would stay locked for ever.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import prefect.context

from infra import forked, main_module, run_lock, settings

# Settings are the stack's, not the calling shell's: those of its worker apply.
# The home is the caller's choice of a stack, in the stack's own spelling.
_SETTINGS = settings.of_the_stack()
_OF_THE_STACK = {"CUDA_VISIBLE_DEVICES", settings.variable("home"), *_SETTINGS}
_GRACE_SECONDS = 10.0
_TICK_SECONDS = 1.0


@dataclass(frozen=True)
class Job:
    """Job of a forked process, and the connection to its client.

    ``streams`` are its standard streams and, if it has one, its run's lock.
    """

    module: str
    arguments: list[str]
    env: dict[str, str]
    cwd: str
    streams: tuple[int, ...]
    connection: socket.socket


def _receive(connection: socket.socket) -> Job | None:
    """Receive a client's job; None if it only checks whether the server answers."""
    header, streams, _, _ = socket.recv_fds(connection, 4, 4)
    if not header:
        return None
    with connection.makefile("rb") as reader:
        header += reader.read(4 - len(header))
        job = json.loads(reader.read(int.from_bytes(header, "big")))
    return Job(**job, streams=tuple(streams), connection=connection)


@contextlib.contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(64)
        yield listener


class _Children:
    """Forked processes, each with its client's connection.

    The server keeps its end of each connection to see the client's end. A process whose client
    is gone has ``_GRACE_SECONDS``; one that cannot even notice (a C extension may hold the
    interpreter's lock for ever) is killed by the server then.
    """

    def __init__(self, poll: select.poll) -> None:
        self._poll = poll
        self._connections: dict[int, socket.socket] = {}
        self._deadlines: dict[int, float] = {}

    def add(self, pid: int, connection: socket.socket) -> None:
        self._connections[pid] = connection
        self._poll.register(connection, 0)  # nothing but the hang-up, which is always told

    def hung_up(self, descriptor: int) -> None:
        for pid, connection in self._connections.items():
            if connection.fileno() == descriptor:
                self._poll.unregister(connection)
                self._deadlines[pid] = time.monotonic() + _GRACE_SECONDS

    def kill_overdue(self) -> None:
        for pid, deadline in self._deadlines.items():
            if time.monotonic() > deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)

    def reap(self) -> None:
        """Reap ended processes; their clients see the end of the connection."""
        with contextlib.suppress(ChildProcessError):
            while pid := os.waitpid(-1, os.WNOHANG)[0]:
                connection = self._connections.pop(pid)
                if self._deadlines.pop(pid, None) is None:
                    self._poll.unregister(connection)
                connection.close()

    def forget(self) -> None:
        """Close the others' connections in a forked process."""
        for connection in self._connections.values():
            connection.close()


def serve(path: Path) -> Job:
    """Fork for every request at ``path``; return in the forked processes only.

    Raises:
        RuntimeError: If an import has started a thread.
    """
    if threading.active_count() > 1:
        raise RuntimeError(f"an import started threads: {threading.enumerate()}")
    poll = select.poll()
    children = _Children(poll)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, _end_after_children)
    with _listening(path) as listener, _waking() as wake:
        poll.register(listener, select.POLLIN)
        poll.register(wake, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll(_TICK_SECONDS * 1000):
                if descriptor == wake:
                    os.read(wake, 4096)
                elif descriptor != listener.fileno():
                    children.hung_up(descriptor)
                elif job := _accept(listener):
                    pid = os.fork()
                    if pid == 0:
                        children.forget()
                        return job
                    for stream in job.streams:
                        os.close(stream)
                    children.add(pid, job.connection)
            children.kill_overdue()
            children.reap()


@contextlib.contextmanager
def _waking() -> Iterator[int]:
    """Create a descriptor that is readable after a signal, to reap children at once."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    try:
        yield read
    finally:
        signal.set_wakeup_fd(-1)
        os.close(read)
        os.close(write)


def _accept(listener: socket.socket) -> Job | None:
    connection, _ = listener.accept()
    connection.settimeout(5)
    try:
        job = _receive(connection)
    except (OSError, ValueError, TypeError) as error:
        print(f"request dropped: {error}", file=sys.stderr, flush=True)
        job = None
    if job is None:
        connection.close()
    return job


def _end_after_children(*_: object) -> None:
    """End after the last forked process; its client ends it, within the leash's grace."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    os._exit(0)


def _obey(connection: socket.socket) -> None:
    """Convert the client's bytes to signals, and end with the client."""
    received = b" "
    while received:
        try:
            received = connection.recv(64)
        except OSError:
            received = b""
        for signum in received:
            os.kill(os.getpid(), signum)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    os.killpg(0, signal.SIGKILL)


def _become(job: Job) -> None:
    """Give this forked process the environment and streams of the client."""
    os.setsid()
    for signum in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)
    for target, stream in enumerate(job.streams[:3]):
        os.dup2(stream, target)
        os.close(stream)
    ours = {name: value for name, value in os.environ.items() if name in _OF_THE_STACK}
    unheeded = sorted(
        name for name in _SETTINGS if job.env.get(name, "") not in {"", ours.get(name)}
    )
    os.environ.clear()
    os.environ.update({n: value for n, value in job.env.items() if n not in _OF_THE_STACK})
    os.environ.update(ours)
    if unheeded:
        os.environ[forked.UNHEEDED_VARIABLE] = ", ".join(unheeded)
    for lock in job.streams[3:]:
        os.set_inheritable(lock, False)
        os.environ[run_lock.DESCRIPTOR_VARIABLE] = str(lock)
    time.tzset()  # the client's TZ
    os.chdir(job.cwd)
    prefect.context.refresh_global_settings_context()
    job.connection.settimeout(None)
    threading.Thread(target=_obey, args=(job.connection,), daemon=True).start()


def run(job: Job) -> NoReturn:
    """Run the job's module as ``__main__``, report its status to the client, and end."""
    _become(job)
    status = main_module.run(job.module, job.arguments)
    with contextlib.suppress(OSError):
        job.connection.sendall(str(status).encode())
    os._exit(status)


def main(path: str, modules: list[str]) -> NoReturn:
    """Import ``modules``, then serve at ``path``."""
    gc.disable()  # looks through all that is imported again and again, and finds nothing
    for module in modules:
        importlib.import_module(module)
    gc.enable()
    gc.collect()
    gc.freeze()  # a forked process's collector would touch, and so copy, every page of them
    run(serve(Path(path)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
