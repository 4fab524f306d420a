"""Serve an ASGI application on a socket that was opened by the supervisor.

``python -m infra.stack.served SERVER FD MODULE:NAME [--factory]``. It is behind the door of the
home's stack (``infra/door``) as ``SERVER``. Because the supervisor holds the listening socket, a
restarted server goes on with the same port, and a request that comes while none runs waits in the
backlog instead of being refused.
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


def serve(app: ASGIApp, server: str, descriptor: int) -> None:
    """Serve an application behind its door until SIGTERM or SIGINT.

    Args:
        app: The application.
        server: What the door knows it as.
        descriptor: The number of its listening socket.
    """
    config = uvicorn.Config(
        guard.guarded(app, server, homes.current(), settings.load()),
        log_level="warning",
        proxy_headers=False,  # else a client could name any address as its own
        timeout_keep_alive=60,
        timeout_graceful_shutdown=2,
    )
    config.load()
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])


def main(arguments: list[str]) -> None:
    """Import the application and serve it."""
    server, descriptor, application, *options = arguments
    gc.disable()  # looks through all that is imported again and again, and finds nothing
    imported = import_from_string(application)
    app = imported() if "--factory" in options else imported
    gc.enable()
    gc.freeze()
    serve(app, server, int(descriptor))


if __name__ == "__main__":
    main(sys.argv[1:])
