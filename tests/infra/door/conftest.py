from __future__ import annotations

import pytest
from starlette.types import Receive, Scope, Send

from infra.door import sessions as sessions_module
from infra.door.credential import Credential
from infra.door.sessions import Sessions
from infra.home import Home

SECRET = "s3cret-of-this-home"


class Server:
    """A server that remembers what reached it."""

    def __init__(self, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        self.scopes: list[Scope] = []
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["type"] == "http":
            await send(
                {"type": "http.response.start", "status": 200, "headers": list(self._headers)}
            )
            await send({"type": "http.response.body", "body": b"let in"})


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.seconds = 1_000_000_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def credential() -> Credential:
    return Credential(SECRET)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(home: Home, credential: Credential, clock: Clock) -> Sessions:
    return Sessions(credential, home.logins, clock)


@pytest.fixture
def server() -> Server:
    return Server(((b"Access-Control-Allow-Origin", b"*"), (b"x-own", b"1")))


def cookie(set_cookies: list[str], server: str) -> str:
    """The ``Cookie`` header of a browser that was given ``set_cookies``."""
    found = [one.partition(";")[0] for one in set_cookies]
    assert len(found) == len(sessions_module.SERVERS)
    return next(one for one in found if one.partition("=")[0].endswith(f"-{server}"))
