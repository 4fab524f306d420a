"""Serve an ASGI application on a socket that was opened by the supervisor.

``python -m infra.stack.served FD MODULE:NAME [--factory]``. Because the supervisor holds the
listening socket, a restarted server goes on with the same port, and a request that comes while
none runs waits in the backlog instead of being refused.
"""

from __future__ import annotations

import gc
import socket
import sys

import uvicorn


def main(arguments: list[str]) -> None:
    """Serve until SIGTERM or SIGINT."""
    config = uvicorn.Config(
        arguments[1],
        factory="--factory" in arguments,
        log_level="warning",
        timeout_keep_alive=60,
        timeout_graceful_shutdown=2,
    )
    gc.disable()  # looks through all that is imported again and again, and finds nothing
    config.load()
    gc.enable()
    gc.freeze()
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(arguments[0]))])


if __name__ == "__main__":
    main(sys.argv[1:])
