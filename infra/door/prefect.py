"""Middleware of Prefect's server behind the door.

It has authentication of its own (``PREFECT_SERVER_API_AUTH_STRING``), which is on as well: its
clients authenticate websockets by the first message, which only it can read. Its pages would then
ask for a password and store it where every script can read it. So the pages' settings say that
none is needed, and the middleware adds the credential to admitted requests.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra import nesting
from infra.door import refusals
from infra.door.credential import Credential
from infra.door.door import ACCESS, AccessMethod
from infra.door.internal_requests import read, replay
from infra.door.origin import LOOPBACK
from infra.door.refusals import Refusal

_SUBPROTOCOL = "prefect"
_SETTINGS = "/ui-settings"
_HANDSHAKE_SECONDS = 10.0
# What has parameters: a run, and a deployment with its schedules.
_WITH_PARAMETERS = re.compile(r"/api/(flow_runs|deployments)(/|$)")
_TOO_DEEP = Refusal(
    422, "NestedTooDeep",
    f"Parameters have at most {nesting.DEEPEST} levels of lists and mappings.",
    "Give a flatter value, or a file's path.",
)  # fmt: skip


def is_handshake(scope: Scope) -> bool:
    """Whether a websocket is one of Prefect's clients, which authenticates by a message."""
    return _SUBPROTOCOL in scope.get("subprotocols", ())


class PrefectSessions:
    """Middleware that gives admitted requests what Prefect's server and pages need."""

    def __init__(self, app: ASGIApp, credential: Credential) -> None:
        self._app = app
        self._authorization = (b"authorization", credential.basic.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on to Prefect's server."""
        access = scope.get(ACCESS)
        if access is AccessMethod.HANDSHAKE:
            receive = _first_in_time(receive)
        elif access in (AccessMethod.OWNER, AccessMethod.SESSION):
            scope = {**scope, "headers": [*scope["headers"], self._authorization]}
        if scope["type"] == "http" and scope["path"].endswith(_SETTINGS):
            kept = [pair for pair in scope["headers"] if pair[0] != b"accept-encoding"]
            send = _PageSettings(_host(scope), send)
            scope = {**scope, "headers": kept}
        if scope["type"] == "http" and scope["method"] != "GET" and _has_parameters(scope):
            body = await read(receive)
            if nesting.is_body_too_deep(body):
                await refusals.refuse(send, _TOO_DEEP)
                return
            receive = replay(body, receive)
        await self._app(scope, receive, send)


def _has_parameters(scope: Scope) -> bool:
    return _WITH_PARAMETERS.match(scope["path"]) is not None


def _host(scope: Scope) -> str:
    return str(dict(scope["headers"]).get(b"host", b"").decode("latin-1"))


def _first_in_time(receive: Receive) -> Receive:
    """End a websocket that does not authenticate in time."""
    messages = 0

    async def received() -> Message:
        nonlocal messages
        messages += 1
        if messages != 2:  # the first is the connection itself
            return await receive()
        try:
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                return await receive()
        except TimeoutError:
            return {"type": "websocket.disconnect", "code": 1008}

    return received


class _PageSettings:
    """Rewriter of the settings that Prefect's pages load."""

    def __init__(self, host: str, send: Send) -> None:
        self._host = host
        self._send = send
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._body += message.get("body", b"")
        if message.get("more_body", False) or self._start is None:
            return
        body = self._rewritten() if self._start["status"] == 200 else self._body
        kept = [pair for pair in self._start["headers"] if pair[0].lower() != b"content-length"]
        headers = [*kept, (b"content-length", str(len(body)).encode())]
        await self._send({**self._start, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    def _rewritten(self) -> bytes:
        settings: dict[str, Any] = json.loads(self._body)
        settings["auth"] = None
        if self._host.rpartition(":")[0] in LOOPBACK:  # under another of them, or a forwarded port
            settings["api_url"] = f"http://{self._host}/api"
        return json.dumps(settings).encode()
