"""An S3 server on loopback that can be made to lie, and a TCP proxy that can be made to fail."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import boto3.session
from botocore.config import Config
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server


@dataclass
class Answer:
    """An answer of the server, before it is sent; a lie changes it."""

    method: str
    path: str
    query: str
    status: str
    headers: dict[str, str]
    body: bytes

    def fail(self, status: int, code: str, message: str = "no") -> None:
        self.status = f"{status} X"
        self.headers = {"Content-Type": "application/xml"}
        self.body = (
            f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
        ).encode()


Lie = Callable[[Answer], None]


class Server:
    """Every answer goes through ``lie``, where a test sets one, and every request's headers."""

    def __init__(self) -> None:
        self.lie: Lie | None = None
        self.deaf_to: set[str] = set()  # headers that are not understood, as in HTTP_IF_MATCH
        self.requests: list[tuple[str, str, str]] = []
        self._app = DomainDispatcherApplication(create_backend_app)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = make_server(
            "127.0.0.1", 0, self._answer, threaded=True, request_handler=MotoRequestHandler
        )
        self.host = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @contextlib.contextmanager
    def running(self) -> Iterator[Server]:
        self._thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._thread.join()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        asked = (environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"])
        self.requests.append(asked)
        for name in self.deaf_to:
            environ.pop(name, None)
        begun: list[Any] = []
        body = b"".join(self._app(environ, lambda *given: begun.append(given)))
        status, headers = begun[0][:2]
        answer = Answer(*asked, status, dict(headers), body)
        if self.lie is not None:
            self.lie(answer)
            if asked[0] != "HEAD":
                answer.headers["Content-Length"] = str(len(answer.body))
        start_response(answer.status, list(answer.headers.items()))
        return [answer.body]


@dataclass
class _Rule:
    way: str
    after: int
    do: Callable[[socket.socket, socket.socket], None]


@dataclass
class Proxy:
    """Passes bytes on, counts them, and does something once so many have passed.

    ``passed`` has the bytes of requests under ``up`` and those of answers under ``down``.
    """

    upstream: str
    passed: dict[str, int] = field(default_factory=lambda: {"up": 0, "down": 0})
    _rules: list[_Rule] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def running(self) -> Iterator[Proxy]:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        thread = threading.Thread(target=self._accept, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            thread.join()

    def at(self, way: str, after: int, do: Callable[[], object]) -> None:
        """Call ``do`` once ``after`` more bytes have gone that way."""
        self._add(way, after, lambda *_: (do(), None)[1])

    def reset(self, way: str, after: int) -> None:
        """Break the connection then, as a router does that has forgotten it."""
        self._add(way, after, lambda one, other: (_reset(one), _reset(other), None)[2])

    def cut(self, way: str, after: int) -> None:
        """End the connection then, as a server does that believes it has sent everything."""
        self._add(way, after, lambda one, other: (_end(one), _end(other), None)[2])

    def forgive(self) -> None:
        """Break nothing any more."""
        with self._lock:
            self._rules.clear()

    def _add(self, way: str, after: int, do: Callable[..., None]) -> None:
        with self._lock:
            self._rules.append(_Rule(way, self.passed[way] + after, do))

    def _accept(self) -> None:
        host, _, port = self.upstream.rpartition(":")
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection((host, int(port)))
                for way, one, other in (("up", client, server), ("down", server, client)):
                    threading.Thread(
                        target=self._pass, args=(way, one, other), daemon=True
                    ).start()

    def _pass(self, way: str, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while block := one.recv(1 << 16):
                with self._lock:
                    self.passed[way] += len(block)
                    due = [
                        rule for rule in self._rules
                        if rule.way == way and rule.after <= self.passed[way]
                    ]  # fmt: skip
                    self._rules = [rule for rule in self._rules if rule not in due]
                for rule in due:
                    rule.do(one, other)
                other.sendall(block)
        _end(one)
        _end(other)


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RD)  # wakes the thread that reads from it
    connection.close()


def client_of(server: Server) -> Any:
    """A plain client of the server, which takes any key."""
    return boto3.session.Session().client(
        "s3", endpoint_url=f"http://{server.host}", region_name="us-east-1",
        aws_access_key_id="key", aws_secret_access_key="secret",
        config=Config(s3={"addressing_style": "path"}),
    )  # fmt: skip
