"""Transport of requests to a Kubernetes API server, with time limits and retries."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlencode

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NewConnectionError,
    ReadTimeoutError,
    SSLError,
)

from infra.kubernetes import access as accesses
from infra.kubernetes.access import ClusterAccess
from infra.kubernetes.api_errors import (
    ApiOperation,
    ClusterError,
    from_response,
    unreachable,
    untrusted,
)
from infra.kubernetes.cluster import ClusterConfig

T = TypeVar("T")

Query = Mapping[str, str | int | None]

_LEAST = 1.0  # second of silence, which an attempt that is made at all may last

# A TLS error, but not of certificates: the server dies during a handshake.
_BROKEN_OFF = ("EOF", "timed out", "reset by peer")


@dataclass(frozen=True)
class RetryPolicy:
    """Retry policy and timeouts of requests, in seconds except ``attempts``.

    Attributes:
        attempts: How often a request is made at most.
        seconds: After which no further attempt begins.
        connect_seconds: For a connection.
        silent_seconds: How long the server may be silent within a request.
        first_wait: Before the second attempt; doubled before each further one.
        longest_wait: Between two attempts, also where the server's ``Retry-After`` is longer.
    """

    attempts: int = 6
    seconds: float = 20.0
    connect_seconds: float = 5.0
    silent_seconds: float = 15.0
    first_wait: float = 0.25
    longest_wait: float = 10.0

    def wait(self, attempt: int, retry_after: float) -> float:
        """Compute the delay after the ``attempt``-th attempt, with jitter."""
        doubled = min(self.longest_wait, self.first_wait * 2.0 ** (attempt - 1))
        return max(doubled * random.uniform(0.5, 1.0), min(retry_after, self.longest_wait))


@dataclass(frozen=True)
class ApiRequest:
    """Request; query values that are None or "" are left out."""

    operation: ApiOperation
    method: str
    path: str
    query: Query | None = None
    body: Mapping[str, Any] | None = None

    def target(self) -> str:
        """Build the path with its query."""
        given = {
            name: value for name, value in (self.query or {}).items() if value not in (None, "")
        }
        return f"{self.path}?{urlencode(given)}" if given else self.path


class Transport:
    """Transport to one API server. Safe in threads."""

    def __init__(self, cluster: ClusterConfig, patience: RetryPolicy) -> None:
        self._cluster = cluster
        self._patience = patience
        self._lock = threading.Lock()
        self._access = accesses.connect(cluster)

    @property
    def access(self) -> ClusterAccess:
        """The server's address and current credentials."""
        return self._access

    def json(self, request: ApiRequest) -> dict[str, Any]:
        """Send a request; return the object of the response."""
        return self._answer(request, self._patience, _object)

    def text(self, request: ApiRequest, patience: RetryPolicy | None = None) -> str:
        """Send a request; return the text of the response."""
        return self._answer(request, patience or self._patience, _text)

    @contextmanager
    def stream(self, request: ApiRequest, silent_seconds: float) -> Iterator[Iterator[bytes]]:
        """Stream the parts of a response as they arrive, without retries."""
        access = self._access
        timeout = urllib3.Timeout(connect=self._patience.connect_seconds, read=silent_seconds)
        with self._translate_errors(request.operation, access):
            response = self._send(access, request, timeout, whole=False)
            try:
                if response.status >= 300:
                    raise from_response(request.operation, response.status, response.read())
                yield response.stream(2**16)
            finally:
                response.close()

    def _answer(
        self, request: ApiRequest, patience: RetryPolicy, read: Callable[[bytes], T | None]
    ) -> T:
        """Send a request with retries; return what ``read`` makes of a good response.

        ``read`` returns None for a response that is not an API server's.
        """
        ends = time.monotonic() + patience.seconds
        renewed = False
        attempt = 0
        while True:
            attempt += 1
            access = self._access
            retry_after = 0.0
            left = max(_LEAST, ends - time.monotonic())
            timeout = urllib3.Timeout(
                connect=patience.connect_seconds, read=min(patience.silent_seconds, left)
            )
            try:
                with self._translate_errors(request.operation, access):
                    response = self._send(access, request, timeout, whole=True)
                if response.status < 300:
                    found = read(response.data)
                    if found is not None:
                        return found
                    why = "what answers there is not a Kubernetes API server"
                    problem = unreachable(request.operation, access.server, why)
                else:
                    problem = from_response(request.operation, response.status, response.data)
                    retry_after = _seconds(response)
            except ClusterError as error:
                problem = error
            if problem.code in ("Unauthorized", "CertificateInvalid") and not renewed:
                # Tokens and certificates are rotated while this process is running.
                renewed = True
                self._renew(access)
                continue
            wait = patience.wait(attempt, retry_after)
            late = time.monotonic() + wait >= ends
            if not problem.transient or attempt >= patience.attempts or late:
                raise problem
            time.sleep(wait)

    def _renew(self, used: ClusterAccess) -> None:
        with self._lock:
            if self._access is used:
                self._access = accesses.connect(self._cluster)

    @staticmethod
    def _send(
        access: ClusterAccess, request: ApiRequest, timeout: urllib3.Timeout, *, whole: bool
    ) -> urllib3.BaseHTTPResponse:
        headers = {"accept": "application/json, */*", "user-agent": "modelyard"}
        return access.pool.request(
            request.method,
            access.server + request.target(),
            json=request.body,
            headers={**headers, **access.headers()},
            timeout=timeout,
            retries=False,
            redirect=False,
            preload_content=whole,
        )

    @staticmethod
    @contextmanager
    def _translate_errors(operation: ApiOperation, access: ClusterAccess) -> Iterator[None]:
        """Translate connection errors to a ``ClusterError``."""
        try:
            yield
        except SSLError as error:
            reason = str(error)
            if any(word in reason for word in _BROKEN_OFF):
                raise unreachable(operation, access.server, "it broke off") from None
            raise untrusted(operation, access.server, reason) from None
        except HTTPError as error:
            raise unreachable(operation, access.server, _why(error)) from None


def _why(error: HTTPError) -> str:
    if isinstance(error, NewConnectionError):  # such as: no such host, connection refused
        return str(error).rpartition("] ")[2] or "no connection"
    if isinstance(error, ConnectTimeoutError):
        return "no connection in time"
    return "it fell silent" if isinstance(error, ReadTimeoutError) else "it broke off"


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _text(body: bytes) -> str:
    return body.decode(errors="replace")


def _seconds(response: urllib3.BaseHTTPResponse) -> float:
    """Parse ``Retry-After`` in seconds; a date is ignored."""
    text = response.headers.get("retry-after", "")
    return float(text) if text.isdigit() else 0.0
