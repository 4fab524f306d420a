"""Requests of the door itself to the server behind it, and bodies that it reads before it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from urllib.parse import urlencode

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class AsgiResponse:
    """Response of an ASGI application."""

    def __init__(self) -> None:
        self.status = 0
        self.body = b""

    async def __call__(self, message: Message) -> None:
        """Receive a message of the response."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")


async def get(app: ASGIApp, path: str, query: Mapping[str, str], scope: Scope) -> AsgiResponse:
    """Send a GET to ``app``, on the connection of another request.

    Args:
        app: The application.
        path: The path.
        query: The query's parameters.
        scope: The other request's; of its headers the host alone is sent.
    """
    asked = {
        **scope,
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": urlencode(query).encode(),
        "headers": [pair for pair in scope["headers"] if pair[0] == b"host"],
    }
    answer = AsgiResponse()
    await app(asked, replay(b"", _nothing), answer)
    return answer


class BodyTooLargeError(Exception):
    """The body of a request is larger than the door reads."""


async def read(receive: Receive, largest: float = math.inf) -> bytes:
    """Read the whole body of a request.

    Args:
        receive: The request's.
        largest: Bytes, at most.

    Raises:
        BodyTooLargeError: If it is larger.
    """
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size > largest:
            raise BodyTooLargeError
        parts.append(part)
        more = message["type"] == "http.request" and message.get("more_body", False)
    return b"".join(parts)


def replay(body: bytes, receive: Receive) -> Receive:
    """Build a ``receive`` that returns a body already read, then what follows it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def received() -> Message:
        return messages.pop() if messages else await receive()

    return received


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


class ReadinessProbe:
    """Middleware that answers ``/ready`` by the status of a request to the server."""

    PATH = "/ready"

    def __init__(self, app: ASGIApp, path: str, query: Mapping[str, str]) -> None:
        """Request ``path`` of ``app``, which must succeed only if the server is ready."""
        self._app = app
        self._path = path
        self._query = query

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a readiness request, or pass the request on."""
        if scope["type"] != "http" or scope["path"] != self.PATH:
            await self._app(scope, receive, send)
            return
        answer = await get(self._app, self._path, self._query, scope)
        status = 200 if answer.status == 200 else 503
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})
