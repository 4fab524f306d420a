"""Who may ask the server."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from modelyard_runtime.server.admission import Admission

pytestmark = pytest.mark.anyio


class _Echo:
    """Answers with the request's authorization."""

    is_draining = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        found = dict(scope["headers"]).get(b"authorization", b"none")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": found})


async def _ask(
    admission: Admission, headers: dict[str, str], method: str = "POST", path: str = "/score"
) -> httpx.Response:
    transport = httpx.ASGITransport(admission)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:5001") as client:
        return await client.request(method, path, headers=headers)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "127.0.0.1"}, 200),
        ({"host": "[::1]:5001"}, 200),
        ({"host": "127.0.0.2:5001"}, 200),
        ({"host": "127.1.2.3", "origin": "http://127.1.2.3"}, 200),
        ({"host": "127.0.0.2", "origin": "http://127.0.0.1"}, 403),
        ({"host": "127.0.0.2.evil.example"}, 403),
        ({"host": "0.0.0.0"}, 403),
        ({"host": "128.0.0.1"}, 403),
        ({"host": ""}, 403),
        ({"host": "localhost:5001", "origin": "http://localhost:5001"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "localhost.evil.example"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:1"}, 403),
    ],
)
async def test_without_a_token_only_this_machine_asks(
    headers: dict[str, str], status: int
) -> None:
    response = await _ask(Admission(_Echo(), key="message"), headers)

    assert response.status_code == status
    if status != 200:
        assert list(response.json()) == ["message"]


@pytest.mark.parametrize(
    ("headers", "method", "path", "status"),
    [
        ({"authorization": "Bearer secret"}, "POST", "/score", 200),
        ({"authorization": "Bearer secret", "host": "model.example"}, "POST", "/score", 200),
        ({"authorization": "bearer secret"}, "GET", "/score", 200),
        ({"authorization": "Bearer secrets"}, "POST", "/score", 401),
        ({"authorization": "Basic secret"}, "POST", "/score", 401),
        ({"authorization": "Bearer \xe9"}, "POST", "/score", 401),
        ({}, "POST", "/score", 401),
        ({}, "OPTIONS", "/score", 401),
        ({}, "GET", "/", 200),
        ({}, "POST", "/", 401),
        ({}, "GET", "/v2/health/ready", 200),
        ({}, "GET", "/my model/v2/health/ready", 200),
        ({}, "GET", "/other/v2/health/ready", 401),
        ({"authorization": "Bearer secret", "origin": "http://evil.example"}, "GET", "/", 403),
    ],
)
async def test_with_a_token_who_has_it_asks(
    headers: dict[str, str], method: str, path: str, status: int
) -> None:
    raw: Any = {name: value.encode("latin-1") for name, value in headers.items()}
    response = await _ask(Admission(_Echo(), "secret", prefixes=["/my model"]), raw, method, path)

    assert response.status_code == status
    if status == 200:
        assert response.text == "none"  # the application never sees the token


async def test_origins_that_are_let_in() -> None:
    admission = Admission(_Echo(), "secret", ["https://a.example"])
    origin = {"origin": "https://a.example"}

    assert (await _ask(admission, origin, "OPTIONS")).status_code == 200
    assert (await _ask(admission, origin)).status_code == 401
    assert (await _ask(admission, {**origin, "authorization": "Bearer secret"})).status_code == 200


async def test_headers_that_occur_twice_are_refused() -> None:
    transport = httpx.ASGITransport(Admission(_Echo()))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        headers = [("host", "localhost"), ("host", "evil.example")]
        assert (await client.get("/score", headers=headers)).status_code == 400


def test_it_drains_with_its_application() -> None:
    echo = _Echo()
    admission = Admission(echo)
    admission.is_draining = True

    assert echo.is_draining
    assert admission.is_draining
