"""A scoring script behind HTTP: the ASGI application of Azure ML's inference server.

``GET`` and ``POST /score`` run the script, ``GET /`` says that it is healthy, and
``GET /swagger.json`` describes it. ``GET /metrics`` has the metrics. Every error is
``{"message": "..."}``.
"""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from modelyard_runtime import __version__
from modelyard_runtime.server import azureml_modules, observation, swagger
from modelyard_runtime.server.refusals import RequestRefused, shown
from modelyard_runtime.server.request_bodies import Receive, RequestLimits, read_body
from modelyard_runtime.server.scoring_script import (
    DeadlineExceededError,
    ScoreRequest,
    ScoringScript,
    ScriptError,
)
from modelyard_runtime.server.server_metrics import ServerMetrics
from modelyard_runtime.server.swagger import ServiceInfo

_LONGEST_ID = 100
_ID, _LEGACY_ID, _CLIENT_ID = "x-request-id", "x-ms-request-id", "x-ms-client-request-id"
_FAILED = "x-ms-run-function-failed"
_ALLOWED = {"": "GET, HEAD, OPTIONS", "score": "GET, POST, OPTIONS",
            "swagger.json": "GET, HEAD, OPTIONS", "metrics": "GET, HEAD, OPTIONS"}  # fmt: skip
_METHODS = {"": "server_live", "score": "score", "swagger.json": "swagger", "metrics": "metrics"}

# The server's own, by the length of the body that it sends.
_FRAMING = frozenset({"content-length", "transfer-encoding", "connection"})
_LOWEST_STATUS, _HIGHEST_STATUS = 200, 599
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

Headers = list[tuple[str, str]]


@dataclass(frozen=True)
class ScoringSettings:
    """Settings of a scoring script's server.

    Attributes:
        seconds: How long ``run()`` may take; None without a deadline.
        origins: Whose pages may ask it (CORS); ``*`` for all.
        service: What its description says.
    """

    seconds: float | None = 3600.0
    origins: tuple[str, ...] = ()
    service: ServiceInfo = field(default_factory=ServiceInfo)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> ScoringSettings:
        """The settings by the variables of Azure ML's server.

        Raises:
            ValueError: If one is malformed.
        """
        limit = environment.get("SCORING_TIMEOUT_MS", "3600000")
        if not (limit.isascii() and limit.isdigit()):
            raise ValueError(
                f"SCORING_TIMEOUT_MS is {limit!r}: give whole milliseconds; 0 for no deadline."
            )
        origins = environment.get("AML_CORS_ORIGINS", "").split(",")
        prefix = environment.get("SERVICE_PATH_PREFIX", "").strip("/")
        return cls(
            int(limit) / 1000 or None,
            tuple(one.strip() for one in origins if one.strip()),
            ServiceInfo(
                environment.get("SERVICE_NAME", ServiceInfo.name),
                environment.get("SERVICE_VERSION", ServiceInfo.version),
                f"/{prefix}" if prefix else "",
            ),
        )


@dataclass
class _Response:
    status: int
    body: bytes
    headers: Headers

    @classmethod
    def of_json(cls, value: object, status: int = 200, *, failed: bool = False) -> _Response:
        headers = [("content-type", "application/json"), (_FAILED, str(failed))]
        return cls(status, json.dumps(value).encode(), headers)


