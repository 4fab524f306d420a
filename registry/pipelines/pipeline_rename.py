"""Renaming of uploaded pipelines, and of what refers to them."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from shlex import quote

from sqlalchemy import delete, select

from infra import identity
from infra.errors import ConflictError
from registry import deployments, history
from registry.catalogue import session
from registry.flow_kinds import PIPELINE_RUN
from registry.pipelines import pipelines
from registry.pipelines.pipeline_models import FormerNameModel, PipelineModel
from registry.pipelines.pipelines import NOUN, Version
from registry.schedules import schedules


def check(version: Version, new: str) -> None:
    """Refuse a name that another pipeline has, or by which runs refer to another one.

    Args:
        version: A version of the pipeline.
        new: The new name.

    Raises:
        BadInputError: With the code ``NameInvalid``.
        ConflictError: With the code ``NameTaken``.
    """
    pipelines.check_name(new)
    row, former = PipelineModel, FormerNameModel
    others = select(former).where(former.name == new, former.pipeline != version.id)
    with session() as open_session:
        taken = open_session.scalar(select(row).where(row.name == new, row.id != version.id))
        referred = open_session.scalar(others.limit(1))
    if taken is not None:
        raise ConflictError(
            f"There is a pipeline {new!r} already.",
            f"Choose another name; modelyard pipeline show {quote(new)} shows that pipeline.",
            code="NameTaken",
        )
    if referred is not None:
        raise ConflictError(
            f"Runs of another pipeline refer to it by the name {new!r}.",
            "Choose another name.",
            code="NameTaken",
        )


def rename(version: Version, new: str) -> None:
    """Rename the pipeline of a version; references by its former name stay valid."""
    former = FormerNameModel
    with session() as open_session, open_session.begin():
        row = open_session.get_one(PipelineModel, version.id, with_for_update=True)
        own = delete(former).where(former.pipeline == row.id)
        open_session.execute(own.where(former.name.in_([row.name, new])))
        open_session.add(former(name=row.name, numbered=row.numbered, pipeline=row.id))
        was, row.name = row.name, new
        row.changed_at, row.changed_by = datetime.now(UTC), identity.caller()
    history.record(NOUN, version.id, "rename", was=was, name=new)


def rename_in_schedules(was: str, new: str, numbers: list[int]) -> None:
    """Have schedules refer to a pipeline and its versions by the new name."""
    for suffix in ("", *(f":{number}" for number in numbers)):
        before, after = f"{was}{suffix}", f"{new}{suffix}"
        schedules.rename("pipeline", before, after)
        schedules.rename_deployment(before, after)
        flow = f"{PIPELINE_RUN.name}/"
        schedules.rename_deployment(flow + before, flow + after)


def former_deployments(pipeline: str, numbers: Collection[int]) -> list[str]:
    """Return what versions of a pipeline were registered as under its former names."""
    former = FormerNameModel
    wanted = select(former.name, former.numbered).where(former.pipeline == pipeline)
    with session() as open_session:
        names = open_session.execute(wanted).all()
    return [
        f"{PIPELINE_RUN.name}/{name}:{number}"
        for name, last in names
        for number in numbers
        if number <= last  # later ones are another pipeline's
    ]


def remove_former_deployments(pipeline: str, numbers: Collection[int]) -> None:
    """Remove the deployments of former names, except those with active runs.

    Prefect drops the waiting runs of a deployment that is removed.
    """
    for path in former_deployments(pipeline, numbers):
        if not deployments.active_runs(path):
            deployments.remove(path)
