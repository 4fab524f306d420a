"""The door: an ASGI application in front of a server that lets in its owner alone.

A request comes in with the credential (``Authorization``: Basic or Bearer), with the cookie of a
browser that logged in, or with a credential of less scope (:class:`ScopedCredentials`). Its Host
and Origin must be the server's own in any case. The server behind sees neither the credential nor
the cookie, and what it says about other origins (CORS) is dropped.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hmac
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlencode

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra.door import origin, refusals
from infra.door.credential import Credential
from infra.door.origin import AllowedHosts
from infra.door.peer import PeerUsers
from infra.door.refusals import Refusal
from infra.door.sessions import TOKEN_PARAMETER, Sessions, without_sessions

ACCESS = "modelyard.access"  # the scope's key for an Access

_SECRET_HEADERS = frozenset({b"authorization", b"cookie"})
_TOKEN = TOKEN_PARAMETER.encode()


class AccessMethod(enum.Enum):
    """How a request was authenticated; the server finds it in the scope as ``ACCESS``."""

    OWNER = "owner"  # the credential
    SESSION = "session"  # a browser's cookie
    SCOPED = "scoped"  # a credential that opens some requests
    HANDSHAKE = "handshake"  # a websocket that the server itself authenticates
    PROBE = "probe"  # a health check, which needs nothing


class RefusedError(Exception):
    """A scoped credential does not allow the request."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class ScopedCredentials(Protocol):
    """Credentials that allow only some requests of a server."""

    async def admit(
        self, user: str, password: str, scope: Scope, receive: Receive
    ) -> Receive | None:
        """Decide about an HTTP request.

        Args:
            user: As the request's Basic credential has it; "" with a Bearer token.
            password: The same.
            scope: The request, without credentials. It may be changed.
            receive: Its body. What is read of it must be given again.

        Returns:
            What the server is to read the body from; None if it is no credential of this kind.

        Raises:
            RefusedError: If the credential is good, but does not open this request.
        """


@dataclass(frozen=True)
class AccessPolicy:
    """Access policy of a server.

    Attributes:
        server: The server's name, one of ``sessions.SERVERS``.
        hosts: Names under which it may be asked for, beside the loopback ones.
        probes: Paths that anybody may GET, under any host name: health checks of a cluster.
        scoped: Credentials of less scope.
        is_handshake: Whether a websocket without credential is one that the server itself
            authenticates before it does anything.
    """

    server: str
    hosts: Iterable[str] = ()
    probes: frozenset[str] = frozenset()
    scoped: ScopedCredentials | None = None
    is_handshake: Callable[[Scope], bool] = lambda _: False


