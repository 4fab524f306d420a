"""The attempts of runs on a cluster: what the newest waits for, and who executes it.

On a cluster no file lock reaches from one machine to another. A pod claims its attempt before it
does anything, so that a second pod of the same attempt, or one of an attempt that has been
given up for a newer one, ends without having touched anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Integer,
    Text,
    case,
    delete,
    func,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column

from infra.kubernetes.attempts import AttemptRecord, AttemptRetry
from registry.catalogue import Base, engine, retry_transient


class RunAttemptModel(Base):
    """An attempt; it has a holder once a pod has claimed it, a reason once it was given up."""

    __tablename__ = "run_attempts"

    flow_run_id: Mapped[str] = mapped_column(Text, primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True)
    waiting: Mapped[str] = mapped_column(Text)
    begun_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    holder: Mapped[str | None] = mapped_column(Text)
    state_id: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)
    failures: Mapped[int] = mapped_column(Integer)
    failures_after: Mapped[int | None] = mapped_column(Integer)
    queued_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


_OWN = RunAttemptModel.__table__.alias("own")
_NEWEST = (
    select(func.max(_OWN.c.attempt))
    .where(_OWN.c.flow_run_id == RunAttemptModel.flow_run_id)
    .scalar_subquery()
)
_IS_NEWEST = RunAttemptModel.attempt == _NEWEST


def begin(flow_run_id: str, state_id: str) -> int:
    """Begin the next attempt of a run, which waits for nothing yet; its number, from 1.

    Args:
        flow_run_id: The run.
        state_id: The state in which Prefect has granted it. A later one has nothing to do with
            this attempt, say when the run is tried again.
    """
    number = None
    while number is None:  # another began one at the same time
        number = retry_transient(lambda: _begin(flow_run_id, state_id))
    return number


def _begin(flow_run_id: str, state_id: str) -> int | None:
    newest = select(func.coalesce(func.max(_OWN.c.attempt), 0)).where(
        _OWN.c.flow_run_id == flow_run_id
    )
    now = datetime.now(UTC)
    made = insert(RunAttemptModel).values(
        flow_run_id=flow_run_id,
        attempt=newest.scalar_subquery() + 1,
        waiting="",
        begun_at=now,
        state_id=state_id,
        reason="",
        failures=func.coalesce(_continued(flow_run_id, _OWN.c.failures_after, 0), 0),
        queued_at=func.coalesce(_continued(flow_run_id, _OWN.c.queued_at, now), now),
    )
    with engine().begin() as connection:
        return connection.scalar(made.on_conflict_do_nothing().returning(RunAttemptModel.attempt))


def _continued(flow_run_id: str, column: Any, otherwise: Any) -> Any:
    """A value of the run's newest attempt, if that was given up for the one that begins."""
    value = case((_OWN.c.reason != "", column), else_=otherwise)
    of_run = select(value).where(_OWN.c.flow_run_id == flow_run_id)
    return of_run.order_by(_OWN.c.attempt.desc()).limit(1).scalar_subquery()


def retry(flow_run_id: str, attempt: int, retry: AttemptRetry) -> None:
    """Record that an attempt is given up for another one, which is yet to begin."""
    values = {"reason": retry.reason, "failures_after": retry.failures}
    told = update(RunAttemptModel).where(*_one(flow_run_id, attempt)).values(**values)

    def record() -> None:
        with engine().begin() as connection:
            connection.execute(told)

    retry_transient(record)


@dataclass(frozen=True)
class RetriedAttempt:
    """An attempt that was given up for another one by itself.

    Attributes:
        number: Its number.
        reason: Why, in words.
        begun: Whether it was more than a failure to start.
    """

    number: int
    reason: str
    begun: bool


def retried(flow_run_id: str) -> list[RetriedAttempt]:
    """The attempts of a run that were given up for another one by themselves, oldest first."""
    rows = (
        select(RunAttemptModel.attempt, RunAttemptModel.reason, RunAttemptModel.failures_after)
        .where(RunAttemptModel.flow_run_id == flow_run_id, RunAttemptModel.reason != "")
        .order_by(RunAttemptModel.attempt)
    )

    def read() -> list[RetriedAttempt]:
        with engine().connect() as connection:
            found = connection.execute(rows).all()
        return [RetriedAttempt(row.attempt, row.reason, not row.failures_after) for row in found]

    return retry_transient(read)


def newest(flow_run_ids: Iterable[str]) -> dict[str, AttemptRecord]:
    """The newest attempts of runs, by run; without those that have none."""
    wanted = list(flow_run_ids)
    if not wanted:
        return {}
    of_runs = select(RunAttemptModel).where(RunAttemptModel.flow_run_id.in_(wanted), _IS_NEWEST)

    def read() -> dict[str, AttemptRecord]:
        with engine().connect() as connection:
            rows = connection.execute(of_runs).all()
        return {
            row.flow_run_id: AttemptRecord(
                row.attempt, row.waiting, row.state_id, row.failures, row.queued_at
            )
            for row in rows
        }

    return retry_transient(read)


def is_given_up(flow_run_id: str, attempt: int) -> bool:
    """Whether the run has a newer attempt.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: If the database does not answer, at once.
    """
    newer = select(RunAttemptModel.attempt).where(
        RunAttemptModel.flow_run_id == flow_run_id, RunAttemptModel.attempt > attempt
    )
    with engine().connect() as connection:
        return connection.scalar(newer) is not None


def record_waiting(flow_run_id: str, attempt: int, waiting: str) -> None:
    """Tell what an attempt waits for, in words; "" if for nothing."""
    told = update(RunAttemptModel).where(*_one(flow_run_id, attempt)).values(waiting=waiting)

    def tell() -> None:
        with engine().begin() as connection:
            connection.execute(told)

    retry_transient(tell)


def claim(flow_run_id: str, attempt: int, holder: str) -> bool:
    """Become the one executor of a run's newest attempt; whether one is.

    The same holder may claim it again.

    Args:
        flow_run_id: The run.
        attempt: The attempt's number.
        holder: Who claims it, such as a pod's uid.
    """
    kept = func.coalesce(RunAttemptModel.holder, holder)

    def take() -> bool:
        with engine().begin() as connection:
            of_it = (*_one(flow_run_id, attempt), _IS_NEWEST)
            taken = update(RunAttemptModel).where(*of_it).values(holder=kept)
            return connection.scalar(taken.returning(RunAttemptModel.holder)) == holder

    return retry_transient(take)


def _one(flow_run_id: str, attempt: int) -> tuple[ColumnElement[bool], ...]:
    return (RunAttemptModel.flow_run_id == flow_run_id, RunAttemptModel.attempt == attempt)


def remove(flow_run_id: str) -> None:
    """Remove what is known of the attempts of a run."""
    with engine().begin() as connection:
        connection.execute(
            delete(RunAttemptModel).where(RunAttemptModel.flow_run_id == flow_run_id)
        )
