"""What the Job that deploys saw of the Secrets of runs, for those who may not look at them.

It is a variable of Prefect's, with the names of Secrets and of their keys.
"""

from __future__ import annotations

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import VariableCreate, VariableUpdate
from pydantic import TypeAdapter, ValidationError

from infra.kubernetes.secret_checks import SecretFacts, Secrets

VARIABLE = "modelyard_secrets_of_runs"
_FACTS = TypeAdapter(dict[str, SecretFacts | None])


async def publish(client: PrefectClient, secrets: Secrets) -> None:
    """Say what was seen, instead of what was said before."""
    value = _FACTS.dump_python(dict(secrets), mode="json")
    if await client.read_variable_by_name(VARIABLE) is None:
        await client.create_variable(VariableCreate(name=VARIABLE, value=value))
    else:
        await client.update_variable(VariableUpdate(name=VARIABLE, value=value))


async def read(client: PrefectClient) -> Secrets:
    """What was seen at the last deployment; empty if nothing was said."""
    found = await client.read_variable_by_name(VARIABLE)
    try:
        return _FACTS.validate_python(found.value) if found else {}
    except ValidationError:  # of another release
        return {}
