"""Schedules: rows of the catalogue. What their triggers and policies mean is ``schedules/``."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Connection,
    DateTime,
    Index,
    Text,
    bindparam,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column

from infra.errors import BadInputError, ConflictError, NotFoundError
from infra.texts import is_storable
from registry.catalogue import Base, session

CHANNEL = "modelyard_schedules"  # whoever writes a schedule tells the scheduler on it
_MOST_NEAR = 5
_MOST_NAMED = 20
_MACRO = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_PRESENT = sqlalchemy.text("archived_at IS NULL")


class ScheduleModel(Base):
    """One schedule.

    Attributes:
        paused: Why it was stopped by itself; "" if it was not.
        registered: Whether a scheduler knows it.
        error: Why no scheduler can work with it; "" if one can.
        source: Which file it was applied from; "" if it was made by itself.
        decided_until: What became of its slots until then was decided; in seconds since 1970.
        next_slot: Its next slot after that; None if there is none.
        failures_since: Runs of slots from then on count as failures in a row.
        archived_at: When it was deleted; its slots stay.
    """

    __tablename__ = "schedules"
    __table_args__ = (
        Index(
            "schedules_name", "name", unique=True,
            postgresql_where=_PRESENT,
        ),
        Index("schedules_next_slot", "next_slot"),
    )  # fmt: skip

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    description: Mapped[str] = mapped_column(Text)
    deployment: Mapped[str] = mapped_column(Text)
    parameters: Mapped[dict[str, Any]] = mapped_column(JSON)
    trigger: Mapped[dict[str, Any]] = mapped_column(JSON)
    policy: Mapped[dict[str, Any]] = mapped_column(JSON)
    enabled: Mapped[bool] = mapped_column(Boolean)
    paused: Mapped[str] = mapped_column(Text, default="")
    registered: Mapped[bool] = mapped_column(Boolean, default=False)
    error: Mapped[str] = mapped_column(Text, default="")
    source: Mapped[str] = mapped_column(Text, default="")
    decided_until: Mapped[int] = mapped_column(BigInteger)
    next_slot: Mapped[int | None] = mapped_column(BigInteger)
    failures_since: Mapped[int] = mapped_column(BigInteger, default=0)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    created_by: Mapped[str] = mapped_column(Text)
    changed_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    changed_by: Mapped[str] = mapped_column(Text)
    archived_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


_AT_WORK = (ScheduleModel.enabled, ScheduleModel.registered, ScheduleModel.archived_at.is_(None))
_TABLE = Base.metadata.tables[ScheduleModel.__tablename__]


def tell(connection: Connection, schedule: str) -> None:
    """Tell the scheduler, once the transaction is committed, that a schedule has changed."""
    if connection.dialect.name == "postgresql":
        told = sqlalchemy.text("SELECT pg_notify(:channel, :schedule)")
        connection.execute(told, {"channel": CHANNEL, "schedule": schedule})


def add(row: ScheduleModel) -> None:
    """Keep a new schedule.

    Raises:
        ConflictError: With the code ``NameTaken``.
    """
    name, key = row.name, row.id
    try:
        with session() as open_session, open_session.begin():
            open_session.add(row)
            tell(open_session.connection(), key)
    except IntegrityError:
        raise taken(name) from None


def taken(name: str) -> ConflictError:
    """The error of a name that another schedule has."""
    return ConflictError(
        f"There is a schedule {name!r} already.",
        "Choose another name, or change that one: modelyard schedule update.",
        code="NameTaken",
    )


def find(open_session: Session, key: str, *, lock: bool = False) -> ScheduleModel:
    """The schedule with this name or id.

    Args:
        open_session: Where it is read.
        key: The name of one that is there, or the id of any.
        lock: Whether nobody else may change it until the transaction's end.

    Raises:
        NotFoundError: With the code ``ScheduleUnknown``.
        BadInputError: If the key is no text.
    """
    if not isinstance(key, str) or not is_storable(key):
        raise BadInputError(
            "The name or id of the schedule is no text.",
            "Give it as modelyard schedule list shows it.",
            code="NameInvalid",
        )
    for wanted in (
        select(ScheduleModel).where(
            ScheduleModel.name == key, ScheduleModel.archived_at.is_(None)
        ),
        select(ScheduleModel).where(ScheduleModel.id == key),
    ):
        row = open_session.scalar(wanted.with_for_update() if lock else wanted)
        if row is not None:
            return row
    present = select(ScheduleModel.name).where(ScheduleModel.archived_at.is_(None))
    known = open_session.scalars(present).all()
    near = difflib.get_close_matches(key, known, _MOST_NEAR) or sorted(known)[:_MOST_NEAR]
    raise NotFoundError(
        f"There is no schedule {key!r}.",
        f"There is: {', '.join(near)}."
        if near
        else "There is none yet: modelyard schedule create.",
        code="ScheduleUnknown",
    )


def check_present(row: ScheduleModel) -> None:
    """Refuse a schedule that was deleted.

    Raises:
        ConflictError: With the code ``ScheduleDeleted``.
    """
    if row.archived_at is not None:
        raise ConflictError(
            f"The schedule {row.name!r} was deleted.", "Create another.", code="ScheduleDeleted"
        )


@contextlib.contextmanager
def changing(key: str) -> Iterator[tuple[Session, ScheduleModel]]:
    """A schedule that nobody else changes meanwhile; what was changed is kept, and told.

    Raises:
        NotFoundError: With the code ``ScheduleUnknown``.
        ConflictError: If its new name is taken, or it was deleted.
    """
    name = key
    try:
        with session() as open_session, open_session.begin():
            row = find(open_session, key, lock=True)
            check_present(row)
            yield open_session, row
            name = row.name
            tell(open_session.connection(), row.id)
    except IntegrityError:
        raise taken(name) from None


def present(open_session: Session) -> list[ScheduleModel]:
    """Every schedule that was not deleted, by name."""
    wanted = select(ScheduleModel).where(ScheduleModel.archived_at.is_(None))
    return list(open_session.scalars(wanted.order_by(ScheduleModel.name)))


def archived(open_session: Session) -> list[ScheduleModel]:
    """Every schedule that was deleted, by name and then by when."""
    wanted = select(ScheduleModel).where(ScheduleModel.archived_at.is_not(None))
    return list(
        open_session.scalars(wanted.order_by(ScheduleModel.name, ScheduleModel.archived_at))
    )


def concerned(open_session: Session, names: Collection[str], source: str) -> list[ScheduleModel]:
    """The schedules of these names, and those of a file, which nobody else changes meanwhile."""
    wanted = select(ScheduleModel).where(
        ScheduleModel.archived_at.is_(None),
        or_(ScheduleModel.name.in_(names), ScheduleModel.source == source),
    )
    return list(open_session.scalars(wanted.order_by(ScheduleModel.id).with_for_update()))


def names_and_parameters() -> dict[str, dict[str, Any]]:
    """What the runs of every schedule are told, by the schedule's name."""
    with session() as open_session:
        return {row.name: row.parameters for row in present(open_session)}


