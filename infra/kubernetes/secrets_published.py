"""Facts about Secrets in a Prefect variable: their names and the names of their keys.

The Job that deploys publishes them for accounts that may not read Secrets.
"""

from __future__ import annotations

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import VariableCreate, VariableUpdate
from pydantic import TypeAdapter, ValidationError

from infra.kubernetes.secret_checks import SecretFacts, Secrets

VARIABLE = "modelyard_secrets_of_runs"
_FACTS = TypeAdapter(dict[str, SecretFacts | None])


async def publish(client: PrefectClient, secrets: Secrets) -> None:
    """Publish facts about Secrets, replacing earlier ones."""
    value = _FACTS.dump_python(dict(secrets), mode="json")
    if await client.read_variable_by_name(VARIABLE) is None:
        await client.create_variable(VariableCreate(name=VARIABLE, value=value))
    else:
        await client.update_variable(VariableUpdate(name=VARIABLE, value=value))


async def read(client: PrefectClient) -> Secrets:
    """Read the facts of the last deployment; empty if none were published."""
    found = await client.read_variable_by_name(VARIABLE)
    try:
        return _FACTS.validate_python(found.value) if found else {}
    except ValidationError:  # of another release
        return {}
