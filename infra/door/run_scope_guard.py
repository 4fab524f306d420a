"""Checks of scripts' requests: each claim of ``run_scope`` against MLflow's records.

What MLflow knows is asked of the server behind the door itself. Which experiment and parent a run
has, and which run has made a model, never changes, so the answers are kept.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Receive, Scope

from infra.door import run_scope
from infra.door.credential import Credential
from infra.door.door import RefusedError
from infra.door.internal_requests import BodyTooLargeError, get, read, replay
from infra.door.refusals import Refusal
from infra.door.run_scope import Claim, ClaimKind, MlflowRequest, NotInScopeError

_API = "/api/2.0/mlflow"
_LARGEST_BODY = 16 << 20  # MLflow's own limit for a batch is 1 MB; a model's signature is larger
_CACHED = 4096

_TOO_LARGE = Refusal(
    413, "REQUEST_LIMIT_EXCEEDED", f"The request is larger than {_LARGEST_BODY >> 20} MiB."
)
_UNAVAILABLE = Refusal(
    503, "TEMPORARILY_UNAVAILABLE", "MLflow does not answer at present; try again."
)


class _Run(NamedTuple):
    """Immutable facts about a run."""

    experiment: str
    parent: str


class _UnavailableError(Exception):
    """The server behind the door could not answer a request."""


class RunScopes:
    """Scoped credentials of all runs; see :class:`infra.door.door.ScopedCredentials`."""

    def __init__(self, app: ASGIApp, credential: Credential) -> None:
        """Check requests to MLflow's server.

        Args:
            app: The server, without its door.
            credential: The owner's, from which those of runs are derived.
        """
        self._app = app
        self._credential = credential
        self._known: OrderedDict[tuple[str, str], Any] = OrderedDict()

    async def admit(
        self, user: str, password: str, scope: Scope, receive: Receive
    ) -> Receive | None:
        """Decide about a request: its body, None for another kind of credential.

        Raises:
            RefusedError: If the run's credential does not open this request.
        """
        run_id = run_scope.verify(self._credential, user, password)
        if run_id is None:
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        request = MlflowRequest(scope["method"], scope["path"], query)
        if not run_scope.takes_content(scope["method"], scope["path"]):
            try:
                body = await read(receive, _LARGEST_BODY)
            except BodyTooLargeError:
                raise RefusedError(_TOO_LARGE) from None
            request = MlflowRequest(scope["method"], scope["path"], query, body)
            # The rules have not inspected a GET's body, so the server must not read it either.
            receive = replay(b"" if scope["method"] == "GET" else body, receive)
        try:
            for claim in run_scope.claims(request):
                if not await self._holds(claim, run_id, scope):
                    raise NotInScopeError
            narrowed = run_scope.narrow(request, run_id)
        except NotInScopeError:
            raise RefusedError(_refusal(run_id, request)) from None
        except _UnavailableError:
            raise RefusedError(_UNAVAILABLE) from None
        if narrowed is None:
            return receive
        kept = [pair for pair in scope["headers"] if pair[0] != b"content-length"]
        scope["headers"] = [*kept, (b"content-length", str(len(narrowed)).encode())]
        return replay(narrowed, receive)

    async def _holds(self, claim: Claim, run_id: str, scope: Scope) -> bool:
        """Whether the claimed object belongs to the run."""
        kind, claimed = claim
        if kind is ClaimKind.PARENT:
            return claimed == run_id
        if kind is ClaimKind.RUN:
            return claimed == run_id or (await self._run(claimed, scope)).parent == run_id
        if kind is ClaimKind.MODEL:
            source = await self._source_of(claimed, scope)
            return await self._holds(Claim(ClaimKind.RUN, source), run_id, scope)
        if kind is ClaimKind.EXPERIMENT_NAME:
            claimed = await self._experiment_called(claimed, scope)
        return claimed == (await self._run(run_id, scope)).experiment

    async def _run(self, run_id: str, scope: Scope) -> _Run:
        key = ("run", run_id)
        if key not in self._known:
            found = (await self._ask("runs/get", {"run_id": run_id}, scope)).get("run", {})
            tags = {one["key"]: one.get("value", "") for one in found["data"].get("tags", [])}
            parent = tags.get(run_scope.PARENT_TAG, "")
            self._keep(key, _Run(found["info"]["experiment_id"], parent))
        return self._known[key]  # type: ignore[no-any-return]

    async def _source_of(self, model_id: str, scope: Scope) -> str:
        """Find the run that logged a model."""
        key = ("model", model_id)
        if key not in self._known:
            found = await self._ask(f"logged-models/{model_id}", {}, scope)
            self._keep(key, found["model"]["info"].get("source_run_id", ""))
        return str(self._known[key])

    async def _experiment_called(self, name: str, scope: Scope) -> str:
        """The id of an experiment, whose name may change."""
        found = await self._ask("experiments/get-by-name", {"experiment_name": name}, scope)
        return str(found["experiment"]["experiment_id"])

    def _keep(self, key: tuple[str, str], value: Any) -> None:
        self._known[key] = value
        if len(self._known) > _CACHED:
            self._known.popitem(last=False)

    async def _ask(self, route: str, query: Mapping[str, str], scope: Scope) -> Any:
        """Send a request of the door itself to MLflow.

        Raises:
            NotInScopeError: If there is no such thing.
            _UnavailableError: If it fails.
        """
        answer = await get(self._app, f"{_API}/{route}", query, scope)
        if answer.status in (400, 404):
            raise NotInScopeError
        if answer.status != 200:
            raise _UnavailableError
        return json.loads(answer.body)


def _refusal(run_id: str, request: MlflowRequest) -> Refusal:
    return Refusal(
        403,
        "PERMISSION_DENIED",
        f"The credential of a script opens its own MLflow run ({run_id}), runs nested in it and "
        f"models that they log, and not {request.method} {request.path}. Registered models and "
        "other runs are the owner's: leave a model in EM_MODEL_DIR to have it registered.",
    )