class ScoringApplication:
    """Answers requests with a scoring script; an ASGI application."""

    def __init__(
        self, script: ScoringScript, settings: ScoringSettings | None = None,
        limits: RequestLimits | None = None, metrics: ServerMetrics | None = None,
    ) -> None:  # fmt: skip
        """Ask ``script``, which is loaded before or meanwhile, and serve ``metrics``."""
        self._script = script
        self._settings = settings or ScoringSettings()
        self._limits = limits or RequestLimits()
        self._server_metrics = metrics or ServerMetrics()
        self.is_draining = False
        self._routes: Mapping[str, Callable[[ScoreRequest], Awaitable[_Response]]] = {
            "": self._health,
            "score": self._score,
            "swagger.json": self._swagger,
            "metrics": self._metrics,
        }

    async def __call__(self, scope: Any, receive: Receive, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): value.decode("latin-1")
                   for name, value in scope["headers"]}  # fmt: skip
        method = scope["method"]
        ids: Headers = []
        try:
            ids = _ids(headers)
            response = await self._answer(scope, headers, receive)
        except RequestRefused as refusal:
            response = _Response.of_json({"message": refusal.message}, refusal.status)
            response.headers += refusal.headers.items()
        except DeadlineExceededError:
            text = f"Scoring timeout after {self._milliseconds} ms"
            response = _Response.of_json({"message": text}, 500, failed=True)
        except ScriptError as error:
            response = _Response.of_json({"message": str(error)}, 500, failed=True)
        except Exception:  # noqa: BLE001 (the edge of the server)
            print(traceback.format_exc(), file=sys.stderr, end="", flush=True)
            text = "An unexpected internal error occurred. Check the logs for more info."
            response = _Response.of_json({"message": text}, 500)
        more = [("x-ms-server-version", _server()), *ids, *self._cors(method, headers)]
        if "traceid" in headers:
            more.append(("TraceId", headers["traceid"]))
        body = response.body if method != "HEAD" else b""
        length = ("content-length", str(len(response.body)))
        raw = [(name.encode("latin-1"), value.encode("latin-1"))
               for name, value in [*response.headers, length, *more]]  # fmt: skip
        status = response.status
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": body})

    @property
    def _milliseconds(self) -> str:
        return f"{(self._settings.seconds or 0) * 1000:g}"

    async def _answer(
        self, scope: Any, headers: Mapping[str, str], receive: Receive
    ) -> _Response:  # fmt: skip
        raw = scope.get("raw_path") or scope["path"].encode()
        path = raw.partition(b"?")[0].decode("latin-1")
        route = path.removeprefix(self._settings.service.prefix).removeprefix("/")
        if route not in self._routes:
            raise RequestRefused(404, f"There is nothing at {path}.")
        observation.is_routed("azureml", _METHODS[route])
        method, allowed = scope["method"], _ALLOWED[route]
        is_raw = route == "score" and azureml_modules.is_raw_requested()
        if method == "OPTIONS" and not is_raw:
            return _Response(200, b"", [("allow", allowed)])
        if method not in allowed.split(", ") and not (is_raw and method == "HEAD"):
            raise RequestRefused(
                405, f"{method} is not answered here, but {allowed}.", {"allow": allowed}
            )
        query = scope["query_string"].decode("latin-1")
        with self._limits.memory.hold() as held:
            body = await read_body(headers, receive, self._limits, held)
            return await self._routes[route](ScoreRequest(method, path, query, headers, body))

    async def _health(self, _: ScoreRequest) -> _Response:
        if self.is_draining:
            raise RequestRefused(503, "The server is ending.")
        self._script.check_ready()
        return _Response(200, b"Healthy", [("content-type", "text/html; charset=utf-8")])

    async def _metrics(self, request: ScoreRequest) -> _Response:
        body, kind = self._server_metrics.expose(request.headers.get("accept", ""))
        return _Response(200, body, [("content-type", kind)])

    async def _score(self, request: ScoreRequest) -> _Response:
        observation.is_of_model(self._script.name)
        result = await self._script.score(request)
        response = _response(result.value)
        response.headers.append(("x-ms-run-fn-exec-ms", f"{result.seconds * 1000:.3f}"))
        return response

    async def _swagger(self, request: ScoreRequest) -> _Response:
        self._script.check_ready()
        version = parse_qs(request.query).get("version", ["2"])[0]
        return _Response.of_json(swagger.describe(self._script, self._settings.service, version))

    def _cors(self, method: str, headers: Mapping[str, str]) -> Headers:
        """Headers for pages of other origins, where these may ask."""
        allowed = self._settings.origins
        if not allowed:
            return []
        everyone = "*" in allowed
        varies = [] if everyone else [("vary", "Origin")]
        origin = headers.get("origin")
        if origin is None or not (everyone or origin in allowed):
            return varies
        found = [("access-control-allow-origin", "*" if everyone else origin), *varies]
        if method == "OPTIONS" and "access-control-request-method" in headers:
            found.append(("access-control-allow-methods", "GET, POST"))
            if asked := headers.get("access-control-request-headers"):
                found.append(("access-control-allow-headers", asked))
        return found


def _response(value: Any) -> _Response:
    """What ``run()`` returned, as a response."""
    if azureml_modules.is_response(value):
        if hasattr(value, "direct_passthrough"):  # Flask's, of a file
            value.direct_passthrough = False
        headers = [(name, str(text)) for name, text in value.headers.items()
                   if name.lower() not in _FRAMING]  # fmt: skip
        _check(value.status_code, headers)
        if value.status_code >= 500:
            headers = [one for one in headers if one[0].lower() != _FAILED]
            headers.append((_FAILED, "True"))
        return _Response(value.status_code, value.get_data(), headers)
    try:
        return _Response.of_json({} if value is None else value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ScriptError(
            f"run() returned a {type(value).__name__} that has no JSON: {error}. Return lists, "
            "mappings, texts and numbers; of an array, its tolist()."
        ) from error


def _check(status: object, headers: Headers) -> None:
    """Refuse what would end the connection, or another answer begin, as HTTP reads it.

    Raises:
        ScriptError: If it is such.
    """
    if type(status) is not int or not _LOWEST_STATUS <= status <= _HIGHEST_STATUS:
        raise ScriptError(
            f"run() returned the status {status!r}: give {_LOWEST_STATUS} to {_HIGHEST_STATUS}."
        )
    for name, text in headers:
        if not (_HEADER.fullmatch(name) and _HEADER_VALUE.fullmatch(text)):
            raise ScriptError(
                f"run() returned the header {shown(name)} with {shown(text)}, which HTTP does not "
                "have: encode line breaks and what is beyond Latin-1."
            )


def _ids(headers: Mapping[str, str]) -> Headers:
    """Ids that the answer carries back: of the request, and of the client.

    ``x-ms-request-id`` was the client's once, and is what there is of the other two.

    Raises:
        RequestRefused: 431 if one is too long.
    """
    given = headers.get(_ID) or str(uuid.uuid4())
    client = headers.get(_CLIENT_ID, "") or headers.get(_LEGACY_ID, "")
    legacy = headers.get(_LEGACY_ID, "") or client or given
    found = [(_ID, given), (_LEGACY_ID, legacy), (_CLIENT_ID, client)]
    if long := [name for name, value in found if len(value) > _LONGEST_ID]:
        raise RequestRefused(431, f"{long[0]} must not exceed {_LONGEST_ID} characters.")
    observation.has_ids(given, client)
    return [one for one in found if one[1]]


def _server() -> str:
    return os.environ.get("HTTP_X_MS_SERVER_VERSION") or f"modelyard-runtime/{__version__}"
