"""Uploaded pipelines: each version is a deployment whose form has the pipeline's arguments."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect.client.orchestration import PrefectClient, get_client
from prefect.utilities.asyncutils import run_coro_as_sync

from flows import catalogue
from flows.pipeline_run import pipeline_run
from infra.errors import ConflictError, ModelyardError
from pipelines import arguments, reading, validation
from pipelines.pipeline import Pipeline
from registry import names
from registry.pipelines import pipeline_removal, pipelines
from registry.pipelines.pipeline_views import PipelineView
from registry.pipelines.pipelines import Version
from schedules import macros

_MOST_NAMED = 5
_LONGEST_REASON = 500


def upload(file: Path, name: str = "", description: str = "", about: str = "") -> PipelineView:
    """Store a compiled pipeline as a new version, and register its deployment.

    A file that equals the newest version makes no new one.

    Args:
        file: A pipeline compiled by the KFP SDK: YAML, or a zip.
        name: The pipeline's name; the compiled one if empty. An existing pipeline gets another
            version.
        description: The pipeline's description; not changed if empty.
        about: The description of this version.

    Returns:
        The pipeline, as ``modelyard pipeline show`` has it.

    Raises:
        BadInputError: If the file is not a valid pipeline, with every fault; or if the name or a
            description is invalid.
        ConflictError: If a schedule takes the newest version and could not start this one, with
            the code ``HasSchedule``; or if a flow has the name, with the code ``NameTaken``.
    """
    data = reading.contents(file)
    pipeline = reading.read_bytes(data, file.name)
    validation.check(pipeline)
    name = name or pipeline.name
    pipelines.check_name(name)
    names.check_description(description)
    names.check_description(about)
    if name in catalogue.names():
        raise ConflictError(
            f"There is a flow {name!r}.", "Choose another name: --name.", code="NameTaken"
        )
    with pipelines.upload_lock(name):
        _check_schedules(name, pipeline)
        version = pipelines.add(
            name, data, file.name, pipeline.digest, description=description, about=about
        )
        if version.state != pipelines.ACTIVE:
            run_coro_as_sync(_registered(version, pipeline))  # in a coroutine as well
    if description:
        pipelines.describe(name, description)
    return pipelines.show(name)


def _check_schedules(name: str, pipeline: Pipeline) -> None:
    """Refuse a newest version that a schedule, which takes the newest, could not start."""
    wrong: dict[str, str] = {}
    for schedule, given in pipeline_removal.followers(name).items():
        filled = macros.fill(given.get("arguments") or {}, datetime.now(UTC))
        try:
            arguments.arguments(pipeline, filled)
        except ModelyardError as error:
            wrong[schedule] = error.message
    if wrong:
        first, why = next(iter(wrong.items()))
        more = ", ".join(list(wrong)[:_MOST_NAMED])
        raise ConflictError(
            f"Schedules take the newest version of {name}, and could not start this one: {more}. "
            f"{first}: {why}",
            f"Have it keep to a version: modelyard schedule update {first} --deployment "
            f"{name}:NUMBER.",
            code="HasSchedule",
        )


async def _registered(version: Version, pipeline: Pipeline) -> None:
    async with get_client() as client:
        await _register(client, version, pipeline)


async def _register(client: PrefectClient, version: Version, pipeline: Pipeline) -> str:
    """Register the deployment of a version."""
    pipelines.note(version)
    try:
        made = await catalogue.register(
            client, pipeline_run, version.reference, form(version.reference, pipeline),
            description=version.description or str(pipeline.spec.pipeline_info.description),
            tags=(f"pipeline:{version.name}",), parameters={"pipeline": version.reference},
        )  # fmt: skip
    except Exception as error:
        pipelines.note(version, error=f"{type(error).__name__}: {error}"[:_LONGEST_REASON])
        raise
    pipelines.note(version, registered=True)
    return made


async def register_all(client: PrefectClient) -> list[str]:
    """Register every version that can be read; their deployments.

    A version that cannot be read, because an earlier release accepted it, is marked with the
    reason.
    """
    made = []
    for version in pipelines.every():
        try:
            pipeline = reading.read_bytes(*pipelines.compiled(version.reference))
        except ModelyardError as error:
            pipelines.note(version, error=str(error)[:_LONGEST_REASON])
        else:
            made.append(await _register(client, version, pipeline))
    return made


def form(reference: str, pipeline: Pipeline) -> dict[str, Any]:
    """The schema of the form of a version: that of the flow, with the pipeline's own arguments."""
    schema = pipeline_run.form
    fields = schema["properties"]
    own = arguments.form(pipeline)
    fields["pipeline"] |= {"enum": [reference], "default": reference}
    fields["arguments"] = {
        **own,
        "title": "arguments",
        "position": fields["arguments"]["position"],
        "description": "The pipeline's own inputs.",
    }
    if own["required"]:
        schema["required"] = [*schema.get("required", []), "arguments"]
    else:
        fields["arguments"]["default"] = {}
    return schema
