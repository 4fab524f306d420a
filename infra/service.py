"""Common parts of service processes: liveness socket, signals, logging."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any, NoReturn

from infra.home import Home


def unique_name() -> str:
    """Build a name that is unique among the processes of all machines."""
    return f"{socket.gethostname()}:{os.getpid()}:{time.time():.0f}"


@contextlib.asynccontextmanager
async def liveness_socket(home: Home, name: str) -> AsyncIterator[None]:
    """Accept connections at a Unix socket, as a liveness check for the supervisor.

    Args:
        home: The home with the folder of sockets; created if missing, as in a pod.
        name: The socket's file name. A killed process's socket is replaced.
    """
    home.make()
    path = home.sockets / name
    path.unlink(missing_ok=True)
    async with await asyncio.start_unix_server(lambda _reader, writer: writer.close(), path):
        yield


async def run_until_stopped(*loops: Coroutine[Any, Any, Any]) -> None:
    """Run loops together until SIGTERM or SIGINT, which cancels them.

    Raises:
        ExceptionGroup: If one of them fails; the others are cancelled.
    """
    stopped = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stopped.set)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(loop) for loop in loops]
        await stopped.wait()
        for task in tasks:
            task.cancel()


def configure_logging() -> None:
    """Log to standard error, without a line per HTTP request."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)


def exit_now(status: int) -> NoReturn:
    """End the process without waiting for its threads.

    A thread may be in a request to a server that does not answer, for minutes.
    """
    logging.shutdown()
    sys.stdout.flush()
    os._exit(status)
