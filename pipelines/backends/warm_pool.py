"""Pool of warm interpreters: one per environment, ended when idle."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from infra import main_module
from infra.leash_client import LEASH, LeashServer
from infra.workloads.environments import Environment

IDLE_SECONDS = 60.0
_MOST = 8
_PATIENCE_SECONDS = 60.0
_WARM = Path(__file__).with_name("warm_interpreter.py")
_INHERITED = ("HOME", "LD_LIBRARY_PATH", "TZ")


@dataclass
class _WarmInterpreter:
    """An interpreter that holds its environment.

    Attributes:
        environment: The environment's lock, an open file.
        lock: Held while the interpreter starts.
        server: Its leash server; None until it is ready, and where none can start.
        refused: Whether none can start.
        users: The number of components that use it.
        used: The time of the last use.
    """

    environment: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    server: LeashServer | None = None
    refused: bool = False
    users: int = 0
    used: float = 0.0

    def end(self) -> None:
        """End the interpreter and release the environment."""
        if self.server is not None:
            self.server.close()
        os.close(self.environment)


class WarmPool:
    """Pool that starts interpreters on demand and ends idle ones."""

    def __init__(self, idle_seconds: float = IDLE_SECONDS) -> None:
        """End an interpreter that was unused for ``idle_seconds``."""
        self._idle = idle_seconds
        self._lock = threading.Lock()
        self._servers: dict[Path, _WarmInterpreter] = {}
        self._timer: threading.Timer | None = None

    def take(self, environment: Environment) -> LeashServer | None:
        """Borrow the interpreter of an environment; None if it cannot be kept warm.

        The caller returns it with :meth:`give_back` in either case.
        """
        with self._lock:
            one = self._servers.get(environment.folder)
            if one is None:
                one = _WarmInterpreter(os.dup(environment.lock.fileno()))
                self._servers[environment.folder] = one
            one.users += 1
        with one.lock:
            if one.server is not None and not one.server.runs():
                one.server.close()
                one.server = None
            if one.server is None and not one.refused:
                one.server = _started(environment)
                one.refused = one.server is None
            return one.server

    def give_back(self, environment: Environment) -> None:
        """Return the interpreter of an environment."""
        with self._lock:
            one = self._servers.get(environment.folder)
            if one is None:  # the pool was closed
                return
            one.users -= 1
            one.used = time.monotonic()
            self._look_again()
        self._end_idle()

    def _look_again(self) -> None:
        """Schedule a sweep, unless one is scheduled."""
        if self._timer is None and self._servers:
            self._timer = threading.Timer(self._idle, self._sweep)
            self._timer.daemon = True
            self._timer.start()

    def _sweep(self) -> None:
        self._end_idle()
        with self._lock:
            self._timer = None
            self._look_again()

    def _end_idle(self) -> None:
        """End idle interpreters, and the least recently used of too many."""
        with self._lock:
            free = sorted(
                (one.used, folder) for folder, one in self._servers.items() if one.users == 0
            )
            too_many = max(0, len(self._servers) - _MOST)
            ended = [
                self._servers.pop(folder)
                for number, (used, folder) in enumerate(free)
                if number < too_many or used <= time.monotonic() - self._idle
            ]
        for one in ended:
            one.end()

    def close(self) -> None:
        """End all interpreters; started components continue."""
        with self._lock:
            timer, self._timer = self._timer, None
            ended = list(self._servers.values())
            self._servers.clear()
        if timer is not None:
            timer.cancel()
        for one in ended:
            one.end()


def _started(environment: Environment) -> LeashServer | None:
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    server = LeashServer(
        [str(environment.python), "-P", str(_WARM), str(LEASH), main_module.__file__],
        env={**inherited, "_KFP_RUNTIME": "true"},
    )
    if server.ready(_PATIENCE_SECONDS):
        return server
    server.close()
    return None
