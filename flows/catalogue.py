"""Every flow that people start, declared once, and how it is registered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.utilities.callables import parameter_schema

from flows import placing
from flows.lifecycle import LifecycleFlow
from flows.pipeline_cleanup import pipeline_artifacts_cleanup
from flows.pipeline_run import pipeline_run
from flows.training import train
from flows.tuning import tune
from infra import site, work_pools
from infra.errors import NotFoundError
from registry import pipelines
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
        chosen: Chooses among several deployments, by a run's parameters; None if there is one.
    """

    flow: LifecycleFlow[..., Any]
    entrypoint: str
    pool: str
    tags: tuple[str, ...]
    concurrency_limit: int | None = None

    chosen: Callable[[Mapping[str, Any]], str] | None = None

    def deployment(self, parameters: Mapping[str, Any]) -> str:
        """The deployment that a run with these parameters is one of."""
        return self.chosen(parameters) if self.chosen else self.name

    def checked(self, given: dict[str, Any]) -> dict[str, Any]:
        """Parameters for a run in the pool, as Prefect is to get them.

        Where the pool is a cluster's, they are checked as far as this machine can tell, and
        against what the cluster can give.

        Raises:
            ModelyardError: If they are refused. Needs a connection.
        """
        with self.where_it_runs():
            complete = self.flow.checked(given)
            if site.is_elsewhere():
                placing.check(self.name, complete, lambda flow: entry(flow).pool)
        return complete

    def where_it_runs(self) -> AbstractContextManager[None]:
        """Check, for the while, what a run in the pool needs: here, or elsewhere."""
        return site.elsewhere() if work_pools.is_remote(self.pool) else nullcontext()

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
        chosen=lambda given: pipelines.deployment_of(str(given["pipeline"])),
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


def form(flow: LifecycleFlow[..., Any]) -> dict[str, Any]:
    """The schema of the flow's form, with the fields of groups in their order as well."""
    schema = parameter_schema(flow.fn).model_dump_for_openapi()
    for group in schema.get("definitions", {}).values():
        for position, field in enumerate(group.get("properties", {}).values()):
            field["position"] = position  # the database keeps no order of keys
    return {**schema, "additionalProperties": False}


async def register(
    client: PrefectClient,
    declared: Entry,
    name: str,
    schema: dict[str, Any],
    *,
    description: str = "",
    tags: tuple[str, ...] = (),
    parameters: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Make a deployment of a flow what it is to be, whether or not it is there.

    Args:
        client: Prefect's.
        declared: The flow.
        name: The deployment's.
        schema: Its form's.
        description: Its description; the flow's if empty.
        tags: Further tags.
        parameters: What its runs are told unless they are told otherwise.

    Returns:
        ``flow/deployment``.
    """
    flow_id = await client.create_flow_from_name(declared.name)
    await client.create_deployment(
        flow_id=flow_id,
        name=name,
        description=description or (declared.flow.description or "").strip(),
        entrypoint=declared.entrypoint,
        pull_steps=[],
        work_pool_name=declared.pool,
        tags=[*declared.tags, *tags],
        concurrency_limit=declared.concurrency_limit,
        parameter_openapi_schema=schema,
        enforce_parameter_schema=True,
        parameters=dict(parameters),
    )
    return f"{declared.name}/{name}"