def name_of(key: str) -> str:
    """What the schedule of an id is or was called; the id itself if there never was one."""
    wanted = select(ScheduleModel.name).where(ScheduleModel.id == key)
    with session() as open_session:
        return open_session.scalar(wanted) or key


def told(parameter: str, value: str) -> list[str]:
    """Why what is called ``value`` may not go: schedules whose runs are told so."""
    found = names_and_parameters().items()
    return sentences(sorted(name for name, given in found if may_be(given.get(parameter), value)))


def may_be(told: Any, value: str) -> bool:
    """Whether what a schedule's runs are told is ``value`` at some slot.

    Each macro counts as anything, so that whatever a run may need stays.
    """
    first, *parts = _MACRO.split(told) if isinstance(told, str) else (told,)
    if not parts:
        return bool(first == value)
    *inner, last = parts
    if not value.startswith(first) or not value.endswith(last):
        return False
    place, end = len(first), len(value) - len(last)
    for part in inner:
        found = value.find(part, place, end)
        if found < 0:
            return False
        place = found + len(part)
    return place <= end


def sentences(names: Sequence[str]) -> list[str]:
    """That something has these schedules; nothing where there are none."""
    if not names:
        return []
    more = f" and {len(names) - _MOST_NAMED} more" if names[_MOST_NAMED:] else ""
    return [f"It has the schedule {', '.join(names[:_MOST_NAMED])}{more}."]


