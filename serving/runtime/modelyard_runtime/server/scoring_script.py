"""Azure ML's scoring script: ``init()`` once, then ``run(data)`` for each request.

The contract is that of the package azureml-inference-server-http (1.5). Unlike
there, errors say where in the script they happened.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import io
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl, unquote

from modelyard_runtime.server import azureml_modules, observation
from modelyard_runtime.server.call_thread import CallThread
from modelyard_runtime.server.code_errors import CodeErrors
from modelyard_runtime.server.observation import BatchTimes, ModelObserver
from modelyard_runtime.server.refusals import RequestRefused, bad

_MODULE = "entry_module"
_HEADERS = "request_headers"
_MOST_WAITING = 256
_MOST_OVERDUE = 8
_OVERLOADED = "run() is asked for more than it answers: try again later."


class ScriptError(Exception):
    """The script is not one, or raised an exception; the message says where."""


class DeadlineExceededError(Exception):
    """``run()`` did not return in time."""


@dataclass(frozen=True)
class ScoreRequest:
    """A request for a scoring script.

    Attributes:
        method: Its method.
        path: Its path, as it was sent.
        query: Its query, as it was sent.
        headers: Its headers, in lower case.
        body: Its body.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class ScoreResult:
    """What ``run()`` returned.

    Attributes:
        value: The value.
        seconds: How long it took.
    """

    value: Any
    seconds: float


class ScoringScript:
    """A scoring script. It answers one request at a time; for one event loop."""

    def __init__(
        self, path: Path, seconds: float | None = None, observer: ModelObserver | None = None
    ) -> None:  # fmt: skip
        """The script at ``path``, whose ``run()`` has ``seconds``; None without a deadline."""
        self.name = path.name
        self.label = f"The script {path.name}"
        self.folder = path.resolve().parent
        self.run: Callable[..., Any] | None = None
        self._path = path.resolve()
        self._errors = CodeErrors(self.folder)
        self._seconds = seconds
        self._observer = observer or ModelObserver()
        self._thread = CallThread("script")
        self._overdue: list[Future[Any]] = []
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._arguments: Callable[[ScoreRequest], Mapping[str, Any]]
        self._has_headers = False

    async def load(self) -> None:
        """Import the script and call its ``init()``.

        Raises:
            ScriptError: If that fails, or it has no such functions.
        """
        began = time.perf_counter()
        await asyncio.wrap_future(self._thread.submit(self._load))
        self._observer.on_loaded(time.perf_counter() - began)

    def close(self) -> None:
        """End the thread, once the script returns."""
        self._thread.end()

    def check_ready(self) -> None:
        """Refuse requests until it is loaded.

        Raises:
            RequestRefused: 503.
        """
        if self.run is None:
            raise RequestRefused(503, "init() has not returned yet.", {"retry-after": "1"})

    async def score(self, request: ScoreRequest) -> ScoreResult:
        """What ``run()`` returns for a request.

        Raises:
            RequestRefused: If the request is malformed, or too many wait.
            ScriptError: If ``run()`` raises.
            DeadlineExceededError: If it takes too long.
        """
        self.check_ready()
        arguments = dict(self._arguments(request))
        if self._has_headers:
            arguments[_HEADERS] = dict(azureml_modules.Headers(request.headers.items()))
        if self._waiting >= _MOST_WAITING:
            self._observer.on_refused()
            raise RequestRefused(429, _OVERLOADED, {"retry-after": "1"})
        self._waiting += 1
        arrived = time.perf_counter()
        try:
            async with self._turn:
                self._observer.on_batch([time.perf_counter() - arrived])
                self._observer.on_waiting(self._waiting - 1)
                return await self._call(arguments, arrived)
        finally:
            self._waiting -= 1

    async def _call(self, arguments: Mapping[str, Any], arrived: float) -> ScoreResult:
        began = time.perf_counter()
        self._overdue = [one for one in self._overdue if not one.done()]
        if len(self._overdue) >= _MOST_OVERDUE:
            raise RequestRefused(503, f"{_MOST_OVERDUE} calls of run() do not return.")
        call = self._thread.submit(lambda: self._timed(arguments))
        result: asyncio.Future[ScoreResult] = asyncio.wrap_future(call)
        await asyncio.wait({result}, timeout=self._seconds)
        record = observation.current()
        if record and record.batches is not None:
            record.batches.append(BatchTimes(arrived, began, time.perf_counter(), 1, 1))
        if result.done():
            found = result.result()
            self._observer.on_predicted(1, found.seconds, {})
            return found
        result.add_done_callback(lambda one: one.cancelled() or one.exception())
        # A thread cannot be ended while it is in C code: it is left alone, and another goes on.
        self._observer.on_overdue()
        self._overdue.append(call)
        self._thread.interrupt()
        self._thread = CallThread("script")
        raise DeadlineExceededError

    def _timed(self, arguments: Mapping[str, Any]) -> ScoreResult:
        assert self.run is not None
        began = time.perf_counter()
        try:
            value = self.run(**arguments)
        except BaseException as error:
            raise self._error(error) from error
        return ScoreResult(value, time.perf_counter() - began)

    def _load(self) -> None:
        azureml_modules.install()
        module = self._import()
        for name in ("init", "run"):
            if not callable(getattr(module, name, None)):
                raise ScriptError(f"{self.name} has no function {name}().")
        # Azure's designer wraps a script into a driver, whose run() only passes its argument on.
        driven = getattr(module, "driver_module", None)
        run = driven.run if isinstance(driven, ModuleType) and hasattr(driven, "run") else None
        run = run or module.run
        self._arguments, self._has_headers = _argument_reader(run)
        try:
            module.init()
        except BaseException as error:
            raise self._error(error) from error
        self.run = run

    def _import(self) -> Any:
        sys.path.insert(0, str(self.folder))
        spec = importlib.util.spec_from_file_location(_MODULE, self._path)
        if spec is None or spec.loader is None:
            raise ScriptError(f"{self.name} is not a Python script.")
        module = importlib.util.module_from_spec(spec)
        sys.modules[_MODULE] = module  # pickles and dataclasses look for it
        try:
            spec.loader.exec_module(module)
        except BaseException as error:
            raise self._error(error) from error
        return module

    def _error(self, error: BaseException) -> ScriptError:
        self._errors.log(error)
        return ScriptError(self._errors.describe(error, self.name))


