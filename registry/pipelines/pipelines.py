"""Uploaded pipelines: a name, and numbered versions of what it stands for.

A pipeline is referred to as ``NAME``, which is its newest version, or as ``NAME:NUMBER``. Each
version has a deployment of its own in Prefect, so that it can be started from there.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased, defer

from infra import identity
from infra.errors import BadInputError, NotFoundError
from infra.suggestions import suggest_names
from infra.texts import is_storable
from registry import history, names
from registry.catalogue import advisory_lock, session
from registry.flow_kinds import PIPELINE_RUN
from registry.pipelines.pipeline_models import (
    FormerNameModel,
    PipelineModel,
    PipelineVersionModel,
    find_former,
    last_former,
)
from registry.pipelines.pipeline_views import (
    PipelineSummaryView,
    PipelineVersionView,
    PipelineView,
)

NOUN = "pipeline"

LONGEST_NAME = 100
_SEPARATOR = ":"
# Names stand in paths of Prefect's, which takes none of these in them; and a reference is no file.
_NAME = re.compile(r"[^/%&<>?#:\"\\]+")
FILES = (".yaml", ".yml", ".json", ".zip")


class PipelineState(StrEnum):
    """State of a version; a pipeline's is that of its newest version.

    Attributes:
        CREATE_REQUESTED: It is recorded, and not registered with Prefect yet.
        CREATE_IN_PROGRESS: It is being registered; if interrupted, upload it again.
        CREATE_FAILED: It could not be registered; `error` says why: upload it again.
        ACTIVE: It can be run.
    """

    CREATE_REQUESTED = "CREATE REQUESTED"
    CREATE_IN_PROGRESS = "CREATE IN PROGRESS"
    CREATE_FAILED = "CREATE FAILED"
    ACTIVE = "ACTIVE"


@dataclass(frozen=True)
class Version:
    """A version of a pipeline.

    Attributes:
        id: The pipeline's id.
        name: The pipeline's name.
        number: Its number.
        description: Its description, or else the pipeline's.
        file: Its file's name.
        digest: Digest of its content.
        state: The reference's word for it.
        error: Why it is CREATE FAILED.
    """

    id: str
    name: str
    number: int
    description: str
    file: str
    digest: str
    state: str
    error: str

    @property
    def reference(self) -> str:
        """Its reference, ``NAME:NUMBER``."""
        return f"{self.name}{_SEPARATOR}{self.number}"

    @property
    def deployment(self) -> str:
        """Its deployment in Prefect, as ``flow/deployment``."""
        return f"{PIPELINE_RUN.name}/{self.reference}"


def check_name(name: str) -> None:
    """Refuse an invalid name of a pipeline.

    Raises:
        BadInputError: With the code ``NameInvalid``.
    """
    if (
        not _NAME.fullmatch(name)
        or name != name.strip()
        or name.startswith("-")
        or len(name) > LONGEST_NAME
        or is_file(name)
    ):
        raise BadInputError(
            f"A pipeline cannot be called {name[:60]!r}.",
            f'Give 1 to {LONGEST_NAME} characters, none of / \\ % & < > ? # : ", without spaces '
            f"at the ends, and not ending in {', '.join(FILES)}.",
            code="NameInvalid",
        )
    names.check(name)


def is_file(reference: str) -> bool:
    """Whether a run's ``pipeline`` is a path, and not a reference."""
    return "/" in reference or reference.lower().endswith(FILES)


def _split(reference: str) -> tuple[str, int | None]:
    name, separator, number = reference.rpartition(_SEPARATOR)
    if not separator:
        return reference, None
    # More digits than a number of the database has are of no version.
    return name, int(number) if re.fullmatch(r"[0-9]{1,9}", number) else -1


def _unknown(open_session: Session, name: str) -> NotFoundError:
    known = open_session.scalars(select(PipelineModel.name)).all()
    return NotFoundError(
        f"There is no pipeline {name[:100]!r}.",
        suggest_names(known, name, "There is none yet: modelyard pipeline upload FILE."),
        code="PipelineUnknown",
    )


def _row(open_session: Session, name: str, *, lock: bool = False) -> PipelineModel:
    row = None
    if is_storable(name):
        wanted = select(PipelineModel).where(PipelineModel.name == name)
        row = open_session.scalar(wanted.with_for_update() if lock else wanted)
    if row is None:
        raise _unknown(open_session, name)
    return row


