"""A receiver of webhooks on loopback."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class WebhookReceiver:
    """A server that keeps the JSON posted to it.

    Attributes:
        url: Its address.
        status: What it answers.
    """

    url: str = ""
    status: int = 200
    _posted: queue.Queue[tuple[str, Any]] = field(default_factory=queue.Queue)

    def received(self, patience: float = 30) -> tuple[str, Any]:
        """The path and the JSON of the next request."""
        return self._posted.get(timeout=patience)

    def received_of(self, noun: str, patience: float = 30) -> tuple[str, Any]:
        """The next request about such a thing; others are passed over."""
        while (found := self.received(patience))[1]["noun"] != noun:
            pass
        return found

    def left(self) -> list[tuple[str, Any]]:
        """What was received and not asked for."""
        return [self._posted.get_nowait() for _ in range(self._posted.qsize())]

    def post(self, path: str, body: bytes) -> None:
        self._posted.put((path, json.loads(body)))


@contextlib.contextmanager
def receiving() -> Iterator[WebhookReceiver]:
    receiver = WebhookReceiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/json"
            receiver.post(self.path, self.rfile.read(int(self.headers["Content-Length"])))
            answer = f"said {receiver.status} to {self.path}".encode()
            self.send_response(receiver.status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
