from __future__ import annotations

import asyncio

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import VariableUpdate

from infra.kubernetes import secrets_published
from infra.kubernetes.secret_checks import SecretFacts, Secrets

pytestmark = pytest.mark.usefixtures("prefect_api")

FIRST: Secrets = {"keys": SecretFacts(type="Opaque", keys=frozenset({"a", "b"})), "gone": None}
SECOND: Secrets = {"keys": SecretFacts(keys=frozenset({"a"}))}


def test_the_last_that_was_said_is_read() -> None:
    async def tell() -> None:
        async with get_client() as client:
            for secrets in (FIRST, SECOND, FIRST):
                await secrets_published.publish(client, secrets)
                assert await secrets_published.read(client) == secrets
            strange = VariableUpdate(name=secrets_published.VARIABLE, value=["of another release"])
            await client.update_variable(strange)
            assert await secrets_published.read(client) == {}

    asyncio.run(tell())
