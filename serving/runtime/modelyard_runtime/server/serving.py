"""The server's life: it listens, loads its models, and ends when what it has begun is answered."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import uvicorn

from modelyard_runtime.server.http_connection import HttpConnection

if TYPE_CHECKING:  # its packages are there only where gRPC is asked for
    from modelyard_runtime.server.grpc_server import GrpcServer

_BACKLOG = 2048
_KEEP_ALIVE_SECONDS = 75
_TICK_SECONDS = 0.1
_MEMORY_SECONDS, _MEMORY_PAUSE_SECONDS = 2.0, 60.0
_ENDINGS = (signal.SIGTERM, signal.SIGINT)


class Loadable(Protocol):
    """What a server loads before it can answer: a model, or a scoring script."""

    label: str

    async def load(self) -> None:
        """Load it.

        Raises:
            Exception: If that fails; the message is shown with the label.
        """

    def close(self) -> None:
        """End what it does."""


class Draining(Protocol):
    """An ASGI application that is not ready any more once it drains."""

    is_draining: bool

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""


def listen(host: str, port: int) -> socket.socket:
    """A socket to listen on.

    Raises:
        OSError: If it cannot.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.bind((host, port))
    return opened


async def serve(
    application: Draining,
    models: Iterable[Loadable],
    opened: socket.socket,
    drain: float,
    ready: Path | None = None,
    *,
    accepts_at_once: bool = True,
    grpc_server: GrpcServer | None = None,
    connection: Callable[..., HttpConnection] = HttpConnection,
) -> int:
    """Serve until a signal ends the server.

    It is live at once, and ready when all models are loaded. From the signal on it is not ready,
    and has ``drain`` seconds to answer what it has begun; then it accepts nothing more.

    Args:
        application: What answers.
        models: What is loaded first.
        opened: Where to listen.
        drain: Seconds.
        ready: A file that is made when all is loaded, for who holds the listeners open. With it,
            nothing is accepted any more from the signal on.
        accepts_at_once: Whether connections are accepted before all is loaded: not where another
            process that shares the listener answers meanwhile, or where they can wait.
        grpc_server: What answers over gRPC as well.
        connection: Makes the protocol of a connection.

    Returns:
        The exit status: 1 if a model could not be loaded.
    """
    server = _Server(_config(application, connection, drain), application, grpc_server, drain)
    server.accepts_until_drained = ready is None
    # Connections have it from their listener; asyncio sets it on sockets only that it has made. An
    # answer of two packets would wait 40 ms for the acknowledgement of the first.
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    opened.listen(_BACKLOG)
    asyncio.get_running_loop().set_exception_handler(server.on_loop_error)
    if not accepts_at_once and await _load(models, None):
        return 1
    host, port = opened.getsockname()[:2]
    if grpc_server:
        await grpc_server.start(_BACKLOG)
    serving = asyncio.ensure_future(server.serve(sockets=[opened]))
    if not ready:  # else who holds the listeners says it
        if grpc_server:
            _say(f"Listening for gRPC on port {grpc_server.port}")
        _say(f"Listening on http://{host}:{port}")
    try:
        failed = accepts_at_once and await _load(models, serving)
        if failed:
            server.should_exit = True
        elif ready and not serving.done():
            ready.touch()
        await serving
    finally:
        for model in models:
            model.close()
    return int(failed)


def _config(
    application: Draining, connection: Callable[..., HttpConnection], drain: float
) -> uvicorn.Config:
    protocol: Any = connection
    return uvicorn.Config(
        application, http=protocol, ws="none", lifespan="off", access_log=False,
        log_level="warning", server_header=False, date_header=False, proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(drain)), backlog=_BACKLOG,
    )  # fmt: skip


async def _load(models: Iterable[Loadable], serving: asyncio.Future[None] | None) -> bool:
    """Load the models one after another; whether one could not be."""
    for model in models:
        loading = asyncio.ensure_future(model.load())
        awaited = {loading} if serving is None else {loading, serving}
        await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        if not loading.done():  # the server is to end
            return False
        if error := loading.exception():
            _say(f"{model.label} failed to load: {error}")
            return True
        _say(f"{model.label} is ready.")
    return False


