"""Schedules as rows of the catalogue; ``schedules/`` interprets triggers and policies."""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from shlex import quote
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
    Uuid,
    bindparam,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column

from infra.errors import BadInputError, ConflictError, NotFoundError
from infra.suggestions import suggest_names
from infra.texts import is_storable
from registry import history, id_prefixes
from registry.blockers import Blocker
from registry.catalogue import Base, session

CHANNEL = "modelyard_schedules"  # notified with each change of a schedule
NOUN = "schedule"
_MOST_NAMED = 20
_MACRO = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_PRESENT = sqlalchemy.text("archived_at IS NULL")


class ScheduleModel(Base):
    """One schedule.

    Attributes:
        paused: Why the scheduler stopped it; "" if it did not.
        pause_event: Id of the event that is to announce that; None once it was emitted.
        registered: Whether a scheduler has seen it.
        error: Why it cannot be scheduled; "" if it can.
        source: The file that it was applied from; "" if it was created on its own.
        decided_until: The time up to which its slots are decided, in seconds since 1970.
        next_slot: Its next slot after that; None if there is none.
        failures_since: The time from which failed runs count as consecutive.
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
    pause_event: Mapped[uuid.UUID | None] = mapped_column(Uuid)
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


def notify_changed(connection: Connection, schedule: str) -> None:
    """Notify the scheduler of a changed schedule once the transaction is committed."""
    notification = sqlalchemy.text("SELECT pg_notify(:channel, :schedule)")
    connection.execute(notification, {"channel": CHANNEL, "schedule": schedule})


def add(row: ScheduleModel) -> None:
    """Insert a new schedule.

    Raises:
        ConflictError: With the code ``NameTaken``.
    """
    name, key = row.name, row.id
    try:
        with session() as open_session, open_session.begin():
            open_session.add(row)
            notify_changed(open_session.connection(), key)
    except IntegrityError:
        raise taken(name) from None


def taken(name: str) -> ConflictError:
    """The error of a name that another schedule has."""
    return ConflictError(
        f"There is a schedule {name!r} already.",
        f"Choose another name, or change that one: modelyard schedule update {quote(name)}.",
        code="NameTaken",
    )


def find(open_session: Session, key: str, *, lock: bool = False) -> ScheduleModel:
    """The schedule with this name or id, or with an id that begins so.

    Args:
        open_session: The session that reads it.
        key: The name of a present schedule, or the id of any; 8 characters of it or more are
            enough where only one begins with them.
        lock: Whether to lock its row until the transaction's end.

    Raises:
        NotFoundError: With the code ``ScheduleUnknown``.
        ConflictError: If several ids begin with the key.
        BadInputError: If the key is no text.
    """
    if not isinstance(key, str) or not is_storable(key):
        raise BadInputError(
            "The name or id of the schedule must be a string.",
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
    prefix = id_prefixes.parse(key)
    if prefix is not None:
        wanted = select(ScheduleModel).where(ScheduleModel.id.startswith(prefix))
        found = open_session.scalars(wanted.with_for_update() if lock else wanted).all()
        if len(found) > 1:
            raise _ambiguous(key, found)
        if found:
            return found[0]
    present = select(ScheduleModel.name).where(ScheduleModel.archived_at.is_(None))
    known = open_session.scalars(present).all()
    raise NotFoundError(
        f"There is no schedule {key!r}.",
        suggest_names(known, key, "There is none yet: modelyard schedule create."),
        code="ScheduleUnknown",
    )


def _ambiguous(key: str, found: Sequence[ScheduleModel]) -> ConflictError:
    named = "\n".join(f"  {one.id}  {one.name}" for one in found[:_MOST_NAMED])
    return ConflictError(
        f"{len(found)} schedules have an id that begins with {key!r}.",
        f"Give more of the id:\n{named}",
    )


def check_present(row: ScheduleModel) -> None:
    """Refuse a deleted schedule.

    Raises:
        ConflictError: With the code ``ScheduleDeleted``.
    """
    if row.archived_at is not None:
        raise ConflictError(
            f"The schedule {row.name!r} was deleted.", "Create another.", code="ScheduleDeleted"
        )


@contextlib.contextmanager
def changing(key: str) -> Iterator[tuple[Session, ScheduleModel]]:
    """Lock a schedule, commit what is changed within the block, and notify the scheduler.

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
            notify_changed(open_session.connection(), row.id)
    except IntegrityError:
        raise taken(name) from None


