"""Who may ask the server: an ASGI application in front of it.

Without a token, only programs of the machine may, under the machine's own names: a page that a
browser shows could otherwise ask it, by its address or by a name that leads there (DNS
rebinding). With a token, whoever has it.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
from collections.abc import Mapping, Sequence
from typing import Any

from modelyard_runtime.server.refusals import RequestRefused

UNAUTHORIZED = "Send the server's token: Authorization: Bearer TOKEN."
_PROBES = frozenset({"/", "/v2/health/live", "/v2/health/ready"})


class Admission:
    """Refuses requests that may not ask, and hands the others on without their token."""

    def __init__(
        self, application: Any, token: str = "", origins: Sequence[str] = (), key: str = "error",
        prefixes: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Guard ``application``.

        Args:
            application: The server.
            token: What ``Authorization: Bearer`` has to carry; "" lets in programs of the machine.
            origins: Whose pages may ask it, beside its own; ``*`` for all.
            key: Under which a refusal has its message.
            prefixes: Paths below which the application's paths are as well, such as ``/iris``.
        """
        self._application = application
        self._token = token.encode()
        self._origins = frozenset(origins)
        self._key = key
        self._probes = _PROBES | {prefix + one for prefix in prefixes for one in _PROBES}
        self._is_draining = False

    @property
    def is_draining(self) -> bool:
        """Whether the server is ending."""
        return self._is_draining

    @is_draining.setter
    def is_draining(self, value: bool) -> None:
        self._is_draining = self._application.is_draining = value

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            try:
                self._check(scope)
            except RequestRefused as refusal:
                await self._refuse(refusal, send)
                return
            kept = [one for one in scope["headers"] if one[0] != b"authorization"]
            scope = {**scope, "headers": kept} if self._token else scope
        await self._application(scope, receive, send)

    def _check(self, scope: Mapping[str, Any]) -> None:
        """Refuse a request that may not ask.

        Raises:
            RequestRefused: 400, 401 or 403.
        """
        found = {name: [value for one, value in scope["headers"] if one == name]
                 for name in (b"host", b"origin", b"authorization")}  # fmt: skip
        if any(len(values) > 1 for values in found.values()):
            raise RequestRefused(400, "Host, Origin or Authorization occurs twice.")
        host, origin, given = (b"".join(values).decode("latin-1") for values in found.values())
        is_probe = scope["method"] in {"GET", "HEAD"} and scope["path"] in self._probes
        if self._token:
            self._check_token(scope["method"], given, is_probe=is_probe)
        elif not is_loopback(_name(host)):
            raise RequestRefused(403, "Only names of this machine are answered: ask localhost.")
        if origin and not self._allows(origin, host):
            raise RequestRefused(403, "Pages of another origin may not ask this server.")

    def _check_token(self, method: str, given: str, *, is_probe: bool) -> None:
        # Browsers ask with OPTIONS before they send a token.
        if not (
            carries(given, self._token) or is_probe or (method == "OPTIONS" and self._origins)
        ):
            raise RequestRefused(401, UNAUTHORIZED, {"www-authenticate": "Bearer"})

    def _allows(self, origin: str, host: str) -> bool:
        if "*" in self._origins or origin in self._origins:
            return True
        return origin.lower() in {f"http://{host.lower()}", f"https://{host.lower()}"}

    async def _refuse(self, refusal: RequestRefused, send: Any) -> None:
        body = json.dumps({self._key: refusal.message}).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)),
                   "connection": "close", **refusal.headers}  # fmt: skip
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": refusal.status, "headers": raw})
        await send({"type": "http.response.body", "body": body})


def is_loopback(host: str) -> bool:
    """Whether a name or an address, that of IPv6 with or without brackets, is this machine's.

    No page of a foreign origin can have one of them: it would have to come from this machine.
    """
    if host == "localhost":
        return True
    is_bracketed = host.startswith("[") and host.endswith("]")
    try:
        return ipaddress.ip_address(host[1:-1] if is_bracketed else host).is_loopback
    except ValueError:
        return False


def carries(authorization: str, token: bytes) -> bool:
    """Whether the value of an ``Authorization`` has the server's token."""
    scheme, _, given = authorization.partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token)


def _name(host: str) -> str:
    """The name in a ``Host`` header, without its port."""
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdigit() else host.lower()
