"""What depends on uploaded pipelines, and their removal."""

from __future__ import annotations

from typing import Any

from registry import deployments
from registry.catalogue import session
from registry.flow_kinds import PIPELINE_RUN
from registry.pipelines import pipelines
from registry.pipelines.pipelines import NOUN
from registry.schedules import schedules

_MOST_NAMED = 5


def find(reference: str) -> tuple[str, str, int | None]:
    """The id of a pipeline, its name, and the number of the version that is meant, if one is.

    Raises:
        NotFoundError: With the code ``PipelineUnknown``.
    """
    version = pipelines.find(reference)
    return version.id, version.name, None if reference == version.name else version.number


def followers(name: str) -> dict[str, dict[str, Any]]:
    """The schedules whose runs take the newest version of a pipeline, and what they are told."""
    return {schedule: told for schedule, (taken, told) in _taken().items() if taken == name}


def _taken() -> dict[str, tuple[Any, dict[str, Any]]]:
    """What each schedule takes as its pipeline, if it does, and what its runs are told."""
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


def schedules_of(_: str, name: str, number: int | None) -> list[str]:
    """Why a version, or the whole pipeline, may not be deleted: schedules that take it."""
    versions = [one["version"] for one in pipelines.versions(name)]
    whole = number is None or versions == [number]
    meant = [f"{name}:{one}" for one in versions if whole or one == number]
    if whole or number == versions[0]:
        meant.append(name)
    found = [
        schedule
        for schedule, (taken, _told) in _taken().items()
        if any(schedules.may_be(taken, one) for one in meant)
    ]
    return schedules.sentences(sorted(found))


def runs_of(_: str, name: str, number: int | None) -> list[str]:
    """Why they may not be deleted: runs that wait or go on, which Prefect would forget."""
    going = [run for path in _deployments(name, number) for run in deployments.going_on(path)]
    if not going:
        return []
    return [f"{len(going)} of its runs go on or wait, such as {', '.join(going[:_MOST_NAMED])}."]


def _deployments(name: str, number: int | None) -> list[str]:
    versions = [one["version"] for one in pipelines.versions(name)]
    return [f"{PIPELINE_RUN.name}/{name}:{one}" for one in versions if number in {None, one}]


def remove(key: str, name: str, number: int | None) -> dict[str, Any]:
    """Remove a version, or the whole pipeline; its runs stay."""
    for path in _deployments(name, number):
        deployments.remove(path)
    pipelines.remove(key, number)
    return {"name": name, **({} if number is None else {"version": number})}
