"""TensorBoard behind the door: ``python -m modelyard.tensorboard_server FD LOGDIR``.

Its own server lets everybody in, and so does the data server that it starts where it can, which
is why it is told to read the logs itself.
"""

from __future__ import annotations

import socket
import sys
import warnings
from typing import Any

from starlette.exceptions import StarletteDeprecationWarning
from tensorboard import default, program

from infra.stack import served

with warnings.catch_warnings():
    warnings.simplefilter("ignore", StarletteDeprecationWarning)
    from starlette.middleware.wsgi import WSGIMiddleware


class _GuardedServer(program.TensorBoardServer):  # type: ignore[misc]
    """What TensorBoard runs instead of its own server."""

    def __init__(self, wsgi_app: Any, flags: Any) -> None:
        self._app = wsgi_app
        self._listener = socket.socket(fileno=int(flags.port))

    def serve_forever(self) -> None:
        """Serve until the process is stopped."""
        served.serve(WSGIMiddleware(self._app), "tensorboard", self._listener)

    def get_url(self) -> str:
        """Its address, whose port TensorBoard records."""
        host, port = self._listener.getsockname()
        return f"http://{host}:{port}/"

    def print_serving_message(self) -> None:
        """The command that started it tells people."""


def main(arguments: list[str]) -> None:
    """Serve the logs below a folder."""
    descriptor, folder = arguments
    board = program.TensorBoard(plugins=default.get_plugins(), server_class=_GuardedServer)
    options = ["--logdir", folder, "--port", descriptor, "--reload_interval", "5"]
    board.configure(["tensorboard", *options, "--load_fast", "false"])
    sys.exit(board.main())


if __name__ == "__main__":
    main(sys.argv[1:])
