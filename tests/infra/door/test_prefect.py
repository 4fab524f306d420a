from __future__ import annotations

import asyncio
import json

import pytest
from starlette.types import Message, Receive, Scope, Send

from infra.door import prefect
from infra.door.credential import Credential
from infra.door.door import ACCESS, AccessMethod, AccessPolicy, Door
from infra.door.prefect import PrefectSessions
from infra.door.sessions import Sessions
from tests.infra.door.conftest import Server
from tests.infra.door.requests import call, connect, scope_of


@pytest.mark.parametrize("access", [AccessMethod.OWNER, AccessMethod.SESSION])
def test_prefect_is_given_the_credential_of_those_who_are_let_in(
    server: Server, credential: Credential, access: AccessMethod
) -> None:
    call(PrefectSessions(server, credential), scope_of("http", "/", "GET", {}, **{ACCESS: access}))

    assert dict(server.scopes[0]["headers"])[b"authorization"] == credential.basic.encode()


@pytest.mark.parametrize(
    "access", [AccessMethod.HANDSHAKE, AccessMethod.PROBE, AccessMethod.SCOPED, None]
)
def test_nobody_else_is_taken_for_the_owner(
    server: Server, credential: Credential, access: AccessMethod | None
) -> None:
    scope = scope_of("websocket", "/", "GET", {}, **{ACCESS: access})

    call(PrefectSessions(server, credential), scope)

    assert b"authorization" not in dict(server.scopes[0]["headers"])


def test_prefects_clients_may_authenticate_by_a_message(
    server: Server, credential: Credential, sessions: Sessions
) -> None:
    policy = AccessPolicy("prefect", is_handshake=prefect.is_handshake)
    door = Door(server, credential, sessions, policy)

    assert connect(door, "/api/events/out", "prefect").messages == []
    assert server.scopes[0][ACCESS] is AccessMethod.HANDSHAKE
    for refused in (
        connect(door, "/api/events/out"),
        connect(door, "/api/events/out", "other"),
        connect(door, "/api/events/out", "prefect", origin="http://127.0.0.1:4200"),
        connect(door, "/api/events/out", "prefect", host="evil.example"),
    ):
        assert refused.messages[0]["type"] == "websocket.close"
    assert len(server.scopes) == 1


def test_one_that_never_authenticates_is_ended(
    credential: Credential, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefect, "_HANDSHAKE_SECONDS", 0.01)
    received: list[str] = []

    async def server(_scope: Scope, receive: Receive, _send: Send) -> None:
        received.append((await receive())["type"])
        received.append((await receive())["type"])

    silent = [{"type": "websocket.connect"}]

    async def receive() -> Message:
        return silent.pop() if silent else await asyncio.Event().wait()  # type: ignore[return-value]

    async def run() -> None:
        scope = scope_of("websocket", "/", "GET", {}, **{ACCESS: AccessMethod.HANDSHAKE})
        await PrefectSessions(server, credential)(scope, receive, lambda _: None)  # type: ignore[arg-type,return-value]

    asyncio.run(run())

    assert received == ["websocket.connect", "websocket.disconnect"]


class Settings:
    """Answers as Prefect's server does when its pages ask for their settings."""

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        assert b"accept-encoding" not in dict(scope["headers"])
        body = json.dumps({"api_url": "http://127.0.0.1:4200/api", "auth": "BASIC", "flags": []})
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body[:9].encode(), "more_body": True})
        await send({"type": "http.response.body", "body": body[9:].encode()})


@pytest.mark.parametrize(
    ("host", "api"),
    [
        ("localhost:14200", "http://localhost:14200/api"),  # of its own origin, however forwarded
        ("ml.example", "http://127.0.0.1:4200/api"),  # as it was configured
    ],
)
def test_prefects_pages_ask_for_no_password(credential: Credential, host: str, api: str) -> None:
    scope = scope_of("http", "/ui-settings", "GET", {"host": host, "accept-encoding": "gzip"})

    answer = call(PrefectSessions(Settings(), credential), scope)

    assert json.loads(answer.body) == {"api_url": api, "auth": None, "flags": []}
    assert answer.headers["content-length"] == str(len(answer.body))


@pytest.mark.parametrize(
    ("path", "levels", "status"),
    [
        ("/api/deployments/x/create_flow_run", 300, 422),
        ("/api/deployments/x/create_flow_run", 20_000, 422),
        ("/api/flow_runs/", 300, 422),
        ("/api/deployments/x/create_flow_run", 32, 200),
        ("/api/logs/", 300, 200),
    ],
)
def test_parameters_that_prefect_could_not_list_are_refused(
    server: Server, credential: Credential, path: str, levels: int, status: int
) -> None:
    body = b'{"parameters": {"a": ' + b"[" * levels + b"]" * levels + b"}}"
    halves = [
        {"type": "http.request", "body": half, "more_body": more}
        for half, more in ((body[:50], True), (body[50:], False))
    ]

    answer = call(PrefectSessions(server, credential), scope_of("http", path, "POST", {}), *halves)

    assert answer.status == status
    assert (b"at most 32 levels" in answer.body) is (status == 422)
    assert len(server.scopes) == (status == 200)