def _versions(open_session: Session, row: PipelineModel) -> list[PipelineVersionModel]:
    """The versions of a pipeline without what is in them, the newest first."""
    wanted = select(PipelineVersionModel).where(PipelineVersionModel.pipeline == row.id)
    wanted = wanted.options(defer(PipelineVersionModel.compiled))
    return list(open_session.scalars(wanted.order_by(PipelineVersionModel.number.desc())))


def _version(open_session: Session, reference: str) -> tuple[PipelineModel, PipelineVersionModel]:
    name, number = _split(reference)
    try:
        row = _row(open_session, name)
    except NotFoundError:
        renamed = find_former(open_session, name, number)
        if renamed is None:
            raise
        row = renamed
    versions = _versions(open_session, row)
    if row.name == name and number not in {None, *(one.number for one in versions)}:
        row = find_former(open_session, name, number) or row
        versions = _versions(open_session, row)
    found = next((one for one in versions if number in {None, one.number}), None)
    if found is None:
        raise NotFoundError(
            f"The pipeline {name!r} has no version {reference.rpartition(_SEPARATOR)[2][:20]!r}.",
            f"It has: {', '.join(str(one.number) for one in versions[:20])}.",
            code="PipelineUnknown",
        )
    return row, found


def _state(row: PipelineVersionModel) -> PipelineState:
    for applies, word in (
        (row.registered, PipelineState.ACTIVE),
        (bool(row.error), PipelineState.CREATE_FAILED),
        (row.begun, PipelineState.CREATE_IN_PROGRESS),
    ):
        if applies:
            return word
    return PipelineState.CREATE_REQUESTED


def _read(row: PipelineModel, version: PipelineVersionModel) -> Version:
    return Version(
        row.id, row.name, version.number, version.description or row.description, version.file,
        version.digest, _state(version), version.error,
    )  # fmt: skip


def find(reference: str) -> Version:
    """Return the version referred to; the newest one where the reference has no number.

    Raises:
        NotFoundError: With the code ``PipelineUnknown``.
    """
    with session() as open_session:
        return _read(*_version(open_session, reference))


def deployment_of(reference: str) -> str:
    """Return the deployment that runs a pipeline, given as a reference or a file.

    Raises:
        NotFoundError: With the code ``PipelineUnknown``.
    """
    return PIPELINE_RUN.name if is_file(reference) else find(reference).deployment


def compiled(reference: str) -> tuple[bytes, str]:
    """Return the file of a version, and the file's name.

    Raises:
        NotFoundError: With the code ``PipelineUnknown``.
    """
    with session() as open_session:
        _, version = _version(open_session, reference)
        return version.compiled, version.file


def every() -> list[Version]:
    """List every version of every pipeline."""
    wanted = select(PipelineModel, PipelineVersionModel).join(
        PipelineVersionModel, PipelineVersionModel.pipeline == PipelineModel.id
    )
    wanted = wanted.options(defer(PipelineVersionModel.compiled))
    wanted = wanted.order_by(PipelineModel.name, PipelineVersionModel.number)
    with session() as open_session:
        return [_read(*found) for found in open_session.execute(wanted)]


@contextmanager
def upload_lock(name: str) -> Iterator[None]:
    """Hold the lock under which the pipeline of this name is uploaded or deleted."""
    with advisory_lock(f"pipeline {name}"):
        yield


def add(
    name: str, data: bytes, file: str, digest: str, *, description: str = "", about: str = ""
) -> Version:
    """Store a version, unless the newest one has the same content; return it.

    Args:
        name: The pipeline, which is created if missing.
        data: The file.
        file: The file's name.
        digest: Digest of its content, however it is written.
        description: Description of the pipeline, if it is new.
        about: Description of the version.
    """
    now, user = datetime.now(UTC), identity.caller()
    with session() as open_session, open_session.begin():
        wanted = select(PipelineModel).where(PipelineModel.name == name).with_for_update()
        row = open_session.scalar(wanted)
        if row is None:
            row = PipelineModel(
                id=str(uuid.uuid4()), name=name, description=description,
                numbered=last_former(open_session, name),
                created_at=now, created_by=user, changed_at=now, changed_by=user,
            )  # fmt: skip
            open_session.add(row)
            open_session.flush()
        newest = next(iter(_versions(open_session, row)), None)
        if newest is not None and newest.digest == digest:
            return _read(row, newest)
        row.numbered += 1
        row.changed_at, row.changed_by = now, user
        made = PipelineVersionModel(
            pipeline=row.id, number=row.numbered, description=about, file=file, compiled=data,
            digest=digest, begun=False, registered=False, error="", created_at=now,
            created_by=user,
        )  # fmt: skip
        open_session.add(made)
        found = _read(row, made)
    history.record(NOUN, found.id, "upload", name=name, version=found.number)
    return found


