"""An application with models, and a client of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest
from modelyard_runtime.server.application import Application
from modelyard_runtime.server.hosted_model import HostedModel
from modelyard_runtime.server.http2_connection import Http2Connection
from modelyard_runtime.server.http2_requests import ConnectionLimits
from modelyard_runtime.server.served_models import ServedModels

from tests.serving.runtime.server import http2_client, served

Client = httpx.AsyncClient
Open = Callable[..., Awaitable[Client]]


@pytest.fixture(autouse=True)
def modules() -> Iterator[None]:
    with served.forgotten_scripts():
        yield


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def iris() -> Any:
    return served.iris()


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    """Make a client of an application with these models, loaded unless they are ``late``."""
    made: list[Client] = []
    models: list[HostedModel] = []

    async def make(
        *given: HostedModel, late: tuple[HostedModel, ...] = (), **options: Any
    ) -> Client:
        for model in given:
            await model.load()
        models.extend(given)
        application = Application(ServedModels([*given, *late]), **options)
        transport = httpx.ASGITransport(application, raise_app_exceptions=False)
        made.append(Client(transport=transport, base_url="http://server"))
        return made[-1]

    yield make
    for client in made:
        await client.aclose()
    for model in models:
        model.close()


@pytest.fixture
def handler() -> http2_client.Handler:
    return http2_client.Handler()


@pytest.fixture
def connections() -> set[Http2Connection]:
    return set()


@pytest.fixture
async def connect(
    handler: http2_client.Handler, connections: set[Http2Connection]
) -> AsyncIterator[http2_client.Connect]:
    """Make a client of a server."""
    servers, writers = [], []

    async def make(*frames: bytes, **limits: Any) -> http2_client.Client:
        found: dict[str, Any] = {"body_bytes": http2_client.MOST_BODY, **limits}
        bounds = ConnectionLimits(**found)
        server = await asyncio.get_running_loop().create_server(
            lambda: Http2Connection(handler, bounds, connections), "127.0.0.1", 0
        )
        servers.append(server)
        port = server.sockets[0].getsockname()[1]
        client = http2_client.Client(*await asyncio.open_connection("127.0.0.1", port))
        writers.append(client.writer)
        client.send(*frames)
        return client

    yield make
    for writer in writers:
        writer.close()
    for server in servers:
        server.close()
