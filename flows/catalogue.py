"""Catalogue of the flows, and the registration of their deployments."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from prefect.client.orchestration import PrefectClient

from flows.flow_results import FlowResult
from flows.lifecycle import LifecycleFlow
from infra.errors import NotFoundError
from infra.suggestions import did_you_mean
from registry import flow_kinds
from registry.runs import run_tags
from schedules.editing import ScheduleSpec

# Each is imported when it is asked for: what one of them needs takes seconds, and a command or
# a pod has to do with one at most.
FLOWS = {
    flow_kinds.TRAIN.name: "flows.training:train",
    flow_kinds.TUNE.name: "flows.tuning:tune",
    flow_kinds.PIPELINE_RUN.name: "flows.pipeline_run:pipeline_run",
    flow_kinds.BATCH_INFERENCE.name: "flows.batch_inference:batch_inference",
    flow_kinds.EVALUATE.name: "flows.evaluation:evaluate",
    flow_kinds.PIPELINE_CLEANUP.name: "flows.pipeline_cleanup:pipeline_artifacts_cleanup",
}

# The schedules that every stack has, unless a user stops them.
SCHEDULES = (
    ScheduleSpec(
        name=flow_kinds.PIPELINE_CLEANUP.name,
        deployment=flow_kinds.PIPELINE_CLEANUP.name,
        description="Removes old artifacts of pipeline runs: see "
        "MODELYARD_PIPELINE_ARTIFACT_DAYS, or the parameter days.",
        trigger={"cron": "0 30 3 * * *"},
        policy={"catchup": "latest"},
    ),
)


def names() -> list[str]:
    """The names of all flows."""
    return list(FLOWS)


def load_all() -> list[LifecycleFlow[..., Any]]:
    """Import all flows."""
    return [find(name) for name in FLOWS]


def find(name: str) -> LifecycleFlow[..., Any]:
    """Find the flow ``name``.

    Raises:
        NotFoundError: If it does not exist.
    """
    if name not in FLOWS:
        raise NotFoundError(
            f"Unknown flow {name!r}.",
            f"{did_you_mean(name, FLOWS)} Known are: {', '.join(sorted(FLOWS))}.".lstrip(),
        )
    flow: LifecycleFlow[..., Any] = pkgutil.resolve_name(FLOWS[name])
    return flow


def result_type(name: str) -> type[FlowResult]:
    """The type of a flow's results; that of any flow where it is not one of these."""
    found: type[FlowResult] = find(name).spec.result if name in FLOWS else FlowResult
    return found


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
        tags=[*flow.spec.tags, *tags, run_tags.NO_MLFLOW_RUN],
        concurrency_limit=flow.spec.concurrency_limit,
        parameter_openapi_schema=schema,
        enforce_parameter_schema=True,
        parameters=dict(parameters),
    )
    return f"{flow.name}/{name}"
