"""Uploaded pipelines: each version is a deployment whose form has the pipeline's arguments."""

from __future__ import annotations

import contextlib
import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import Any

from prefect.client.orchestration import PrefectClient, get_client
from prefect.utilities.asyncutils import run_coro_as_sync

from flows import catalogue
from flows.pipeline_run import pipeline_run
from infra.errors import ConflictError, ModelyardError, NotFoundError
from pipelines import arguments, reading, validation
from pipelines.pipeline import Pipeline
from registry import names
from registry.notifications import notifications
from registry.pipelines import pipeline_removal, pipeline_rename, pipelines
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
    _check_no_flow(name, "Choose another name: --name.")
    with pipelines.upload_lock(name):
        _check_schedules(name, pipeline)
        version = pipelines.add(
            name, data, file.name, pipeline.digest, description=description, about=about
        )
        if version.state != pipelines.PipelineState.ACTIVE:
            run_coro_as_sync(_registered(version, pipeline))  # in a coroutine as well
    if description:
        pipelines.describe(name, description)
    return pipelines.show(name)


def rename(name: str, new_name: str) -> PipelineView:
    """Rename a pipeline; can be repeated after an interruption.

    Its versions, their numbers and its history stay. Each version has a deployment under the new
    name; schedules and notifications that refer to the pipeline are changed. Runs refer to it by
    the former name, which is still understood.

    Args:
        name: Its name.
        new_name: The new name.

    Returns:
        The pipeline, as ``modelyard pipeline show`` has it.

    Raises:
        NotFoundError: With the code ``PipelineUnknown``.
        BadInputError: With the code ``NameInvalid``.
        ConflictError: With the code ``NameTaken``, if a pipeline or a flow has the new name, or
            runs refer to another pipeline by it.
    """
    _check_no_flow(new_name, "Choose another name.")
    with contextlib.ExitStack() as locks:
        for one in sorted({name, new_name}):  # always in one order: no deadlock
            locks.enter_context(pipelines.upload_lock(one))
        found = pipelines.find(name)
        if found.name not in {name, new_name}:  # the latter: it was interrupted
            raise NotFoundError(
                f"The pipeline {name[:100]!r} is called {found.name!r} now.",
                f"Rename it by that name: modelyard pipeline rename {quote(found.name)} NEW.",
                code="PipelineUnknown",
            )  # fmt: skip
        pipeline_rename.check(found, new_name)
        if name != new_name:
            _rename(found, name, new_name)
    return pipelines.show(new_name)


def _rename(found: Version, was: str, new: str) -> None:
    numbers = [one.version for one in pipelines.versions(found.name)]
    # First the deployments: whoever finds the new name can start it.
    run_coro_as_sync(_registered_as([f"{found.name}:{one}" for one in numbers], new))
    if found.name != new:
        pipeline_rename.rename(found, new)
    pipeline_rename.rename_in_schedules(was, new, numbers)
    notifications.rename_tag(f"{pipelines.NOUN}:{was}", f"{pipelines.NOUN}:{new}")
    pipeline_rename.remove_former_deployments(found.id, numbers)


async def _registered_as(references: list[str], name: str) -> None:
    async with get_client() as client:
        for reference in references:
            version = dataclasses.replace(pipelines.find(reference), name=name)
            await _register_readable(client, version, *pipelines.compiled(reference))


def _check_no_flow(name: str, hint: str) -> None:
    if name in catalogue.names():
        raise ConflictError(f"There is a flow {name!r}.", hint, code="NameTaken")


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
    reason. Deployments of former names, which a rename left for their active runs, are removed.
    """
    made = []
    numbers: dict[str, list[int]] = {}
    for version in pipelines.every():
        compiled = pipelines.compiled(version.reference)
        made += await _register_readable(client, version, *compiled)
        numbers.setdefault(version.id, []).append(version.number)
    for pipeline, own in numbers.items():
        pipeline_rename.remove_former_deployments(pipeline, own)
    return made


async def _register_readable(
    client: PrefectClient, version: Version, data: bytes, file: str
) -> list[str]:
    """Register a version if it can be read; its deployment, or none."""
    try:
        pipeline = reading.read_bytes(data, file)
    except ModelyardError as error:
        pipelines.note(version, error=str(error)[:_LONGEST_REASON])
        return []
    return [await _register(client, version, pipeline)]


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
