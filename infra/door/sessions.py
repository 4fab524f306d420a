"""Browser sessions: one-time login tokens that are exchanged for cookies.

All of it is derived from the credential, so no server keeps a list of sessions. What is kept is
which tokens were used: as files in the home, which outlive the servers.

A cookie reaches every port of its host, and so other users' servers that the browser visits:
therefore it holds nothing from which the credential could be computed, and it is bound to the
operating system's user that logged in, where the system reports it. It is SameSite=Lax, so that
links from other sites work; the door refuses all other requests of pages of other sites by their
Sec-Fetch headers, which distinguish ports, too.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from infra.door.credential import Credential
from infra.home import Home

SERVERS = ("prefect", "mlflow", "web", "tensorboard")
TOKEN_PARAMETER = "modelyard_token"  # noqa: S105 (a parameter's name)
COOKIE_PREFIX = "modelyard-"

TOKEN_SECONDS = 24 * 3600
SESSION_SECONDS = 30 * 24 * 3600

_NONCE_BYTES = 12
_NONCE = re.compile(r"[0-9a-f]{24}")
_TOKEN = re.compile(r"([0-9a-f]{24})\.(\d{1,12})\.([A-Za-z0-9_-]{43})")
_VALUE = re.compile(r"(\d{1,12})\.(\d{0,10})\.([A-Za-z0-9_-]{43})")


class Sessions:
    """Issuer and verifier of the tokens and cookies of one stack."""

    def __init__(
        self, credential: Credential, spent: Path, now: Callable[[], float] = time.time
    ) -> None:
        """Derive everything from ``credential``.

        Args:
            credential: The stack's.
            spent: A folder for the tokens that were used; made if missing.
            now: Seconds since 1970.
        """
        self._token_key = credential.key("login token")
        self._session_key = credential.key("session")
        self._stack = credential.key("stack")[:4].hex()
        self._spent = spent
        self._now = now

    def issue_token(self) -> str:
        """Issue a token that logs one browser in, once."""
        signed = f"{secrets.token_hex(_NONCE_BYTES)}.{int(self._now()) + TOKEN_SECONDS}"
        return f"{signed}.{_sign(self._token_key, signed)}"

    def redeem(self, token: str) -> bool:
        """Verify a token and invalidate it."""
        match = _TOKEN.fullmatch(token)
        if match is None:
            return False
        nonce, expires, signature = match.groups()
        good = hmac.compare_digest(signature, _sign(self._token_key, f"{nonce}.{expires}"))
        return good and int(expires) > self._now() and self._spend(nonce)

    def _spend(self, nonce: str) -> bool:
        self._spent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self._spent.iterdir():
            if path.stat().st_mtime < self._now() - 2 * TOKEN_SECONDS:
                path.unlink(missing_ok=True)
        try:
            (self._spent / nonce).open("x").close()
        except FileExistsError:
            return False
        return True

    def cookies(self, user: str) -> list[str]:
        """Build the ``Set-Cookie`` values that log a browser in to every server of the stack.

        Args:
            user: The operating system's user that the browser runs as; "" if unknown.
        """
        expires = int(self._now()) + SESSION_SECONDS
        return [
            f"{self._name(server)}={self._value(server, expires, user)}; Path=/; "
            f"Max-Age={SESSION_SECONDS}; HttpOnly; SameSite=Lax"
            for server in SERVERS
        ]

    def accepts(self, cookies: str, server: str, user: str) -> bool:
        """Whether a ``Cookie`` header logs its browser in to a server.

        Args:
            cookies: The header.
            server: One of ``SERVERS``.
            user: The operating system's user that sends it; "" if unknown.
        """
        match = _VALUE.fullmatch(self._held(cookies, server))
        if match is None:
            return False
        expires, bound, signature = match.groups()
        wanted = _sign(self._session_key, f"{server}.{expires}.{bound}")
        return (
            hmac.compare_digest(signature, wanted)
            and int(expires) > self._now()
            and bound in ("", user)
        )

    def _name(self, server: str) -> str:
        return f"{COOKIE_PREFIX}{self._stack}-{server}"

    def _value(self, server: str, expires: int, user: str) -> str:
        return f"{expires}.{user}." + _sign(self._session_key, f"{server}.{expires}.{user}")

    def _held(self, cookies: str, server: str) -> str:
        wanted = self._name(server)
        for one in cookies.split(";"):
            name, _, value = one.strip().partition("=")
            if name == wanted:
                return value
        return ""


def of(home: Home, held: Credential) -> Sessions:
    """Create the sessions of a home's stack."""
    return Sessions(held, home.logins)


def has_logins(home: Home) -> bool:
    """Whether a browser has logged in to a home's stack."""
    return any(_NONCE.fullmatch(path.name) for path in home.logins.glob("*"))


def without_sessions(cookies: str) -> str:
    """Remove the session cookies of all stacks from a ``Cookie`` header."""
    kept = (one.strip() for one in cookies.split(";"))
    return "; ".join(one for one in kept if one and not one.startswith(COOKIE_PREFIX))


def _sign(key: bytes, signed: str) -> str:
    digest = hmac.digest(key, signed.encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
