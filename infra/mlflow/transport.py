"""HTTP requests to MLflow: credentials, and retries of transient failures."""

from __future__ import annotations

import base64
import functools
import os
import random
import ssl
import time
from collections.abc import Mapping
from typing import Any

import httpx

from infra.door import credential
from infra.http_status import is_retryable
from infra.mlflow.errors import MlflowException

# MLflow's own variables and defaults.
_RETRIES = ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", 7)
_BACKOFF = ("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", 2)
_TIMEOUT = ("MLFLOW_HTTP_REQUEST_TIMEOUT", 120)
_TOKEN = "MLFLOW_TRACKING_TOKEN"  # noqa: S105 (a variable's name)
_INSECURE = "MLFLOW_TRACKING_INSECURE_TLS"
_AUTHORITIES = ("MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE")
_LONGEST_PAUSE_SECONDS = 120.0
_CODES = {400: "BAD_REQUEST", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND"}


def send(method: str, url: str, *, stream: bool = False, **request: Any) -> httpx.Response:
    """Send a request, and again after a transient failure; the answer.

    Args:
        method: The HTTP method.
        url: The whole address.
        stream: Whether the caller reads the answer's content, and closes it.
        request: Of :meth:`httpx.Client.build_request`; its ``content`` is a file, which each
            attempt reads from its start.

    Raises:
        MlflowException: If MLflow does not answer, or refuses the request.
    """
    retries = _setting(_RETRIES)
    content = request.get("content")
    for attempt in range(retries + 1):
        if content is not None:
            content.seek(0)
        try:
            client = _client(url)
            answer = client.send(client.build_request(method, url, **request), stream=stream)
            if not answer.is_success:
                answer.read()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            failure = MlflowException(f"The request to {url} failed: {error or type(error)}")
        else:
            if answer.is_success:
                return answer
            failure = _refusal(answer)
        if not is_retryable(failure.status_code) or attempt == retries:
            break
        time.sleep(_pause(attempt))
    raise failure


def _pause(attempt: int) -> float:
    """Seconds before a retry: none before the first one, which a stale connection needs."""
    if attempt == 0:
        return 0.0
    pause = _setting(_BACKOFF) * 2.0**attempt
    return min(pause + random.random(), _LONGEST_PAUSE_SECONDS)


def _setting(setting: tuple[str, int]) -> int:
    name, default = setting
    return int(os.environ.get(name) or default)


def _authorization() -> str:
    user = os.environ.get(credential.MLFLOW_USER, "")
    password = os.environ.get(credential.MLFLOW_PASSWORD, "")
    if user and password:
        return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
    token = os.environ.get(_TOKEN, "")
    return f"Bearer {token}" if token else ""


def _client(url: str) -> httpx.Client:
    """The connections of this process to the server of ``url``; a fork has its own."""
    return _connections(os.getpid(), _authorization(), secure=url.startswith("https:"))


@functools.lru_cache(maxsize=4)
def _connections(_: int, authorization: str, *, secure: bool) -> httpx.Client:
    return httpx.Client(
        headers={"Authorization": authorization} if authorization else {},
        timeout=float(_setting(_TIMEOUT)),
        limits=httpx.Limits(max_keepalive_connections=1),  # it asks one thing after the other
        verify=_verify() if secure else False,  # loading the authorities takes 20 ms
    )


def _verify() -> ssl.SSLContext | bool:
    if os.environ.get(_INSECURE, "").lower() in {"true", "1"}:
        return False
    file = next(filter(None, (os.environ.get(name) for name in _AUTHORITIES)), None)
    return ssl.create_default_context(cafile=file) if file else True


def _refusal(answer: httpx.Response) -> MlflowException:
    try:
        found = answer.json()
    except ValueError:
        found = None
    code = _CODES.get(answer.status_code, "INTERNAL_ERROR")
    if isinstance(found, Mapping):
        told = str(found.get("message", answer.text))
        return MlflowException(
            f"{found.get('error_code', code)}: {told}",
            str(found.get("error_code", code)),
            answer.status_code,
        )
    reason = f"MLflow answers with status {answer.status_code}: {answer.text[:500]}"
    return MlflowException(reason, code, answer.status_code)
