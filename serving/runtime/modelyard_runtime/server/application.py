"""The server's ASGI application: routes, and an answer to whatever comes.

Every error is ``{"error": "..."}``. Paths are read as they were sent, so that a model's name may
have any character, and nothing is redirected.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import orjson

from modelyard_runtime.server import instances, long_arrays, observation, open_inference, openapi
from modelyard_runtime.server.call_thread import run_aside
from modelyard_runtime.server.hosted_model import HostedModel
from modelyard_runtime.server.open_inference import Answer
from modelyard_runtime.server.refusals import RequestRefused
from modelyard_runtime.server.request_bodies import Receive, RequestLimits, read_body
from modelyard_runtime.server.served_models import ServedModels
from modelyard_runtime.server.server_metrics import ServerMetrics

Scope = Mapping[str, Any]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

_READS, _ASKS = ("GET", "HEAD"), ("POST",)
_VERBS = ("predict", "explain")


@dataclass(frozen=True)
class Request:
    """A request whose route is found.

    Attributes:
        headers: Its headers, in lower case.
        body: Its body.
    """

    headers: Mapping[str, str]
    body: bytes


Handler = Callable[[Request], Awaitable[Answer]]


@dataclass(frozen=True)
class _Route:
    """Where a request goes.

    Attributes:
        protocol: The protocol that it is of, in metrics and logs.
        method: What that calls it.
        handler: What answers it.
        verbs: HTTP methods that are answered.
    """

    protocol: str
    method: str
    handler: Handler
    verbs: Sequence[str] = _READS


class Application:
    """Answers requests for some models; an ASGI application."""

    def __init__(
        self, models: ServedModels, prefix: str = "",
        limits: RequestLimits | None = None, metrics: ServerMetrics | None = None,
    ) -> None:  # fmt: skip
        """Serve ``models`` and the ``metrics`` of the server.

        All paths are also below ``/prefix`` and, as Azure ML has them, below ``/NAME`` of a model.
        """
        self._models = models
        self._prefixes = [[name] for name in models.names]
        if parts := [unquote(part) for part in prefix.split("/") if part]:
            self._prefixes.append(parts)
        self._limits = limits or RequestLimits()
        self._server_metrics = metrics or ServerMetrics()
        self._routes: Mapping[Sequence[str], _Route] = {
            ("",): _Route("http", "server_metadata", self._server),
            ("metrics",): _Route("http", "metrics", self._metrics),
            ("v2",): _Route("v2", "server_metadata", self._server),
            ("v2", "health", "live"): _Route("v2", "server_live", self._live),
            ("v2", "health", "ready"): _Route("v2", "server_ready", self._ready),
            ("v1", "models"): _Route("v1", "models", self._names),
            ("openapi.json",): _Route("http", "openapi", self._openapi),
        }
        self._first_parts = {parts[0] for parts in self._routes}

    @property
    def is_draining(self) -> bool:
        """Whether the server is to end."""
        return self._models.is_draining

    @is_draining.setter
    def is_draining(self, value: bool) -> None:
        self._models.is_draining = value

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        try:
            status, answer = 200, await self._answer(scope, receive)
        except RequestRefused as refusal:
            status = refusal.status
            answer = Answer(_json({"error": refusal.message}), headers=refusal.headers)
        except Exception:  # noqa: BLE001 (the edge of the server)
            print(traceback.format_exc(), file=sys.stderr, end="", flush=True)
            status, answer = 500, Answer(_json({"error": "The server failed; see its log."}))
        headers = {
            "content-type": answer.content_type,
            "content-length": str(len(answer.body)),
            **answer.headers,
        }
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        body = b"" if scope["method"] == "HEAD" else answer.body
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        path = self._path(scope)
        route = self._route(path)
        observation.is_routed(route.protocol, route.method)
        if scope["method"] not in route.verbs:
            allowed = ", ".join(route.verbs)
            raise RequestRefused(
                405, f"{scope['method']} is not answered here, but {allowed}.", {"allow": allowed}
            )
        headers = {name.decode("latin-1"): value.decode("latin-1")
                   for name, value in scope["headers"]}  # fmt: skip
        if route.verbs is _READS:
            return await route.handler(Request(headers, b""))
        with self._limits.memory.hold() as held:
            body = await read_body(headers, receive, self._limits, held)
            return await route.handler(Request(headers, body))

    def _path(self, scope: Scope) -> list[str]:
        """The parts of the path, without the prefix."""
        raw = scope.get("raw_path") or scope["path"].encode()
        path = raw.partition(b"?")[0].decode("latin-1")
        parts = [unquote(part) for part in path.removeprefix("/").removesuffix("/").split("/")]
        for prefix in self._prefixes:
            rest = parts[len(prefix) :] or [""]
            # A prefix may be the first part of a route, such as v2.
            if parts[: len(prefix)] == prefix and rest[0] in self._first_parts:
                return parts if tuple(parts) in self._routes else rest
        return parts

    def _route(self, path: Sequence[str]) -> _Route:
        if found := self._routes.get(tuple(path)):
            return found
        match path:
            case ["v2", "models", name, *rest]:
                return self._model_route(name, rest)
            case ["v1", "models", *rest]:
                return self._instances_route(rest)
        raise RequestRefused(404, f"There is nothing at /{'/'.join(path)}.")

    def _model_route(self, name: str, rest: Sequence[str]) -> _Route:
        version = None
        if rest[:1] == ["versions"] and len(rest) > 1:
            version, rest = rest[1], rest[2:]
        model = self._models.find(name, version)
        match rest:
            case []:
                return _Route("v2", "model_metadata", lambda _: self._metadata(model))
            case ["ready"]:
                return _Route("v2", "model_ready", lambda _: self._model_ready(model))
            case ["infer"]:
                return _Route(
                    "v2", "model_infer", lambda request: self._infer(model, request), _ASKS
                )
        raise RequestRefused(404, f"There is nothing at /v2/models/{name}/{'/'.join(rest)}.")

    def _instances_route(self, rest: Sequence[str]) -> _Route:
        """Routes of version 1: ``NAME``, and ``NAME:predict`` or ``NAME/predict``."""
        verb = ""
        if len(rest) == 2 and rest[1] in _VERBS:
            rest, verb = rest[:1], rest[1]
        elif len(rest) == 1 and rest[0] not in self._models.names:
            name, _, last = rest[0].rpartition(":")
            if name and last in _VERBS:
                rest, verb = [name], last
        if len(rest) != 1:
            raise RequestRefused(404, f"There is nothing at /v1/models/{'/'.join(rest)}.")
        model = self._models.find(rest[0])
        if not verb:
            return _Route("v1", "model_ready", lambda _: self._model_ready(model))
        if verb == "explain":
            return _Route("v1", "explain", lambda _: self._explain(model), _ASKS)
        return _Route("v1", "predict", lambda request: self._predict(model, request), _ASKS)

    async def _metrics(self, request: Request) -> Answer:
        return Answer(*self._server_metrics.expose(request.headers.get("accept", "")))

    async def _server(self, _: Request) -> Answer:
        return Answer(_json(open_inference.server_metadata()))

    async def _live(self, _: Request) -> Answer:
        return Answer(_json({"live": True}))

    async def _ready(self, _: Request) -> Answer:
        self._models.check_ready()
        return Answer(_json({"ready": True}))

    async def _metadata(self, model: HostedModel) -> Answer:
        model.check_ready()
        found = open_inference.described(
            model.name, [model.version], model.platform, model.inputs, model.outputs
        )
        return Answer(_json(found))

    async def _model_ready(self, model: HostedModel) -> Answer:
        model.check_ready()
        return Answer(_json({"name": model.name, "ready": True}))

    async def _names(self, _: Request) -> Answer:
        return Answer(_json({"models": self._models.names}))

    async def _openapi(self, _: Request) -> Answer:
        return Answer(_json(openapi.describe(self._models)))

    async def _infer(self, model: HostedModel, request: Request) -> Answer:
        length = request.headers.get(open_inference.HEADER_LENGTH)
        body = request.body
        asked = await run_aside(len(body), open_inference.read, body, length)
        outputs = await model.infer(asked.inputs)
        size = sum(array.nbytes for array in outputs.values())
        return await run_aside(
            size, open_inference.write, asked, outputs, model.name, model.version
        )

    async def _predict(self, model: HostedModel, request: Request) -> Answer:
        if len(request.body) < long_arrays.LONG:  # else it is predicted in several pieces
            return await self._predicted(model, request)
        try:
            async with asyncio.timeout(model.seconds):
                return await self._predicted(model, request)
        except TimeoutError:
            raise model.overdue() from None

    async def _predicted(self, model: HostedModel, request: Request) -> Answer:
        size = len(request.body)
        pieces = instances.read(request.body)
        if model.is_users_code:  # what it predicts may depend on all of a request's instances
            pieces = iter(
                [await run_aside(size, lambda: [one for some in pieces for one in some])]
            )
        written: list[bytes] = []
        while (given := await run_aside(size, next, pieces, None)) is not None:
            found = await model.predict(given, size)
            written.append(await run_aside(size, instances.write, found))
        return Answer(instances.join(written))

    async def _explain(self, model: HostedModel) -> Answer:
        raise RequestRefused(501, f"The model {model.name} has no explainer.")


def _json(value: object) -> bytes:
    return orjson.dumps(value)
