"""Every deployment, declared once, and their registration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prefect.client.orchestration import PrefectClient, get_client
from prefect.utilities.callables import parameter_schema

from flows.lifecycle import LifecycleFlow
from flows.pipeline_cleanup import pipeline_artifacts_cleanup
from flows.pipeline_run import pipeline_run
from flows.training import train
from flows.tuning import tune
from infra import home as homes
from infra import work_pools
from infra.errors import NotFoundError
from registry import catalogue
from schedules import builtin
from schedules.editing import Written


@dataclass(frozen=True)
class Entry:
    """A flow as people start it.

    Attributes:
        flow: The flow.
        entrypoint: Where a worker imports it from.
        pool: The work pool that runs it.
        tags: What the UI groups it by.
        concurrency_limit: How many may run at once; None for as many as the pool takes.
    """

    flow: LifecycleFlow[..., Any]
    entrypoint: str
    pool: str
    tags: tuple[str, ...]
    concurrency_limit: int | None = None

    @property
    def name(self) -> str:
        """The flow's name, which is the deployment's as well."""
        return self.flow.name


ENTRIES = (
    Entry(train, "flows.training.train", "gpu", ("modelyard", "training")),
    Entry(tune, "flows.tuning.tune", "cpu", ("modelyard", "tuning")),
    Entry(
        pipeline_run,
        "flows.pipeline_run.pipeline_run",
        "cpu",
        ("modelyard", "pipeline"),
    ),
    Entry(
        pipeline_artifacts_cleanup,
        "flows.pipeline_cleanup.pipeline_artifacts_cleanup",
        "cpu",
        ("modelyard", "pipeline"),
        concurrency_limit=1,
    ),
)

# What runs by itself, unless somebody stops it.
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
_BY_NAME = {entry.name: entry for entry in ENTRIES}


def entry(name: str) -> Entry:
    """The entry of the flow ``name``.

    Raises:
        NotFoundError: If there is none.
    """
    try:
        return _BY_NAME[name]
    except KeyError:
        raise NotFoundError(
            f"There is no flow {name!r}.", f"There are: {', '.join(sorted(_BY_NAME))}."
        ) from None


def _form(flow: LifecycleFlow[..., Any]) -> dict[str, Any]:
    """The schema of the flow's form, with the fields of groups in their order as well."""
    schema = parameter_schema(flow.fn).model_dump_for_openapi()
    for group in schema.get("definitions", {}).values():
        for position, field in enumerate(group.get("properties", {}).values()):
            field["position"] = position  # the database keeps no order of keys
    return {**schema, "additionalProperties": False}


async def _register(client: PrefectClient, declared: Entry) -> str:
    flow_id = await client.create_flow_from_name(declared.name)
    await client.create_deployment(
        flow_id=flow_id,
        name=declared.name,
        description=(declared.flow.description or "").strip(),
        entrypoint=declared.entrypoint,
        pull_steps=[],
        work_pool_name=declared.pool,
        tags=list(declared.tags),
        concurrency_limit=declared.concurrency_limit,
        parameter_openapi_schema=_form(declared.flow),
        enforce_parameter_schema=True,
    )
    return f"{declared.name}/{declared.name}"


async def deploy() -> dict[str, list[str]]:
    """Bring the catalogue's database, the pools and the deployments up to date.

    Returns:
        ``{"pools": [...], "deployments": [...]}``. Twice is no change.
    """
    catalogue.migrate()
    async with get_client() as client:
        pools = await work_pools.register(client, homes.current())
        deployments = [await _register(client, declared) for declared in ENTRIES]
    builtin.ensure(SCHEDULES)
    return {"pools": pools, "deployments": deployments}
