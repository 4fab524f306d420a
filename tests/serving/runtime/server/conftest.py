"""An application with models, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest
from modelyard_runtime.server.application import Application
from modelyard_runtime.server.hosted_model import HostedModel
from modelyard_runtime.server.served_models import ServedModels

from tests.serving.runtime.server import served

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
