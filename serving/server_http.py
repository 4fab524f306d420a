"""Requests to a server of models, and its answers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from infra.workloads.redaction import redactor

_CONNECT_SECONDS = 10.0
_SHOWN = 500


@dataclass(frozen=True)
class ServedModel:
    """A model on a server.

    Attributes:
        url: The server's address.
        registered: The registered model's name.
        name: The model's name there; "" for the registered model's, or OpenAI's first one.
        token: A bearer token, or the reference to its secret; "" if the server asks for none.
        start_seconds: How long it may take to be ready: to start, and to load the model.
        is_restarted: Whether it is started again if it ends, so that it is ready again then.
    """

    url: str
    registered: str
    name: str = ""
    token: str = ""
    start_seconds: float = 120.0
    is_restarted: bool = False


@dataclass(frozen=True)
class ServerAnswer:
    """An answer of a server.

    Attributes:
        status: Its HTTP status.
        data: Its body.
        headers: Its headers, with names in lower case.
        token: What it was asked with, which a refusal must not repeat.
    """

    status: int
    data: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    token: str = ""

    @property
    def is_ok(self) -> bool:
        """Whether the request was granted."""
        return self.status == httpx.codes.OK

    @property
    def retry_after(self) -> float:
        """So many seconds it wants to be left alone; 0 if it does not say."""
        with contextlib.suppress(ValueError):
            return float(self.headers.get("retry-after", ""))
        return 0.0

    def parsed(self) -> Any:
        """The body's JSON.

        Raises:
            ValueError: If it is none.
        """
        return json.loads(self.data)

    @property
    def reason(self) -> str:
        """What a refusal says, in any of the forms that servers have; without the token."""
        shown = self.data.decode(errors="replace")
        with contextlib.suppress(ValueError, AttributeError):
            body = json.loads(self.data)
            told = body.get("error") or body.get("detail") or body.get("message")
            if told:
                shown = str(told.get("message") if isinstance(told, dict) else told)
        return redactor([self.token])(shown)[:_SHOWN]


def open_client(served: ServedModel) -> httpx.Client:
    """A client for a server's address, with its token; nothing is connected yet.

    Raises:
        ValueError: If no header can carry the token.
    """
    token = served.token.strip()
    if not (token.isascii() and token.isprintable()):
        raise ValueError("The server's token has characters that no header can carry.")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.Client(base_url=served.url.rstrip("/"), headers=headers, timeout=_CONNECT_SECONDS)


def answer_of(client: httpx.Client, response: httpx.Response, data: bytes) -> ServerAnswer:
    """The answer whose body is ``data``."""
    token = str(client.headers.get("Authorization", "")).removeprefix("Bearer ")
    headers = {name.lower(): value for name, value in response.headers.items()}
    return ServerAnswer(response.status_code, data, headers, token)


def ask(client: httpx.Client, path: str, *, body: Any = None) -> ServerAnswer:
    """GET a path, or POST a body of JSON there.

    Raises:
        httpx.TransportError: If the server is away.
    """
    found = client.get(path) if body is None else client.post(path, json=body)
    return answer_of(client, found, found.content)
