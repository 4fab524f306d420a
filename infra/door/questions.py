"""Questions that the door itself asks the server behind it."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Answer:
    """What an ASGI application has answered."""

    def __init__(self) -> None:
        self.status = 0
        self.body = b""

    async def __call__(self, message: Message) -> None:
        """Take a part of it."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")


async def ask(app: ASGIApp, path: str, query: Mapping[str, str], scope: Scope) -> Answer:
    """Answer of ``app`` to a GET, asked on the connection of another request.

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
    answer = Answer()
    await app(asked, replay(b"", _nothing), answer)
    return answer


def replay(body: bytes, receive: Receive) -> Receive:
    """What gives a body that was read, and then whatever comes after it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def received() -> Message:
        return messages.pop() if messages else await receive()

    return received


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


class Readiness:
    """Answers ``/ready`` by the status of a question to the server, and passes on all else."""

    PATH = "/ready"

    def __init__(self, app: ASGIApp, path: str, query: Mapping[str, str]) -> None:
        """Ask ``app`` for ``path``: what only succeeds where the server can do its work."""
        self._app = app
        self._path = path
        self._query = query

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        if scope["type"] != "http" or scope["path"] != self.PATH:
            await self._app(scope, receive, send)
            return
        answer = await ask(self._app, self._path, self._query, scope)
        status = 200 if answer.status == 200 else 503
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})
