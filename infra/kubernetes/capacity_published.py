"""Capacity of a cluster in a Prefect variable per pool.

The pool's workers publish it for processes that cannot reach the cluster.
"""

from __future__ import annotations

import json
import logging
import re

from prefect.client.orchestration import PrefectClient, SyncPrefectClient
from prefect.client.schemas.actions import VariableCreate, VariableUpdate
from pydantic import ValidationError

from infra.kubernetes.capacity import Capacity

_LONGEST = 5000  # characters that Prefect takes as the JSON of a variable
_logger = logging.getLogger(__name__)


def variable(pool: str) -> str:
    """Return the name of a pool's variable."""
    return f"modelyard_capacity_{re.sub('[^a-z0-9_-]', '_', pool.lower())}"


async def publish(client: PrefectClient, pool: str, capacity: Capacity) -> None:
    """Publish the capacity of a pool's cluster, if it has changed.

    Where there are more kinds of nodes than a variable holds, they are left out: the cluster
    itself then judges what no node is large enough for.
    """
    value = capacity.model_dump(mode="json", exclude_defaults=True)
    if len(json.dumps(value)) > _LONGEST:
        value = {name: told for name, told in value.items() if name != "nodes"}
    name = variable(pool)
    found = await client.read_variable_by_name(name)
    if found is None:
        await client.create_variable(VariableCreate(name=name, value=value))
    elif found.value != value:
        await client.update_variable(VariableUpdate(name=name, value=value))


def read(client: SyncPrefectClient, pool: str) -> Capacity | None:
    """Read the capacity of a pool's cluster; None if no worker has published it."""
    found = client.read_variable_by_name(variable(pool))
    if found is None:
        return None
    try:
        return Capacity.model_validate(found.value)
    except ValidationError as error:  # of a worker of another release: the cluster judges itself
        _logger.warning("The variable %s cannot be read: %s", found.name, error)
        return None