def rename(parameter: str, old: str, new: str) -> list[str]:
    """Tell ``new`` to the runs of schedules that are told ``old``; those schedules' names.

    Args:
        parameter: As what it is told, such as ``experiment``.
        old: What a thing was called.
        new: What it is called now.
    """
    changed = []
    with session() as open_session, open_session.begin():
        wanted = select(ScheduleModel).where(ScheduleModel.archived_at.is_(None))
        wanted = wanted.order_by(ScheduleModel.id).with_for_update()
        for row in open_session.scalars(wanted):
            if row.parameters.get(parameter) == old:
                row.parameters = {**row.parameters, parameter: new}
                changed.append(row.name)
    return sorted(changed)


def unregistered(connection: Connection) -> dict[str, str]:
    """The ids of the schedules that no scheduler knows yet, with their deployments."""
    wanted = select(ScheduleModel.id, ScheduleModel.deployment)
    new = (
        ~ScheduleModel.registered,
        ScheduleModel.archived_at.is_(None),
        ScheduleModel.error == "",
    )
    return {row.id: row.deployment for row in connection.execute(wanted.where(*new))}


def stalled(connection: Connection) -> dict[str, str]:
    """The ids of the schedules that no scheduler can work with, with their deployments."""
    wanted = select(ScheduleModel.id, ScheduleModel.deployment)
    wrong = (ScheduleModel.error != "", ScheduleModel.archived_at.is_(None))
    return {row.id: row.deployment for row in connection.execute(wanted.where(*wrong))}


def register(connection: Connection, found: Mapping[str, str]) -> None:
    """Write that schedules are known to a scheduler, or why it can do nothing with them."""
    if not found:
        return
    known = update(_TABLE).where(_TABLE.c.id == bindparam("key"))
    known = known.values(registered=bindparam("known"), error=bindparam("refusal"))
    rows = [
        {"key": key, "known": not refusal, "refusal": refusal}
        for key, refusal in sorted(found.items())  # in the order in which all lock them
    ]
    connection.execute(known, rows)


def due(connection: Connection, now: int, most: int) -> list[Any]:
    """Schedules with a slot that is due, and that nobody changes until the transaction's end."""
    wanted = select(_TABLE).where(*_AT_WORK, ScheduleModel.next_slot <= now)
    wanted = wanted.order_by(ScheduleModel.next_slot).limit(most)
    return list(connection.execute(wanted.with_for_update(skip_locked=True)))


def decided(connection: Connection, found: Mapping[str, tuple[int, int | None]]) -> None:
    """Write until when each schedule was decided, and its next slot."""
    if not found:
        return
    changed = update(_TABLE).where(_TABLE.c.id == bindparam("key"))
    changed = changed.values(decided_until=bindparam("until"), next_slot=bindparam("following"))
    connection.execute(
        changed,
        [
            {"key": key, "until": until, "following": following}
            for key, (until, following) in found.items()
        ],
    )


def with_ids(connection: Connection, ids: Collection[str], *, lock: bool = False) -> list[Any]:
    """The schedules of these ids.

    Args:
        connection: Where they are read.
        ids: The ids.
        lock: Whether nobody may change them until the transaction's end; those that somebody
            changes just now are left out.
    """
    wanted = select(_TABLE).where(_TABLE.c.id.in_(ids)).order_by(_TABLE.c.id)
    wanted = wanted.with_for_update(skip_locked=True) if lock else wanted
    return list(connection.execute(wanted))


def next_slot(connection: Connection) -> int | None:
    """The next slot of all schedules that are enabled."""
    return connection.scalar(select(func.min(ScheduleModel.next_slot)).where(*_AT_WORK))


def soonest(connection: Connection, most: int) -> Sequence[Any]:
    """The rows of the schedules that are due next, the soonest first."""
    wanted = select(_TABLE).where(*_AT_WORK, ScheduleModel.next_slot.is_not(None))
    wanted = wanted.order_by(ScheduleModel.next_slot, ScheduleModel.name)
    return connection.execute(wanted.limit(most)).all()


def pause(connection: Connection, schedule: str, why: str) -> None:
    """Stop a schedule, as nobody but the scheduler does."""
    stopped = update(_TABLE).where(_TABLE.c.id == schedule)
    connection.execute(stopped.values(enabled=False, paused=why))