def _say(line: str) -> None:
    """Write a line to standard error, which several processes may share, at once."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


class MemoryWatch:
    """Ends the process once its event loop fails for want of memory again and again.

    A model that leaks up to a limit of the process leaves a server that closes each connection
    and would never end. Whoever runs it starts another one.
    """

    def __init__(
        self, end: Callable[[int], object] = os._exit, now: Callable[[], float] = time.monotonic
    ) -> None:
        """End with ``end``; ``now`` is a clock in seconds."""
        self._end = end
        self._now = now
        self._first = self._last = -math.inf

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Handle an exception that nothing else handles: of a callback, or a connection."""
        if isinstance(context.get("exception"), MemoryError):
            now = self._now()
            if now - self._last > _MEMORY_PAUSE_SECONDS:
                self._first = now
            self._last = now
            if now - self._first >= _MEMORY_SECONDS:
                os.write(sys.stderr.fileno(), b"The server ends: there is no memory left.\n")
                self._end(1)
                return
        loop.default_exception_handler(context)


class _Server(uvicorn.Server):
    """A server that is not ready any more from the signal on.

    Attributes:
        accepts_until_drained: Whether it accepts connections until what it has begun is answered,
            so that probes see that it is not ready.
    """

    accepts_until_drained = True

    def __init__(
        self, config: uvicorn.Config, application: Draining, grpc_server: GrpcServer | None,
        drain: float,
    ) -> None:  # fmt: skip
        super().__init__(config)
        self.servers: list[asyncio.base_events.Server] = []
        self._is_closed = False
        self._application = application
        self._grpc_server = grpc_server
        self._grpc_ending: asyncio.Future[None] | None = None
        self._drain = drain
        self._watch = MemoryWatch()

    def on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Handle an exception that nothing else handles."""
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno == errno.EINVAL and self._is_shut_down():
            self._stop_accepting()  # which failed; the signal follows
        else:
            self._watch(loop, context)

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        """Have the signals end the server, and not the process behind it."""
        loop = asyncio.get_running_loop()
        for one in _ENDINGS:
            loop.add_signal_handler(one, self._end)
        try:
            yield
        finally:
            for one in _ENDINGS:
                loop.remove_signal_handler(one)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what has begun in both protocols; at the second signal, nothing more."""
        self._end_grpc()
        if self.accepts_until_drained:
            await self._answer_begun()
        await super().shutdown(sockets)
        if self._grpc_server and self._grpc_ending:
            if self.force_exit:
                await self._grpc_server.stop(0)
            await self._grpc_ending

    async def _answer_begun(self) -> None:
        """Wait until the requests that have begun are answered, or the time for it is over."""
        begun = set(self.server_state.tasks)
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._drain
        while begun and not self.force_exit and loop.time() < ends:
            _, begun = await asyncio.wait(begun, timeout=_TICK_SECONDS)
        self.config.timeout_graceful_shutdown = max(1, round(ends - loop.time()))

    def _end(self) -> None:
        self.force_exit = self._application.is_draining  # at the second signal
        self._application.is_draining = True
        self.should_exit = True
        if not self.accepts_until_drained:
            self._stop_accepting()

    def _is_shut_down(self) -> bool:
        """Whether listeners are closed, or shut down by another process that has them too."""
        return self._is_closed or any(
            not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            for one in self.servers
            for listener in one.sockets
        )

    def _stop_accepting(self) -> None:
        self._is_closed = True
        for one in self.servers:
            one.close()
        self._end_grpc()

    def _end_grpc(self) -> None:
        """Have the gRPC server answer what has begun, and accept nothing more."""
        if self._grpc_server and self._grpc_ending is None:
            self._grpc_ending = asyncio.ensure_future(self._grpc_server.stop(self._drain))
