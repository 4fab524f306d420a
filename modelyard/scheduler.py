"""The scheduler's process: ``python -m modelyard.scheduler``."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import prefect.context
import psycopg
from psycopg import sql
from sqlalchemy.exc import OperationalError

from flows.scheduling import FlowRuns
from infra import home as homes
from registry import catalogue, schedules
from schedules.scheduler import Scheduler

_RETRY_SECONDS = 1.0
# A Prefect that hangs must not keep slots from being decided, nor the lease from being renewed;
# the scheduler asks again by itself.
_PATIENCE = {"PREFECT_API_REQUEST_TIMEOUT": "5", "PREFECT_CLIENT_MAX_RETRIES": "0"}
_logger = logging.getLogger("modelyard.scheduler")


class Bell:
    """Rings when somebody writes a schedule."""

    def __init__(self) -> None:
        self._connection: psycopg.Connection[object] | None = None

    def wait(self, seconds: float) -> None:
        """Wait so many seconds, or until it rings.

        Raises:
            psycopg.OperationalError: If the database is gone.
        """
        if self._connection is None or self._connection.closed:
            self._connection = _listening()
        for _ in self._connection.notifies(timeout=seconds, stop_after=1):
            pass


def _listening() -> psycopg.Connection[object]:
    url = catalogue.engine().url.set(drivername="postgresql")
    connection = psycopg.connect(url.render_as_string(hide_password=False), autocommit=True)
    connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(schedules.CHANNEL)))
    return connection


def work(scheduler: Scheduler, stopped: threading.Event) -> None:
    """Schedule until ``stopped`` is set; whoever does not answer is asked again."""
    bell = Bell()
    while not stopped.is_set():
        try:
            seconds = scheduler.step()
            if seconds > 0:
                bell.wait(seconds)
        except (OperationalError, psycopg.OperationalError) as error:
            _logger.warning("The database does not answer: %s", error)
            stopped.wait(_RETRY_SECONDS)
        except Exception:
            _logger.exception("The scheduler goes on after an error.")
            stopped.wait(_RETRY_SECONDS)


@contextmanager
def _announced() -> Iterator[None]:
    """A socket that accepts while this process lives: what the supervisor asks for its health."""
    home = homes.current()
    home.make()  # in a pod nobody else has
    path = home.sockets / "scheduler.sock"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        threading.Thread(target=_answer, args=(listener,), daemon=True, name="health").start()
        yield


def _answer(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it was closed
        while True:
            listener.accept()[0].close()


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    stopped = threading.Event()

    def stop(*_: object) -> None:
        stopped.set()
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    yield stopped


def main() -> None:
    """Schedule until a signal ends it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    os.environ.update(_PATIENCE)
    prefect.context.refresh_global_settings_context()
    scheduler = Scheduler(FlowRuns(), f"{socket.gethostname()}:{os.getpid()}:{time.time():.0f}")
    with _announced(), _stopped_by_signals() as stopped:
        try:
            work(scheduler, stopped)
        finally:
            scheduler.close()


if __name__ == "__main__":
    main()