def _argument_reader(
    run: Callable[..., Any],
) -> tuple[Callable[[ScoreRequest], Mapping[str, Any]], bool]:
    """How ``run()`` gets its arguments of a request, and whether it takes the headers too."""
    parameters = list(inspect.signature(run).parameters.values())
    if any(one.kind not in {one.KEYWORD_ONLY, one.POSITIONAL_OR_KEYWORD} for one in parameters):
        raise ScriptError("run() takes *args, **kwargs or positional-only parameters: name them.")
    given = [one for one in parameters if one.name != _HEADERS]
    if not given:
        raise ScriptError("run() takes no parameter for the data: write run(data).")
    has_headers = len(given) < len(parameters)
    if not azureml_modules.is_raw_requested() and is_schema_decorated(run):
        return partial(_objects, parameters=given), has_headers
    read = _raw if azureml_modules.is_raw_requested() else _text
    return (lambda request: {given[0].name: read(request)}), has_headers


def is_schema_decorated(run: object) -> bool:
    """Whether ``inference-schema``, which is the user's dependency, decorates ``run()``."""
    schemas: Any = sys.modules.get("inference_schema.schema_util")
    return bool(schemas and schemas.is_schema_decorated(run))


def _text(request: ScoreRequest) -> str:
    if _method(request) == "GET":
        return json.dumps(_query(request.query))
    try:
        return request.body.decode()
    except UnicodeDecodeError as error:
        raise bad(f"The body is not UTF-8: {error}") from None


def _objects(request: ScoreRequest, parameters: Sequence[inspect.Parameter]) -> dict[str, Any]:
    found = _query(request.query) if _method(request) == "GET" else _mapping(request)
    values = {one.name: found.get(one.name, one.default) for one in parameters}
    missing = [name for name, value in values.items() if value is inspect.Parameter.empty]
    if missing:
        raise bad(f"The request has no value for the parameter {missing[0]!r}.")
    return values


def _mapping(request: ScoreRequest) -> dict[str, Any]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not azureml_modules.is_json(kind):
        raise RequestRefused(415, "The Content-Type has to be application/json.")
    try:
        found = json.loads(request.body)
    except (ValueError, RecursionError) as error:
        raise bad(f"The body is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise bad("The body is not a mapping: give the parameters of run() by their names.")
    return found


def _query(query: str) -> dict[str, Any]:
    """The parameters of a query, each read as JSON where it is; a list where one is repeated."""
    found: dict[str, list[Any]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        found.setdefault(name, []).append(_value(value))
    return {name: one[0] if len(one) == 1 else one for name, one in found.items()}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
    except RecursionError:
        raise bad("A parameter of the query is nested too deeply.") from None


def _method(request: ScoreRequest) -> str:
    if request.method not in {"GET", "POST"}:
        raise RequestRefused(405, f"{request.method} is not answered here, but GET and POST.",
                             {"allow": "GET, POST, OPTIONS"})  # fmt: skip
    return request.method


def _raw(request: ScoreRequest) -> Any:
    """The request itself: Flask's where it is installed, else a stand-in of it."""
    path = unquote(request.path)
    try:
        import flask  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415 (optional)
    except ModuleNotFoundError:
        return azureml_modules.AMLRequest(
            request.method, path, request.query, request.headers, request.body
        )
    headers = {f"HTTP_{name.upper().replace('-', '_')}": value
               for name, value in request.headers.items()}  # fmt: skip
    host, _, port = request.headers.get("host", "localhost").partition(":")
    return flask.Request({
        **headers,
        "REQUEST_METHOD": request.method, "SCRIPT_NAME": "",
        "PATH_INFO": path.encode().decode("latin-1"), "QUERY_STRING": request.query,
        "CONTENT_TYPE": request.headers.get("content-type", ""),
        "CONTENT_LENGTH": str(len(request.body)),
        "SERVER_NAME": host, "SERVER_PORT": port or "80", "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.input": io.BytesIO(request.body), "wsgi.url_scheme": "http",
    })  # fmt: skip
