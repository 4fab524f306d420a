"""Every flow that people start, and how it is registered."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from prefect.client.orchestration import PrefectClient

from flows.lifecycle import LifecycleFlow
from flows.pipeline_cleanup import pipeline_artifacts_cleanup
from flows.pipeline_run import pipeline_run
from flows.training import train
from flows.tuning import tune
from infra.errors import NotFoundError
from schedules.editing import Written

FLOWS: tuple[LifecycleFlow[..., Any], ...] = (
    train,
    tune,
    pipeline_run,
    pipeline_artifacts_cleanup,
)

# The schedules that every stack has, unless a user stops them.
SCHEDULES = (
    Written(
        name=pipeline_artifacts_cleanup.name,
        deployment=pipeline_artifacts_cleanup.name,
        description="Artifacts of pipeline runs are removed when they are old: "
        "MODELYARD_PIPELINE_ARTIFACT_DAYS, or the parameter days.",
        trigger={"cron": "0 30 3 * * *"},
        policy={"catchup": "latest"},
    ),
)
_BY_NAME = {flow.name: flow for flow in FLOWS}


def names() -> list[str]:
    """The names of all flows."""
    return list(_BY_NAME)


def find(name: str) -> LifecycleFlow[..., Any]:
    """The flow ``name``.

    Raises:
        NotFoundError: If there is none.
    """
    try:
        return _BY_NAME[name]
    except KeyError:
        raise NotFoundError(
            f"There is no flow {name!r}.", f"There are: {', '.join(sorted(_BY_NAME))}."
        ) from None


async def register(
    client: PrefectClient,
    flow: LifecycleFlow[..., Any],
    name: str,
    schema: dict[str, Any],
    *,
    description: str = "",
    tags: tuple[str, ...] = (),
    parameters: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Create or update a deployment of a flow.

    Args:
        client: Prefect's client.
        flow: The flow.
        name: The deployment's name.
        schema: The JSON schema of its form.
        description: Its description; the flow's if empty.
        tags: Tags beside the flow's.
        parameters: The default parameters of its runs.

    Returns:
        ``flow/deployment``.
    """
    flow_id = await client.create_flow_from_name(flow.name)
    await client.create_deployment(
        flow_id=flow_id,
        name=name,
        description=description or (flow.description or "").strip(),
        entrypoint=flow.entrypoint,
        pull_steps=[],
        work_pool_name=flow.spec.pool,
        tags=[*flow.spec.tags, *tags],
        concurrency_limit=flow.spec.concurrency_limit,
        parameter_openapi_schema=schema,
        enforce_parameter_schema=True,
        parameters=dict(parameters),
    )
    return f"{flow.name}/{name}"
