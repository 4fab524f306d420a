"""Who executes an attempt of a run: the first that says so, and nobody else.

On a cluster no file lock reaches from one machine to another. A pod claims its attempt before it
does anything, so that a second pod of the same attempt, or one of an attempt that has been
given up for a newer one, ends without having touched anything.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import DateTime, Integer, Text, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column

from registry.catalogue import Base, engine, patiently


class RunAttemptModel(Base):
    """An attempt that somebody has claimed."""

    __tablename__ = "run_attempts"

    flow_run_id: Mapped[str] = mapped_column(Text, primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True)
    holder: Mapped[str] = mapped_column(Text)
    claimed_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


def claim(flow_run_id: str, attempt: int, holder: str) -> bool:
    """Become the one executor of an attempt; whether one is.

    The same holder may claim it again. An attempt that is older than the newest that was claimed
    is nobody's any more.

    Args:
        flow_run_id: The run.
        attempt: The attempt's number.
        holder: Who claims it, such as a pod's uid.
    """
    return patiently(lambda: _claim(flow_run_id, attempt, holder))


def _claim(flow_run_id: str, attempt: int, holder: str) -> bool:
    of_run = RunAttemptModel.flow_run_id == flow_run_id
    made = insert(RunAttemptModel).values(
        flow_run_id=flow_run_id, attempt=attempt, holder=holder, claimed_at=datetime.now(UTC)
    )
    with engine().begin() as connection:
        newest = connection.scalar(select(func.max(RunAttemptModel.attempt)).where(of_run))
        if newest is not None and newest > attempt:
            return False
        connection.execute(made.on_conflict_do_nothing())
        wanted = select(RunAttemptModel.holder).where(of_run, RunAttemptModel.attempt == attempt)
        return connection.scalar(wanted) == holder


def remove(flow_run_id: str) -> None:
    """Remove what is known of the attempts of a run."""
    with engine().begin() as connection:
        connection.execute(
            delete(RunAttemptModel).where(RunAttemptModel.flow_run_id == flow_run_id)
        )
