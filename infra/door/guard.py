"""The door of a part of the local stack, made from its home and settings."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp

from infra.door import credential, prefect, sessions
from infra.door.credential import Credential
from infra.door.door import Door, Policy, ScopedCredentials
from infra.door.questions import Readiness
from infra.door.run_scope_guard import RunScopes
from infra.home import Home
from infra.settings import Settings

_BEHIND: dict[str, Callable[[ASGIApp, Credential], ASGIApp]] = {"prefect": prefect.PrefectSessions}
_HANDSHAKES = {"prefect": prefect.is_handshake}
_SCOPED: dict[str, Callable[[ASGIApp, Credential], ScopedCredentials]] = {"mlflow": RunScopes}


# What the probes of a cluster ask, without a credential: paths that tell nothing but a status.
_PROBES = {
    "prefect": frozenset({"/api/health", "/api/ready"}),
    "mlflow": frozenset({"/health", Readiness.PATH}),
    "web": frozenset({Readiness.PATH}),
}


def guarded(
    app: ASGIApp, server: str, home: Home, settings: Settings, *, probed: bool = False
) -> ASGIApp:
    """A server behind its door; the bare server where the settings have switched doors off.

    Args:
        app: The server.
        server: Its name, one of ``sessions.SERVERS``.
        home: Whose credential opens it.
        settings: The stack's.
        probed: Whether a cluster asks for its health.
    """
    if probed and server == "mlflow":
        question = ("/api/2.0/mlflow/experiments/search", {"max_results": "1"})
        app = Readiness(app, *question)
    if not settings.door:
        return app
    held = credential.ensure(home)
    behind, scoped = _BEHIND.get(server), _SCOPED.get(server)
    policy = Policy(
        server,
        hosts=settings.web_hosts.split(","),
        probes=_PROBES.get(server, frozenset()) if probed else frozenset(),
        scoped=scoped(app, held) if scoped else None,
        is_handshake=_HANDSHAKES.get(server, lambda _: False),
    )
    return Door(behind(app, held) if behind else app, held, sessions.of(home, held), policy)