def present(open_session: Session) -> list[ScheduleModel]:
    """List the schedules that are not deleted, by name."""
    wanted = select(ScheduleModel).where(ScheduleModel.archived_at.is_(None))
    return list(open_session.scalars(wanted.order_by(ScheduleModel.name)))


def newest(open_session: Session, limit: int) -> list[ScheduleModel]:
    """List the schedules that were changed last, newest first; deleted ones are left out."""
    wanted = select(ScheduleModel).where(ScheduleModel.archived_at.is_(None))
    return list(
        open_session.scalars(wanted.order_by(ScheduleModel.changed_at.desc()).limit(limit))
    )


def archived(open_session: Session) -> list[ScheduleModel]:
    """List the deleted schedules, by name and time of deletion."""
    wanted = select(ScheduleModel).where(ScheduleModel.archived_at.is_not(None))
    return list(
        open_session.scalars(wanted.order_by(ScheduleModel.name, ScheduleModel.archived_at))
    )


def concerned(open_session: Session, names: Collection[str], source: str) -> list[ScheduleModel]:
    """Lock and list the schedules of these names and those applied from a file."""
    wanted = select(ScheduleModel).where(
        ScheduleModel.archived_at.is_(None),
        or_(ScheduleModel.name.in_(names), ScheduleModel.source == source),
    )
    return list(open_session.scalars(wanted.order_by(ScheduleModel.id).with_for_update()))


def names_and_parameters(*, enabled: bool = False) -> dict[str, dict[str, Any]]:
    """Map every schedule's name, or every enabled one's, to the parameters of its runs."""
    with session() as open_session:
        rows = present(open_session)
        return {row.name: row.parameters for row in rows if row.enabled or not enabled}


def name_of(key: str) -> str:
    """The name of the schedule with an id, deleted or not; the id itself if there is none."""
    wanted = select(ScheduleModel.name).where(ScheduleModel.id == key)
    with session() as open_session:
        return open_session.scalar(wanted) or key


def references(parameter: str, value: str) -> list[Blocker]:
    """The schedules whose runs have ``value`` as a parameter, as a blocker of its deletion."""
    found = names_and_parameters().items()
    return blockers(sorted(name for name, given in found if may_be(given.get(parameter), value)))


def may_be(parameter: Any, value: str) -> bool:
    """Whether a schedule's parameter can be ``value`` at some slot; a macro matches anything."""
    first, *parts = _MACRO.split(parameter) if isinstance(parameter, str) else (parameter,)
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


def blockers(names: Sequence[str]) -> list[Blocker]:
    """A blocker that something has these schedules; none if there are none."""
    if not names:
        return []
    more = f" and {len(names) - _MOST_NAMED} more" if names[_MOST_NAMED:] else ""
    named = ", ".join(names[:_MOST_NAMED])
    schedule = names[0]
    return [Blocker(f"It has the schedule {named}{more}.", ("schedule", "delete", schedule))]


# What a parameter's value becomes; None if it stays.
Rewrite = Callable[[Any], Any]


def replaced(
    parameters: Mapping[str, Any], parameter: str, rewrite: Rewrite
) -> dict[str, Any] | None:
    """Return parameters with another value of one; None if its value stays.

    Args:
        parameters: The parameters.
        parameter: The parameter; one of a group with a dot, such as ``model.name``.
        rewrite: Its new value, of the one that it has.
    """
    name, dot, inner = parameter.partition(".")
    value = parameters.get(name)
    if not dot:
        new = rewrite(value)
    else:
        new = replaced(value, inner, rewrite) if isinstance(value, Mapping) else None
    return None if new is None else {**parameters, name: new}


def equal(old: str, new: str) -> Rewrite:
    """What rewrites the value ``old``."""
    return lambda value: new if value == old else None


def rename(parameter: str, old: str, new: str, rewrite: Rewrite | None = None) -> list[str]:
    """Replace a name in a parameter of all schedules; the names of those that had it.

    Args:
        parameter: The parameter, such as ``experiment``; see :func:`replaced`.
        old: The name to replace.
        new: The new name.
        rewrite: Rewrites a value that holds the name; None if the value is the name.
    """
    rewrite = rewrite or equal(old, new)
    changed = {}
    with session() as open_session, open_session.begin():
        wanted = select(ScheduleModel).where(ScheduleModel.archived_at.is_(None))
        wanted = wanted.order_by(ScheduleModel.id).with_for_update()
        for row in open_session.scalars(wanted):
            parameters = replaced(row.parameters, parameter, rewrite)
            if parameters is not None:
                row.parameters = parameters
                changed[row.id] = row.name
    return _followed(changed, parameter, old, new)


