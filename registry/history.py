"""Who did what: one row for each edit, kept also when its subject is gone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Index, Text, select
from sqlalchemy.orm import Mapped, mapped_column

from infra import identity
from registry.catalogue import Base, session


class HistoryModel(Base):
    """One deed."""

    __tablename__ = "history"
    __table_args__ = (Index("history_subject", "noun", "subject", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    user: Mapped[str] = mapped_column(Text)
    verb: Mapped[str] = mapped_column(Text)
    noun: Mapped[str] = mapped_column(Text)
    subject: Mapped[str] = mapped_column(Text)
    detail: Mapped[dict[str, Any]] = mapped_column(JSON)


def record(noun: str, subject: str, verb: str, **detail: Any) -> None:
    """Write down that the caller did ``verb`` to the ``noun`` called ``subject``."""
    with session() as open_session, open_session.begin():
        open_session.add(
            HistoryModel(
                at=datetime.now(UTC),
                user=identity.caller(),
                verb=verb,
                noun=noun,
                subject=subject,
                detail=detail,
            )
        )


def of(noun: str, subject: str) -> list[dict[str, Any]]:
    """What was done to the ``noun`` called ``subject``, oldest first."""
    wanted = (
        select(HistoryModel)
        .where(HistoryModel.noun == noun, HistoryModel.subject == subject)
        .order_by(HistoryModel.id)
    )
    with session() as open_session:
        return [
            {"at": row.at.isoformat(), "user": row.user, "verb": row.verb, "detail": row.detail}
            for row in open_session.scalars(wanted)
        ]
