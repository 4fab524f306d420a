"""Workers of an inference server: processes that share a port, and are started again.

Each worker is a process of ``modelyard_runtime.server`` on a leash. The first ones accept
connections at once, so that probes see them load. A replacement accepts them once it has loaded
what it serves; until then they wait in the queues of its sockets, which this process holds open,
so that none is lost. At the end it shuts them down, and connections are refused.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.errors import ConflictError
from infra.leash_client import SpawnedLeash
from infra.workloads import exit_status
from serving.source_watch import SourceWatch

_TICK_SECONDS = 0.1
_BACKLOG = 2048
_MOST_RESTARTS = 5
_RESTART_SECONDS = 60.0
DRAIN_SECONDS = 10.0


@dataclass(frozen=True)
class WorkerSpec:
    """How a worker is started.

    Attributes:
        command: The server and its options, without its sockets.
        environment: Its variables.
        cwd: Its folder.
        keep: Open files that it inherits.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    cwd: Path
    keep: Sequence[int] = ()


@dataclass(frozen=True)
class WorkerListeners:
    """Where a worker accepts connections.

    Attributes:
        http: For HTTP.
        grpc: For gRPC; None if it serves none.
    """

    http: socket.socket
    grpc: socket.socket | None = None

    @property
    def descriptors(self) -> Mapping[str, int]:
        """Their file descriptors, by the options of the worker's command."""
        found = {"--fd": self.http, "--grpc-fd": self.grpc}
        return {option: one.fileno() for option, one in found.items() if one}

    def close(self) -> None:
        """Have connections refused, although workers have the listeners as well."""
        for one in (self.http, self.grpc):
            if one:
                with contextlib.suppress(OSError):  # only Linux shuts listeners down
                    one.shutdown(socket.SHUT_RDWR)
                one.close()


@dataclass
class _Worker:
    leash: SpawnedLeash
    listeners: WorkerListeners
    ready_file: Path
    is_ready: bool = False

    def check_ready(self) -> bool:
        self.is_ready = self.is_ready or self.ready_file.exists()
        return self.is_ready