class Door:
    """ASGI middleware that admits requests to a server; see the module."""

    def __init__(
        self,
        app: ASGIApp,
        credential: Credential,
        sessions: Sessions,
        policy: AccessPolicy,
        peers: PeerUsers | None = None,
    ) -> None:
        """Guard ``app``.

        Args:
            app: The server.
            credential: What opens it.
            sessions: The browsers that are logged in.
            policy: What is particular to it.
            peers: Looks up the users of connections.
        """
        self._app = app
        self._basic = credential.basic.encode()
        self._secret = credential.secret.encode()
        self._user_and_secret = credential.auth_string.encode()
        self._sessions = sessions
        self._policy = policy
        self._hosts = AllowedHosts(policy.hosts)
        self.peers = peers or PeerUsers()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a refused request, or pass it on to the server."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in self._policy.probes and scope["method"] == "GET":
            await self._app(_passed(scope, {}, AccessMethod.PROBE), receive, send)
            return
        headers = origin.collect(scope["headers"])
        refusal = self._place_refusal(scope["method"], headers)
        if headers is None or refusal is not None:
            await refusals.refuse(send, refusal or refusals.AMBIGUOUS)
            return
        if _TOKEN in scope["query_string"] and scope["method"] == "GET":
            await self._log_in(scope, headers, send)
            return
        access = self._access(scope, headers)
        passed = _passed(scope, headers, access)
        if access is None and self._policy.scoped and b"authorization" in headers:
            try:
                admitted = await self._admit(self._policy.scoped, headers, passed, receive)
            except RefusedError as error:
                await refusals.refuse(send, error.refusal)
                return
            if admitted is not None:
                receive, access = admitted, AccessMethod.SCOPED
                passed[ACCESS] = access
        if access is None:
            page = _wants_page(scope["method"], headers)
            await refusals.refuse(send, refusals.UNAUTHENTICATED, as_page=page)
            return
        await self._app(passed, receive, _without_cors(send))

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = origin.collect(scope["headers"])
        if headers is None or self._place_refusal("", headers):
            await refusals.reject(send)
            return
        access = None
        if self._is_owner(headers.get(b"authorization", b"")):
            access = AccessMethod.OWNER
        elif b"origin" not in headers and self._policy.is_handshake(scope):
            access = AccessMethod.HANDSHAKE
        if access is None:  # no page of Prefect's, MLflow's or ours opens one
            await refusals.reject(send)
            return
        await self._app(_passed(scope, headers, access), receive, send)

    def _place_refusal(self, method: str, headers: origin.Headers | None) -> Refusal | None:
        """Check a request's headers, regardless of its credential."""
        if headers is None:
            return refusals.AMBIGUOUS
        if not self._hosts.allows(headers.get(b"host", b"")):
            return refusals.FOREIGN_HOST
        if origin.is_foreign(headers) or origin.is_cross_origin(method, headers):
            return refusals.FOREIGN_ORIGIN
        return None

    def _access(self, scope: Scope, headers: origin.Headers) -> AccessMethod | None:
        if self._is_owner(headers.get(b"authorization", b"")):
            return AccessMethod.OWNER
        if b"cookie" in headers and self._is_session(scope, headers):
            return AccessMethod.SESSION
        return None

    def _is_owner(self, authorization: bytes) -> bool:
        if hmac.compare_digest(authorization, self._basic):
            return True
        given = _given(authorization)
        return given is not None and (
            hmac.compare_digest(given, self._user_and_secret)
            or hmac.compare_digest(given, b":" + self._secret)
        )

    def _is_session(self, scope: Scope, headers: origin.Headers) -> bool:
        cookies = headers.get(b"cookie", b"").decode("latin-1")
        return self._sessions.accepts(cookies, self._policy.server, self._user(scope))

    def _user(self, scope: Scope) -> str:
        return self.peers.user(scope.get("client"), scope.get("server"))

    async def _admit(
        self, scoped: ScopedCredentials, headers: origin.Headers, passed: Scope, receive: Receive
    ) -> Receive | None:
        given = _given(headers[b"authorization"])
        if given is None:
            return None
        user, _, password = given.decode("latin-1").partition(":")
        return await scoped.admit(user, password, passed, receive)

    async def _log_in(self, scope: Scope, headers: origin.Headers, send: Send) -> None:
        """Exchange a one-time token for cookies, and redirect to the address without it."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        token = next((value for name, value in query if name == TOKEN_PARAMETER), "")
        cookies: list[str] = []
        if self._sessions.redeem(token):
            cookies = self._sessions.cookies(self._user(scope))
        elif self._access(scope, headers) is None:
            page = _wants_page("GET", headers)
            await refusals.refuse(send, refusals.LINK_USED, as_page=page)
            return
        rest = urlencode([(name, value) for name, value in query if name != TOKEN_PARAMETER])
        await refusals.redirect(send, _path(scope) + (f"?{rest}" if rest else ""), cookies)


def _given(authorization: bytes) -> bytes | None:
    """Parse user and password of an ``Authorization`` header; a Bearer token has no user."""
    scheme, _, rest = authorization.partition(b" ")
    if scheme.lower() == b"bearer":
        return b":" + rest.strip()
    if scheme.lower() != b"basic":
        return None
    try:
        return base64.b64decode(rest.strip(), validate=True)
    except binascii.Error:
        return None


def _passed(scope: Scope, headers: origin.Headers, access: AccessMethod | None) -> Scope:
    """Build the scope for the server: without credentials."""
    kept = [(name, value) for name, value in scope["headers"] if name not in _SECRET_HEADERS]
    if b"cookie" in headers:
        cookies = without_sessions(headers[b"cookie"].decode("latin-1"))
        kept += [(b"cookie", cookies.encode("latin-1"))] if cookies else []
    passed: dict[str, Any] = {**scope, "headers": kept, ACCESS: access}
    if _TOKEN in scope["query_string"]:
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        rest = [(name, value) for name, value in query if name != TOKEN_PARAMETER]
        passed["query_string"] = urlencode(rest).encode()
    return passed


def _path(scope: Scope) -> str:
    """Return the path as it was sent, so that it cannot name another host."""
    raw = scope.get("raw_path") or scope["path"].encode()
    return "/" + str(raw.decode("latin-1")).partition("?")[0].lstrip("/\\")


def _wants_page(method: str, headers: origin.Headers) -> bool:
    return method == "GET" and b"text/html" in headers.get(b"accept", b"")


def _without_cors(send: Send) -> Send:
    """Remove a server's CORS headers."""

    async def filtered(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                (name, value)
                for name, value in message.get("headers", [])
                if not name.lower().startswith(b"access-control-")
            ]
        await send(message)

    return filtered