def rename_deployment(old: str, new: str) -> list[str]:
    """Replace the deployment of all schedules that have it; the names of those."""
    row = ScheduleModel
    wanted = update(_TABLE).where(row.deployment == old, row.archived_at.is_(None))
    with session() as open_session, open_session.begin():
        found = open_session.execute(wanted.values(deployment=new).returning(row.id, row.name))
        changed = {one.id: one.name for one in found}
    return _followed(changed, "deployment", old, new)


def _followed(changed: Mapping[str, str], field: str, old: str, new: str) -> list[str]:
    """Record that schedules, names by ids, follow a new name; their names."""
    for key in changed:
        history.record(NOUN, key, "follow", parameter=field, was=old, to=new)
    return sorted(changed.values())


def unregistered(connection: Connection) -> dict[str, str]:
    """Map the ids of schedules that no scheduler has seen to their deployments."""
    wanted = select(ScheduleModel.id, ScheduleModel.deployment)
    new = (
        ~ScheduleModel.registered,
        ScheduleModel.archived_at.is_(None),
        ScheduleModel.error == "",
    )
    return {row.id: row.deployment for row in connection.execute(wanted.where(*new))}


def stalled(connection: Connection) -> dict[str, str]:
    """Map the ids of schedules that cannot be scheduled to their deployments."""
    wanted = select(ScheduleModel.id, ScheduleModel.deployment)
    wrong = (ScheduleModel.error != "", ScheduleModel.archived_at.is_(None))
    return {row.id: row.deployment for row in connection.execute(wanted.where(*wrong))}


def register(connection: Connection, found: Mapping[str, str]) -> None:
    """Record that a scheduler has seen schedules, or why it cannot schedule them."""
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
    """Lock and list schedules with a due slot; rows that are locked already are skipped."""
    wanted = select(_TABLE).where(*_AT_WORK, ScheduleModel.next_slot <= now)
    wanted = wanted.order_by(ScheduleModel.next_slot).limit(most)
    return list(connection.execute(wanted.with_for_update(skip_locked=True)))


def decided(connection: Connection, found: Mapping[str, tuple[int, int | None]]) -> None:
    """Record up to when each schedule is decided, and its next slot."""
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
    """List the schedules with these ids.

    Args:
        connection: The connection that reads them.
        ids: The ids.
        lock: Whether to lock their rows until the transaction's end; rows that are locked
            already are skipped.
    """
    wanted = select(_TABLE).where(_TABLE.c.id.in_(ids)).order_by(_TABLE.c.id)
    wanted = wanted.with_for_update(skip_locked=True) if lock else wanted
    return list(connection.execute(wanted))


def next_slot(connection: Connection) -> int | None:
    """The next slot of all enabled schedules; None if there is none."""
    return connection.scalar(select(func.min(ScheduleModel.next_slot)).where(*_AT_WORK))


def soonest(connection: Connection, most: int) -> Sequence[Any]:
    """List the schedules by their next slots, the soonest first."""
    wanted = select(_TABLE).where(*_AT_WORK, ScheduleModel.next_slot.is_not(None))
    wanted = wanted.order_by(ScheduleModel.next_slot, ScheduleModel.name)
    return connection.execute(wanted.limit(most)).all()


def pause(connection: Connection, schedule: str, why: str) -> None:
    """Stop a schedule on behalf of the scheduler, with the reason."""
    stopped = update(_TABLE).where(_TABLE.c.id == schedule)
    connection.execute(stopped.values(enabled=False, paused=why, pause_event=uuid.uuid4()))


def unannounced_pauses(connection: Connection) -> Sequence[Any]:
    """List the schedules that the scheduler has paused without announcing it yet."""
    return connection.execute(select(_TABLE).where(ScheduleModel.pause_event.is_not(None))).all()


def pause_announced(connection: Connection, event: uuid.UUID) -> None:
    """Record that the event which announces a pause was emitted."""
    announced = update(_TABLE).where(ScheduleModel.pause_event == event)
    connection.execute(announced.values(pause_event=None))
