"""What depends on uploaded pipelines, and their removal."""

from __future__ import annotations

from shlex import quote
from typing import Any

from infra.errors import NotFoundError
from registry import deployments
from registry.blockers import Blocker
from registry.catalogue import session
from registry.flow_kinds import PIPELINE_RUN
from registry.pipelines import pipeline_rename, pipelines
from registry.pipelines.pipelines import NOUN
from registry.schedules import schedules
from registry.views import JsonObject

_MOST_NAMED = 5


def find(reference: str) -> tuple[str, str, int | None]:
    """Return a pipeline's id, its name, and the version's number if the reference has one.

    Raises:
        NotFoundError: With the code ``PipelineUnknown``.
    """
    version = pipelines.find(reference)
    if version.name not in {reference, reference.rpartition(":")[0]}:
        raise NotFoundError(
            f"The pipeline {reference[:100]!r} is called {version.name!r} now.",
            f"Delete it by that name: modelyard pipeline delete {quote(version.name)}.",
            code="PipelineUnknown",
        )
    return version.id, version.name, None if reference == version.name else version.number


def followers(name: str) -> dict[str, JsonObject]:
    """Return schedules that run the newest version of a pipeline, with their parameters."""
    return {schedule: given for schedule, (taken, given) in _taken().items() if taken == name}


def _taken() -> dict[str, tuple[Any, JsonObject]]:
    """Return the pipeline of each schedule that runs one, and the schedule's parameters."""
    with session() as open_session:
        rows = schedules.present(open_session)
        told = {
            row.name: (row.deployment.removeprefix(f"{PIPELINE_RUN.name}/"), row.parameters)
            for row in rows
        }
    return {
        name: (given.get(NOUN) if deployment == PIPELINE_RUN.name else deployment, given)
        for name, (deployment, given) in told.items()
    }


def schedule_blockers(_: str, name: str, number: int | None) -> list[Blocker]:
    """Return why a version, or the whole pipeline, may not be deleted: schedules that run it."""
    versions = [one.version for one in pipelines.versions(name)]
    whole = number is None or versions == [number]
    meant = [f"{name}:{one}" for one in versions if whole or one == number]
    if whole or number == versions[0]:
        meant.append(name)
    found = [
        schedule
        for schedule, (taken, _told) in _taken().items()
        if any(schedules.may_be(taken, one) for one in meant)
    ]
    return schedules.blockers(sorted(found))


def active_blockers(key: str, name: str, number: int | None) -> list[Blocker]:
    """Return why they may not be deleted: waiting or active runs, which Prefect would drop."""
    paths = _deployments(key, name, number)
    active = [run for path in paths for run in deployments.active_runs(path)]
    if not active:
        return []
    named = ", ".join(active[:_MOST_NAMED])
    sentence = f"{len(active)} of its runs are active or waiting, such as {named}."
    run = active[0]
    return [Blocker(sentence, ("runs", "stop", run))]


def _deployments(key: str, name: str, number: int | None) -> list[str]:
    """Return the deployments of the versions, also those that a rename left for their runs."""
    versions = [one.version for one in pipelines.versions(name) if number in {None, one.version}]
    return [
        *(f"{PIPELINE_RUN.name}/{name}:{one}" for one in versions),
        *pipeline_rename.former_deployments(key, versions),
    ]


def remove(key: str, name: str, number: int | None) -> JsonObject:
    """Remove a version, or the whole pipeline; its runs stay."""
    for path in _deployments(key, name, number):
        deployments.remove(path)
    pipelines.remove(key, number)
    return {"name": name, **({} if number is None else {"version": number})}
