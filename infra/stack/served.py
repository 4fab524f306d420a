"""Server process of an ASGI application, on a socket opened by the supervisor.

``python -m infra.stack.served SERVER FD MODULE:NAME [--factory]``. It is behind the door of the
home's stack (``infra/door``) as ``SERVER``. On a cluster it opens a socket of its own, and
``HOST:PORT`` replaces ``FD``. Because the supervisor holds the listening socket, a restarted
server keeps its port, and a request during the restart waits in the backlog instead of being
refused.
"""

from __future__ import annotations

import gc
import socket
import sys

import uvicorn
from starlette.types import ASGIApp
from uvicorn.importer import import_from_string

from infra import home as homes
from infra import settings
from infra.door import guard

_BACKLOG = 2048
_GRACE_SECONDS, _PODS_GRACE_SECONDS = 2, 10


def serve(app: ASGIApp, server: str, listener: socket.socket, *, in_pod: bool = False) -> None:
    """Serve an application behind its door until SIGTERM or SIGINT.

    Args:
        app: The application.
        server: What the door knows it as.
        listener: Its listening socket.
        in_pod: Whether a cluster asks for its health, and ends it in its own time.
    """
    config = uvicorn.Config(
        guard.guarded(app, server, homes.current(), settings.load(), probed=in_pod),
        log_level="warning",
        proxy_headers=False,  # else a client could name any address as its own
        timeout_keep_alive=60,
        timeout_graceful_shutdown=_PODS_GRACE_SECONDS if in_pod else _GRACE_SECONDS,
    )
    config.load()
    uvicorn.Server(config).run(sockets=[listener])


def main(arguments: list[str]) -> None:
    """Import the application and serve it."""
    server, where, application, *options = arguments
    gc.disable()  # looks through all that is imported again and again, and finds nothing
    imported = import_from_string(application)
    app = imported() if "--factory" in options else imported
    gc.enable()
    gc.freeze()
    host, in_pod, port = where.rpartition(":")
    if in_pod:
        listener = socket.create_server((host, int(port)), backlog=_BACKLOG)
    else:
        listener = socket.socket(fileno=int(where))
    serve(app, server, listener, in_pod=bool(in_pod))


if __name__ == "__main__":
    main(sys.argv[1:])
