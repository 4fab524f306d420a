"""Rows of uploaded pipelines, of their versions, and of the names that they had."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Boolean, DateTime, ForeignKey, Integer, LargeBinary, Text, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from infra.texts import is_storable
from registry.catalogue import Base


class PipelineModel(Base):
    """One pipeline, which has a version: it is deleted with its last one.

    Attributes:
        numbered: The last number of a version. Numbers are never reused: earlier runs, and their
            copies, name a version by it.
    """

    __tablename__ = "pipelines"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)
    description: Mapped[str] = mapped_column(Text)
    numbered: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    created_by: Mapped[str] = mapped_column(Text)
    changed_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    changed_by: Mapped[str] = mapped_column(Text)


class PipelineVersionModel(Base):
    """One version of a pipeline.

    Attributes:
        file: The file's name.
        compiled: The file.
        digest: Digest of its content, however it is written.
        begun: Whether its registration in Prefect has begun.
        registered: Whether Prefect has its deployment.
        error: Why Prefect does not have it; "" otherwise.
    """

    __tablename__ = "pipeline_versions"

    pipeline: Mapped[str] = mapped_column(ForeignKey("pipelines.id"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    description: Mapped[str] = mapped_column(Text)
    file: Mapped[str] = mapped_column(Text)
    compiled: Mapped[bytes] = mapped_column(LargeBinary)
    digest: Mapped[str] = mapped_column(Text)
    begun: Mapped[bool] = mapped_column(Boolean, default=False)
    registered: Mapped[bool] = mapped_column(Boolean, default=False)
    error: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    created_by: Mapped[str] = mapped_column(Text)


class FormerNameModel(Base):
    """A name that a pipeline had, by which runs refer to its versions.

    It stays when the pipeline is deleted: another one of that name has other numbers.

    Attributes:
        numbered: The last number that a version had under that name.
        pipeline: Id of the pipeline.
    """

    __tablename__ = "pipeline_former_names"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    numbered: Mapped[int] = mapped_column(Integer, primary_key=True)
    pipeline: Mapped[str] = mapped_column(Text)


def find_former(open_session: Session, name: str, number: int | None) -> PipelineModel | None:
    """The pipeline that had a name when its version of that number was made, unless deleted."""
    if not is_storable(name):
        return None
    former = FormerNameModel
    wanted = select(former.pipeline).where(former.name == name).limit(1)
    if number is None:
        wanted = wanted.order_by(former.numbered.desc())
    else:
        wanted = wanted.where(former.numbered >= number).order_by(former.numbered)
    key = open_session.scalar(wanted)
    return None if key is None else open_session.get(PipelineModel, key)


def last_former(open_session: Session, name: str) -> int:
    """The last number of a version under a name that another pipeline had; 0 without one."""
    wanted = select(func.max(FormerNameModel.numbered)).where(FormerNameModel.name == name)
    return open_session.scalar(wanted) or 0
