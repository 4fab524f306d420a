"""Requests to an ASGI application, header by header."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message

CLIENT, SERVER = ("127.0.0.1", 50123), ("127.0.0.1", 4200)


@dataclass
class Answer:
    """What came back: of a websocket, the messages alone."""

    messages: list[Message] = field(default_factory=list)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.messages[0]["headers"]}

    @property
    def cookies(self) -> list[str]:
        pairs = self.messages[0]["headers"]
        return [value.decode() for name, value in pairs if name == b"set-cookie"]


def scope_of(
    kind: str, target: str, method: str, headers: dict[str, str], **more: Any
) -> dict[str, Any]:
    path, _, query = target.partition("?")
    given = {"host": "127.0.0.1:4200", **headers}
    return {
        "type": kind,
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in given.items()],
        "client": CLIENT,
        "server": SERVER,
        "subprotocols": [],
        **more,
    }


def call(app: ASGIApp, scope: dict[str, Any], *received: Message) -> Answer:
    answer = Answer()
    waiting = [*received, {"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        return waiting.pop(0)

    async def send(message: Message) -> None:
        answer.messages.append(message)

    asyncio.run(app(scope, receive, send))
    return answer


def ask(app: ASGIApp, target: str = "/", method: str = "GET", **headers: str) -> Answer:
    """An HTTP request; in the names of headers, ``_`` stands for ``-``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return call(app, scope_of("http", target, method, named))


def connect(app: ASGIApp, target: str = "/", *subprotocols: str, **headers: str) -> Answer:
    """A websocket's upgrade."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    scope = scope_of("websocket", target, "GET", named, subprotocols=list(subprotocols))
    return call(app, scope)
