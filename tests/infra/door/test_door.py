from __future__ import annotations

import base64
import json

import pytest
from starlette.types import Receive, Scope

from infra.door import refusals
from infra.door.credential import Credential
from infra.door.door import ACCESS, AccessMethod, AccessPolicy, Door, RefusedError
from infra.door.peer import PeerUsers
from infra.door.sessions import SERVERS, TOKEN_PARAMETER, Sessions
from tests.infra.door.conftest import SECRET, Server, cookie
from tests.infra.door.requests import ask, call, connect, scope_of


class Peers(PeerUsers):
    """Every connection is of one user."""

    def __init__(self, user: str = "1000") -> None:
        super().__init__()
        self.found = user

    def user(self, *_: object) -> str:
        return self.found


@pytest.fixture
def peers() -> Peers:
    return Peers()


@pytest.fixture
def door(server: Server, credential: Credential, sessions: Sessions, peers: Peers) -> Door:
    return Door(server, credential, sessions, AccessPolicy("mlflow"), peers)


@pytest.fixture
def held(sessions: Sessions) -> str:
    """The cookie of a browser that is logged in."""
    return cookie(sessions.cookies("1000"), "mlflow")


def basic(user: str = "modelyard", password: str = SECRET) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    "authorization", [basic(), basic().replace("Basic", "basic"), f"Bearer {SECRET}"]
)
def test_the_credential_opens_it_and_is_not_passed_on(
    door: Door, server: Server, authorization: str
) -> None:
    answer = ask(door, "/api", "POST", authorization=authorization)

    assert (answer.status, answer.body) == (200, b"let in")
    (scope,) = server.scopes
    assert scope[ACCESS] is AccessMethod.OWNER
    assert SECRET not in repr(scope)
    assert b"authorization" not in dict(scope["headers"])


@pytest.mark.parametrize(
    "authorization",
    [
        "", "Basic", "Basic !", basic(password="wrong"), basic(user="root"),
        f"Bearer {SECRET}x", "Bearer", f"Token {SECRET}", SECRET, "Basic \xff",
    ],
)  # fmt: skip
def test_nothing_else_does(door: Door, server: Server, authorization: str) -> None:
    answer = ask(door, "/api", authorization=authorization)

    assert answer.status == 401
    assert server.scopes == []


def test_the_refusal_is_in_the_words_of_both_servers(door: Door) -> None:
    answer = ask(door)

    told = json.loads(answer.body)
    assert told["error_code"] == "UNAUTHENTICATED"
    assert told["message"] == told["exception_message"] == told["detail"]
    assert "modelyard env" in told["message"]
    assert answer.headers["www-authenticate"].startswith("Bearer")  # no browser asks a person
    assert answer.headers["cache-control"] == "no-store"


def test_a_person_is_told_how_to_log_in(door: Door) -> None:
    answer = ask(door, accept="text/html,*/*")

    assert answer.status == 401
    assert answer.headers["content-type"].startswith("text/html")
    assert b"modelyard open" in answer.body


def test_what_the_server_allows_other_origins_is_dropped(door: Door) -> None:
    assert ask(door, authorization=basic()).headers == {"x-own": "1"}


_FOREIGN = [
    {"host": "evil.example:4200"},
    {"origin": "http://localhost:9999"},
    {"origin": "http://127.0.0.1:9999"},
    {"origin": "null"},
    {"sec_fetch_site": "same-site", "sec_fetch_mode": "no-cors", "sec_fetch_dest": "image"},
    {"sec_fetch_site": "cross-site", "sec_fetch_mode": "cors", "sec_fetch_dest": "empty"},
]


@pytest.mark.parametrize("headers", _FOREIGN)
def test_foreign_places_are_refused_whoever_asks(
    door: Door, server: Server, held: str, headers: dict[str, str]
) -> None:
    assert ask(door, cookie=held, **headers).status == 403
    assert ask(door, method="POST", cookie=held, **headers).status == 403
    assert ask(door, method="OPTIONS", **headers).status == 403
    assert ask(door, authorization=basic(), **headers).status == 403
    assert server.scopes == []


def test_a_link_from_elsewhere_opens_a_page_of_a_browser_that_is_logged_in(
    door: Door, held: str
) -> None:
    opened = {
        "sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate",
        "sec_fetch_dest": "document",
    }  # fmt: skip

    assert ask(door, cookie=held, **opened).status == 200
    assert ask(door, method="POST", cookie=held, **opened).status == 403
    assert ask(door, **opened).status == 401


def test_a_second_host_header_is_refused(door: Door, server: Server) -> None:
    scope = scope_of("http", "/", "GET", {"authorization": basic()})
    scope["headers"].append((b"host", b"evil.example"))

    assert call(door, scope).status == 400
    assert server.scopes == []


