"""The modules of Azure ML's that scoring scripts import, where its own packages are absent.

``azureml_inference_server_http.api`` and its predecessor ``azureml.contrib.services`` have
``rawhttp``, ``AMLRequest`` and ``AMLResponse``. Those packages are Flask's; these stand-ins need
nothing.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl

_PACKAGES = ("azureml_inference_server_http.api", "azureml.contrib.services")
# What their rawhttp sets, which says nothing of the function that it decorates.
_RAW = "_rawHttpRequested"


class Headers(dict[str, str]):
    """Headers of a request, whose names have no case."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        super().__init__((name.title(), value) for name, value in pairs)

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.title())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(name.title())

    def get(self, name: str, default: Any = None) -> Any:
        """The header's value, or the default."""
        return super().get(name.title(), default)


class Arguments(dict[str, str]):
    """Parameters of a query: the first value of each."""

    def __init__(self, query: str) -> None:
        self._pairs = parse_qsl(query, keep_blank_values=True)
        super().__init__(reversed(self._pairs))

    def getlist(self, name: str) -> list[str]:
        """All values of a parameter."""
        return [value for one, value in self._pairs if one == name]


class AMLRequest:
    """A request as ``@rawhttp`` hands it to ``run()``: what scripts use of Flask's.

    With Flask installed, ``run()`` gets Flask's own, which has forms and files as well.
    """

    def __init__(
        self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes
    ) -> None:
        """A request.

        Args:
            method: Its method.
            path: Its path, without the query.
            query: Its query, as it was sent.
            headers: Its headers.
            body: Its body.
        """
        self.method = method
        self.path = path
        self.query_string = query.encode()
        self.full_path = f"{path}?{query}"
        self.headers = Headers(headers.items())
        self.args = Arguments(query)
        self.data = body
        self.content_type = self.headers.get("Content-Type")
        self.mimetype = (self.content_type or "").partition(";")[0].strip().lower()

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"The request has no {name}: install Flask, and it is Flask's, which has all."
        )

    @property
    def is_json(self) -> bool:
        """Whether it says that its body is JSON."""
        return is_json(self.mimetype)

    @property
    def json(self) -> Any:
        """Its body, read as JSON."""
        return self.get_json()

    def get_data(self, cache: bool = True, as_text: bool = False,
                 parse_form_data: bool = False) -> Any:  # fmt: skip
        """Its body: bytes, or a text."""
        return self.data.decode(errors="replace") if as_text else self.data

    def get_json(self, force: bool = False, silent: bool = False,
                 cache: bool = True) -> Any:  # fmt: skip
        """Its body, read as JSON; None with ``silent``, where it is none.

        Raises:
            ValueError: If it is none.
        """
        try:
            if not (force or self.is_json):
                raise ValueError("The content type of the request is not application/json.")
            return json.loads(self.data)
        except ValueError:
            if silent:
                return None
            raise


class _ResponseHeaders:
    """Headers of a response; one name may have several values."""

    def __init__(self) -> None:
        self._pairs: list[tuple[str, str]] = []

    def __contains__(self, name: str) -> bool:
        return any(one.lower() == name.lower() for one, _ in self._pairs)

    def __setitem__(self, name: str, value: object) -> None:
        self.remove(name)
        self.add(name, value)

    def __getitem__(self, name: str) -> str:
        return next(value for one, value in self._pairs if one.lower() == name.lower())

    def add(self, name: str, value: object) -> None:
        """Add a value to those of a header."""
        self._pairs.append((name, str(value)))

    def remove(self, name: str) -> None:
        """Remove all values of a header."""
        self._pairs = [pair for pair in self._pairs if pair[0].lower() != name.lower()]

    def items(self) -> list[tuple[str, str]]:
        """All names with their values."""
        return list(self._pairs)


class AMLResponse:
    """A response of ``run()`` with a status and headers of its own."""

    def __init__(
        self, message: Any, status_code: int, response_headers: Mapping[str, str] | None = None,
        json_str: bool = False, run_function_failed: bool = False,
    ) -> None:  # fmt: skip
        """A response, by the parameters of Azure ML's own.

        Args:
            message: Its body: a text or bytes; None for ``{}``.
            status_code: Its status.
            response_headers: Its headers; commas separate the values of one.
            json_str: Whether the message is written as JSON.
            run_function_failed: What the header ``x-ms-run-function-failed`` says.
        """
        self.status_code = status_code
        self.headers = _ResponseHeaders()
        self._body: bytes
        if message is None or json_str:
            self._body = json.dumps({} if message is None else message).encode()
            self.headers.add("Content-Type", "application/json")
        else:
            self._body = message if isinstance(message, bytes) else str(message).encode()
            if not any(name.lower() == "content-type" for name in response_headers or {}):
                self.headers.add("Content-Type", "text/html; charset=utf-8")
        self.headers["x-ms-run-function-failed"] = run_function_failed
        for name, values in (response_headers or {}).items():
            for value in values.split(","):
                self.headers.add(name, value.strip())

    def get_data(self) -> bytes:
        """Its body."""
        return self._body


def install() -> None:
    """Make the modules importable that are not."""
    for package in _PACKAGES:
        if _is_importable(package):
            continue
        parts = package.split(".")
        for count in range(1, len(parts) + 1):
            name = ".".join(parts[:count])
            if not _is_importable(name):
                _add(name, __path__=[])
        request = _add(f"{package}.aml_request", AMLRequest=AMLRequest, **{_RAW: False})
        vars(request)["rawhttp"] = _rawhttp(request)
        _add(f"{package}.aml_response", AMLResponse=AMLResponse)


def is_raw_requested() -> bool:
    """Whether a script has used ``@rawhttp``, of whichever package."""
    modules = (sys.modules.get(f"{package}.aml_request") for package in _PACKAGES)
    return any(getattr(module, _RAW, False) for module in modules)


def is_response(value: object) -> bool:
    """Whether it is a response: a stand-in's, or Flask's."""
    flask = sys.modules.get("werkzeug.wrappers")
    kinds = (AMLResponse, flask.Response) if flask else AMLResponse
    return isinstance(value, kinds)


def is_json(mimetype: str) -> bool:
    """Whether a type of content is JSON."""
    return mimetype == "application/json" or (
        mimetype.startswith("application/") and mimetype.endswith("+json")
    )


def _rawhttp(module: ModuleType) -> Callable[[Any], Any]:
    def rawhttp(function: Any) -> Any:
        vars(module)[_RAW] = True
        return function

    return rawhttp


def _is_importable(name: str) -> bool:
    if name in sys.modules:
        return True
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _add(name: str, **attributes: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(attributes)
    sys.modules[name] = module
    parent, _, last = name.rpartition(".")
    if parent in sys.modules:
        setattr(sys.modules[parent], last, module)
    return module
