"""The door of a part of the local stack, made from its home and settings."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp

from infra.door import credential, prefect, sessions
from infra.door.credential import Credential
from infra.door.door import Door, Policy
from infra.home import Home
from infra.settings import Settings

_BEHIND: dict[str, Callable[[ASGIApp, Credential], ASGIApp]] = {"prefect": prefect.PrefectSessions}
_HANDSHAKES = {"prefect": prefect.is_handshake}


def guarded(app: ASGIApp, server: str, home: Home, settings: Settings) -> ASGIApp:
    """A server behind its door; the bare server where the settings have switched doors off.

    Args:
        app: The server.
        server: Its name, one of ``sessions.SERVERS``.
        home: Whose credential opens it.
        settings: The stack's.
    """
    if not settings.door:
        return app
    held = credential.ensure(home)
    behind = _BEHIND.get(server)
    policy = Policy(
        server,
        hosts=settings.web_hosts.split(","),
        is_handshake=_HANDSHAKES.get(server, lambda _: False),
    )
    return Door(behind(app, held) if behind else app, held, sessions.of(home, held), policy)
