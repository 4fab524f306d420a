"""Construction of a server's door from the home and the settings."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp

from infra.door import credential, prefect, sessions
from infra.door.credential import Credential
from infra.door.door import AccessPolicy, Door, ScopedCredentials
from infra.door.internal_requests import ReadinessProbe
from infra.door.run_scope_guard import RunScopes
from infra.home import Home
from infra.settings import Settings

_BEHIND: dict[str, Callable[[ASGIApp, Credential], ASGIApp]] = {"prefect": prefect.PrefectSessions}
_HANDSHAKES = {"prefect": prefect.is_handshake}
_SCOPED: dict[str, Callable[[ASGIApp, Credential], ScopedCredentials]] = {"mlflow": RunScopes}


# Paths of a cluster's probes, which have no credential; they reveal nothing but a status.
_PROBES = {
    "prefect": frozenset({"/api/health", "/api/ready"}),
    "mlflow": frozenset({"/health", ReadinessProbe.PATH}),
    "web": frozenset({ReadinessProbe.PATH}),
}


def guarded(
    app: ASGIApp, server: str, home: Home, settings: Settings, *, probed: bool = False
) -> ASGIApp:
    """Wrap a server in its door; return the bare server where the settings disable doors.

    Args:
        app: The server.
        server: Its name, one of ``sessions.SERVERS``.
        home: Whose credential opens it.
        settings: The stack's.
        probed: Whether a cluster asks for its health.
    """
    if probed and server == "mlflow":
        question = ("/api/2.0/mlflow/experiments/search", {"max_results": "1"})
        app = ReadinessProbe(app, *question)
    if not settings.door:
        return app
    held = credential.ensure(home)
    behind, scoped = _BEHIND.get(server), _SCOPED.get(server)
    policy = AccessPolicy(
        server,
        hosts=settings.web_hosts.split(","),
        probes=_PROBES.get(server, frozenset()) if probed else frozenset(),
        scoped=scoped(app, held) if scoped else None,
        is_handshake=_HANDSHAKES.get(server, lambda _: False),
    )
    return Door(behind(app, held) if behind else app, held, sessions.of(home, held), policy)