def listen(host: str, port: int, count: int, option: str = "--port") -> list[socket.socket]:
    """Sockets on one port, among which the kernel divides the connections.

    Args:
        host: The address.
        port: The port; 0 for any that is free.
        count: How many sockets.
        option: The option that gives the port, for the error's hint.

    Raises:
        ConflictError: With the code ``PortInUse``.
    """
    opened: list[socket.socket] = []
    try:
        # Sockets with SO_REUSEPORT would join those of another server.
        with _socket(host) as probe:
            probe.bind((host, port))
            port = probe.getsockname()[1]
        for _ in range(count):
            opened.append(_socket(host))
            if count > 1:
                opened[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            opened[-1].bind((host, port))
            opened[-1].listen(_BACKLOG)
    except OSError as error:
        for one in opened:
            one.close()
        raise ConflictError(
            f"Port {port} of {host} cannot be used: {error.strerror or error}.",
            f"Give another with {option}, or end what listens there.",
            code="PortInUse",
        ) from error
    return opened


def _socket(host: str) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made


class WorkerPool:
    """Keeps one worker on each socket until it is stopped."""

    def __init__(
        self,
        spec: WorkerSpec,
        listeners: Sequence[WorkerListeners],
        folder: Path,
        report: Callable[[str], object],
        on_ready: Callable[[], object] = lambda: None,
        watch: SourceWatch | None = None,
    ) -> None:
        """Prepare the workers.

        Args:
            spec: How each is started.
            listeners: Those of each.
            folder: For files of its own.
            report: Called with sentences for people.
            on_ready: Called once, when all workers are ready.
            watch: Files on whose change the workers are replaced; None for none.
        """
        self._spec = spec
        self._listeners = listeners
        self._folder = folder
        self._report = report
        self._on_ready = on_ready
        self._watch = watch
        self._numbers = itertools.count()
        self._current: list[_Worker] = []
        self._next: list[_Worker] = []
        self._ending: list[_Worker] = []
        self._was_ready = False
        self._restarts: deque[float] = deque(maxlen=_MOST_RESTARTS)

    def run(self, stop: threading.Event) -> int:
        """Run the workers until ``stop`` is set; then the listeners are closed.

        Returns:
            The exit status: 1 if they could not load what they serve, or end again and again.
        """
        try:
            self._current = self._start(is_first=True)
            while not stop.wait(_TICK_SECONDS):
                if not self._keep_alive():
                    return 1
                self._follow_changes()
            return 0
        finally:
            self._end(self._current + self._next)
            for listeners in self._listeners:
                listeners.close()
            for worker in self._ending:
                worker.leash.wait()

    def _start(self, *, is_first: bool = False) -> list[_Worker]:
        return [self._start_worker(one, is_first=is_first) for one in self._listeners]

    def _start_worker(self, listeners: WorkerListeners, *, is_first: bool = False) -> _Worker:
        ready = self._folder / f"ready-{next(self._numbers)}"
        opened = listeners.descriptors
        options = [word for option, one in opened.items() for word in (option, str(one))]
        options += ["--ready-file", str(ready)] + ([] if is_first else ["--accept-when-ready"])
        with _standard_error() as output:
            leash = SpawnedLeash(
                [*self._spec.command, *options],
                env=self._spec.environment, cwd=self._spec.cwd, grace=DRAIN_SECONDS + 5,
                keep=(*opened.values(), output, *self._spec.keep), output=output,
            )  # fmt: skip
        return _Worker(leash, listeners, ready)

    def _end(self, workers: Sequence[_Worker]) -> None:
        for worker in workers:
            worker.leash.stop()
        self._ending += workers

    def _keep_alive(self) -> bool:
        """Replace workers that have ended; whether that is worth while."""
        for index, worker in enumerate(self._current):
            worker.check_ready()
            if worker.leash.runs():
                continue
            status = worker.leash.wait()
            if not self._was_ready and not worker.is_ready:
                return False  # which the worker has explained
            self._report(f"A worker ended with {exit_status.describe(status)}.")
            if not self._may_restart():
                self._report(
                    f"Workers ended {_MOST_RESTARTS} times within {_RESTART_SECONDS:g} s: the "
                    "server ends."
                )
                return False
            self._current[index] = self._start_worker(worker.listeners)
        if not self._was_ready and all(one.is_ready for one in self._current):
            self._was_ready = True
            self._on_ready()
        return True

    def _may_restart(self) -> bool:
        now = time.monotonic()
        if len(self._restarts) == _MOST_RESTARTS and now - self._restarts[0] < _RESTART_SECONDS:
            return False
        self._restarts.append(now)
        return True

    def _follow_changes(self) -> None:
        """Replace the workers after a change, once their successors are ready."""
        self._ending = [one for one in self._ending if one.leash.runs()]
        if self._next and not all(one.leash.runs() for one in self._next):
            self._report("The changed files do not load; the server goes on with the old ones.")
            self._discard_next()
        elif self._next and all(one.check_ready() for one in self._next):
            self._end(self._current)
            self._current, self._next = self._next, []
            self._report("The server has the changed files.")
        if self._watch is None or not self._was_ready or not self._watch.has_changed():
            return
        self._discard_next()
        if error := self._watch.syntax_error():
            self._report(f"{error}; the server goes on with the old files.")
        else:
            self._report("Files have changed: loading them.")
            self._next = self._start()

    def _discard_next(self) -> None:
        self._end(self._next)
        self._next = []


@contextlib.contextmanager
def _standard_error() -> Iterator[int]:
    """A copy of standard error, for a process to inherit."""
    copied = os.dup(sys.__stderr__.fileno() if sys.__stderr__ else 2)
    try:
        yield copied
    finally:
        os.close(copied)