def note(version: Version, *, registered: bool = False, error: str = "") -> None:
    """Record the registration of a version in Prefect: begun, done, or failed."""
    with session() as open_session, open_session.begin():
        row = open_session.get(PipelineVersionModel, (version.id, version.number))
        if row is not None:
            row.begun, row.registered, row.error = True, registered, error


def describe(name: str, description: str) -> PipelineView:
    """Change the description of a pipeline.

    Raises:
        NotFoundError: With the code ``PipelineUnknown``.
        BadInputError: If the description is invalid.
    """
    names.check_description(description)
    with session() as open_session, open_session.begin():
        row = _row(open_session, name, lock=True)
        row.description = description
        row.changed_at, row.changed_by = datetime.now(UTC), identity.caller()
        key = row.id
    history.record(NOUN, key, "update", description=description)
    return show(name)


def list_all() -> list[PipelineSummaryView]:
    """List every pipeline by name, with the state of its newest version."""
    with session() as open_session:
        wanted = select(PipelineModel).order_by(PipelineModel.name)
        rows = open_session.scalars(wanted)
        found = [(row, _versions(open_session, row)) for row in rows]
        return [_summary(row, versions[0], len(versions)) for row, versions in found]


def list_newest(limit: int) -> list[PipelineSummaryView]:
    """List the pipelines that were changed last, newest first, at most ``limit`` of them."""
    version = aliased(PipelineVersionModel)
    counts = (
        select(
            version.pipeline, func.count().label("count"), func.max(version.number).label("last")
        )
        .group_by(version.pipeline)
        .subquery()
    )
    wanted = (
        select(PipelineModel, PipelineVersionModel, counts.c.count)
        .join(counts, counts.c.pipeline == PipelineModel.id)
        .join(
            PipelineVersionModel,
            (PipelineVersionModel.pipeline == PipelineModel.id)
            & (PipelineVersionModel.number == counts.c.last),
        )
        .options(defer(PipelineVersionModel.compiled))
        .order_by(PipelineModel.changed_at.desc())
        .limit(limit)
    )
    with session() as open_session:
        return [_summary(*row) for row in open_session.execute(wanted)]


def _summary(row: PipelineModel, version: PipelineVersionModel, count: int) -> PipelineSummaryView:
    return PipelineSummaryView(
        name=row.name,
        state=_state(version),
        version=version.number,
        version_count=count,
        description=row.description,
        created=row.created_at,
        created_by=row.created_by,
        changed=row.changed_at,
        changed_by=row.changed_by,
        error=version.error,
    )


def show(reference: str) -> PipelineView:
    """Return a pipeline with its versions; its state is that of the version referred to.

    Raises:
        NotFoundError: With the code ``PipelineUnknown``.
    """
    with session() as open_session:
        row, version = _version(open_session, reference)
        versions = [_version_view(one) for one in _versions(open_session, row)]
        found = _summary(row, version, len(versions))
        deployment = _read(row, version).deployment
    return PipelineView(
        **dict(found), versions=versions, deployment=deployment, history=history.of(NOUN, row.id)
    )


def versions(name: str) -> list[PipelineVersionView]:
    """List the versions of a pipeline, the newest first.

    Raises:
        NotFoundError: With the code ``PipelineUnknown``.
    """
    with session() as open_session:
        return [_version_view(one) for one in _versions(open_session, _row(open_session, name))]


def _version_view(version: PipelineVersionModel) -> PipelineVersionView:
    return PipelineVersionView(
        version=version.number,
        state=_state(version),
        description=version.description,
        file=version.file,
        digest=version.digest[:12],
        created=version.created_at,
        created_by=version.created_by,
    )


def remove(pipeline: str, number: int | None = None) -> None:
    """Remove a version of the pipeline with this id, or the whole pipeline.

    With its last version the pipeline goes: what has its name later is another one, with another
    history. Only its name stays with its last number, because runs refer to versions by both.
    """
    with session() as open_session, open_session.begin():
        row = open_session.get(PipelineModel, pipeline, with_for_update=True)
        if row is None:
            return
        versions = _versions(open_session, row)
        for version in versions:
            if number in {None, version.number}:
                open_session.delete(version)
        if number is None or [one.number for one in versions] == [number]:
            open_session.add(
                FormerNameModel(name=row.name, numbered=row.numbered, pipeline=row.id)
            )
            open_session.flush()  # the versions go first
            open_session.delete(row)