def test_a_cookie_opens_it_and_is_not_passed_on(door: Door, server: Server, held: str) -> None:
    answer = ask(door, cookie=f"theme=dark; {held}")

    assert answer.status == 200
    (scope,) = server.scopes
    assert scope[ACCESS] is AccessMethod.SESSION
    assert dict(scope["headers"])[b"cookie"] == b"theme=dark"


def test_a_cookie_opens_it_beside_another_servers_password(door: Door, held: str) -> None:
    """Prefect's pages send what an earlier server at this address has had them keep."""
    assert ask(door, cookie=held, authorization=basic(password="of-long-ago")).status == 200


def test_another_servers_cookie_does_not(door: Door, sessions: Sessions) -> None:
    for other in set(SERVERS) - {"mlflow"}:
        assert ask(door, cookie=cookie(sessions.cookies("1000"), other)).status == 401


def test_a_cookie_that_another_user_has_got_does_not(door: Door, peers: Peers, held: str) -> None:
    peers.found = "1001"

    assert ask(door, cookie=held).status == 401


def test_a_link_logs_in_once_and_leads_to_its_page(
    door: Door, server: Server, sessions: Sessions
) -> None:
    token = sessions.issue_token()
    target = f"/runs/1?a=%2F&{TOKEN_PARAMETER}={token}&b="

    answer = ask(door, target, accept="text/html")

    assert answer.status == 303
    assert answer.headers["location"] == "/runs/1?a=%2F&b="
    assert server.scopes == []
    held = cookie(answer.cookies, "mlflow")
    assert ask(door, cookie=held).status == 200

    again = ask(door, target, accept="text/html", cookie=held)
    assert (again.status, again.headers["location"]) == (303, "/runs/1?a=%2F&b=")
    assert again.cookies == []
    stolen = ask(door, target, accept="text/html")
    assert stolen.status == 401
    assert b"was used" in stolen.body


@pytest.mark.parametrize("path", ["//evil.example/", "/\\evil.example", "///evil.example"])
def test_a_link_leads_nowhere_else(door: Door, held: str, path: str) -> None:
    answer = ask(door, f"{path}?{TOKEN_PARAMETER}=x", cookie=held)

    assert answer.status == 303
    assert answer.headers["location"].startswith("/evil.example")


def test_no_server_sees_a_token(door: Door, server: Server, sessions: Sessions) -> None:
    token = sessions.issue_token()

    ask(door, f"/?a=1&{TOKEN_PARAMETER}={token}", "POST", authorization=basic())

    assert server.scopes[0]["query_string"] == b"a=1"


def test_a_websocket_wants_the_credential(door: Door, server: Server, held: str) -> None:
    assert connect(door, authorization=basic()).messages == []  # the server's to answer
    assert len(server.scopes) == 1
    for headers in (
        {},
        {"cookie": held},
        {"cookie": held, "origin": "http://127.0.0.1:4200"},
        {"authorization": basic(), "origin": "http://127.0.0.1:9999"},
        {"authorization": basic(), "host": "evil.example"},
    ):
        refused = connect(door, "/", "prefect", **headers)
        assert [message["type"] for message in refused.messages] == ["websocket.close"]
    assert len(server.scopes) == 1


def test_a_lifespan_is_the_servers(door: Door, server: Server) -> None:

    call(door, {"type": "lifespan"})

    assert server.scopes == [{"type": "lifespan"}]


def test_a_health_check_needs_nothing_and_is_exact(
    server: Server, credential: Credential, sessions: Sessions
) -> None:
    door = Door(
        server, credential, sessions, AccessPolicy("mlflow", probes=frozenset({"/health"}))
    )

    assert ask(door, "/health", host="10.1.2.3:5000").status == 200
    assert server.scopes[0][ACCESS] is AccessMethod.PROBE
    assert ask(door, "/health", "POST").status == 401
    assert ask(door, "/health/x").status == 401


class RunCredentials:
    """Opens paths below /runs to the user `run`."""

    async def admit(
        self, user: str, password: str, scope: Scope, receive: Receive
    ) -> Receive | None:
        if (user, password) != ("run", "of-run"):
            return None
        if not scope["path"].startswith("/runs/"):
            raise RefusedError(refusals.Refusal(403, "PERMISSION_DENIED", "not yours"))
        return receive


def test_a_credential_of_less_scope_opens_what_it_may(
    server: Server, credential: Credential, sessions: Sessions
) -> None:
    door = Door(server, credential, sessions, AccessPolicy("mlflow", scoped=RunCredentials()))

    assert ask(door, "/runs/1", authorization=basic("run", "of-run")).status == 200
    assert server.scopes[0][ACCESS] is AccessMethod.SCOPED
    assert ask(door, "/models", authorization=basic("run", "of-run")).status == 403
    assert ask(door, "/runs/1", authorization=basic("run", "wrong")).status == 401
    assert ask(door, "/runs/1").status == 401
    assert ask(door, "/models", authorization=basic()).status == 200
