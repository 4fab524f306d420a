"""Trials of tunings, as rows of the catalogue.

They are the source of truth of a tuning: after a restart its search is rebuilt from them. Only the
process that executes a tuning writes its rows.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from sqlalchemy import (
    ARRAY,
    JSON,
    Double,
    Index,
    Integer,
    Row,
    Select,
    Text,
    bindparam,
    delete,
    func,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column

from registry import catalogue
from registry.catalogue import Base, engine
from registry.views import JsonObject

# States of trials with a value, of active ones, and of failed ones. A trial that the tuning itself
# stopped (KILLED) is none of them.
EARLY_STOPPED = "EARLY_STOPPED"
KILLED = "KILLED"
OBSERVED = frozenset({"SUCCEEDED", EARLY_STOPPED})
ACTIVE = frozenset({"CREATED", "RUNNING"})
FAILURES = frozenset({"FAILED", "METRICS_UNAVAILABLE"})

# PostgreSQL's JSON takes no NaN; its arrays keep every number to the bit.
_Numbers = ARRAY(Double)


class TrialOutline(TypedDict):
    """A trial without its reports; times are in seconds since 1970."""

    number: int
    parameters: JsonObject
    state: str
    values: tuple[float, ...] | None
    reason: str
    mlflow_run_id: str | None
    flow_run_id: str | None
    attempts: int
    losses: int
    created: float
    started: float | None
    ended: float | None


class TrialRow(TrialOutline):
    """A trial with its reports and violations of constraints."""

    reports: tuple[float, ...]
    violations: tuple[float, ...]


class TrialModel(Base):
    """One trial of one tuning."""

    __tablename__ = "tuning_trials"
    __table_args__ = (Index("tuning_trials_flow_run", "flow_run_id"),)

    tuning: Mapped[str] = mapped_column(Text, primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    parameters: Mapped[dict[str, Any]] = mapped_column(JSON)  # as text: it keeps the keys' order
    state: Mapped[str] = mapped_column(Text)
    values: Mapped[list[float] | None] = mapped_column(_Numbers)
    reports: Mapped[list[float]] = mapped_column(_Numbers)
    violations: Mapped[list[float]] = mapped_column(_Numbers)
    reason: Mapped[str] = mapped_column(Text)
    mlflow_run_id: Mapped[str | None] = mapped_column(Text)
    flow_run_id: Mapped[str | None] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(Integer)
    losses: Mapped[int] = mapped_column(Integer)
    created: Mapped[float] = mapped_column(Double)
    started: Mapped[float | None] = mapped_column(Double)
    ended: Mapped[float | None] = mapped_column(Double)


_TABLE = TrialModel.__table__
_KEY = ("tuning", "number")
_FIELDS = tuple(column.name for column in _TABLE.columns if column.name != "tuning")
_NUMBERS = frozenset({"values", "reports", "violations"})
_LONG = frozenset({"reports", "violations"})  # what only the search looks at
_OUTLINE = tuple(name for name in _FIELDS if name not in _LONG)


_GIVEN = insert(TrialModel).values(
    {column.name: bindparam(column.name) for column in _TABLE.columns}
)
_UPSERT = _GIVEN.on_conflict_do_update(
    index_elements=_KEY,
    set_={name: _GIVEN.excluded[name] for name in _FIELDS if name not in _KEY},
)


def save(tuning: str, *rows: Mapping[str, Any]) -> None:
    """Insert or update trials in one transaction; waits for a restarting database.

    Args:
        tuning: The tuning's flow run.
        rows: The trials; each has every field of :class:`TrialRow`.
    """
    if not rows:
        return
    written = [{"tuning": tuning, **{name: _plain(name, row[name]) for name in _FIELDS}}
               for row in rows]  # fmt: skip

    def write() -> None:
        with engine().begin() as connection:
            connection.execute(_UPSERT, written)

    catalogue.retry_transient(write)


def _plain(name: str, value: Any) -> Any:
    if name == "state":
        return str(value)
    return list(value) if name in _NUMBERS and value is not None else value


def of(tuning: str) -> list[TrialRow]:
    """Return every trial of a tuning, by number."""
    return _read(_of(tuning, _FIELDS))


def outline(tuning: str) -> list[TrialOutline]:
    """Return every trial of a tuning without its reports, which can be long."""
    return _read(_of(tuning, _OUTLINE))


def newest(tuning: str, limit: int) -> list[TrialOutline]:
    """Return the newest trials of a tuning, newest first, at most ``limit`` of them."""
    wanted = _of(tuning, _OUTLINE).order_by(None).order_by(_TABLE.c.number.desc())
    return _read(wanted.limit(limit))


def numbered(tuning: str, numbers: Iterable[int]) -> list[TrialOutline]:
    """Return trials of a tuning by their numbers; none that there is not."""
    return _read(_of(tuning, _OUTLINE).where(_TABLE.c.number.in_(list(numbers))))


def _of(tuning: str, fields: Iterable[str]) -> Select[Any]:
    columns = [_TABLE.c[name] for name in fields]
    return select(*columns).where(_TABLE.c.tuning == tuning).order_by(_TABLE.c.number)


def _read(wanted: Select[Any]) -> list[Any]:
    with engine().connect() as connection:
        return [_trial(row) for row in connection.execute(wanted)]


def _trial(row: Row[Any]) -> JsonObject:
    return {
        name: tuple(value) if name in _NUMBERS and value is not None else value
        for name, value in row._mapping.items()
    }


def values(trials: Iterable[tuple[str, int]]) -> dict[tuple[str, int], tuple[float, ...] | None]:
    """Return the values of trials, by tuning and number."""
    key = tuple_(_TABLE.c.tuning, _TABLE.c.number)
    wanted = select(*(_TABLE.c[name] for name in (*_KEY, "values"))).where(key.in_(list(trials)))
    with engine().connect() as connection:
        return {
            (tuning, number): None if found is None else tuple(found)
            for tuning, number, found in connection.execute(wanted)
        }


def counts(tunings: Iterable[str]) -> dict[str, dict[str, int]]:
    """Count the tunings' trials by state; without tunings that have none."""
    kind = (_TABLE.c.tuning, _TABLE.c.state)
    wanted = select(*kind, func.count()).where(_TABLE.c.tuning.in_(list(tunings))).group_by(*kind)
    found: dict[str, dict[str, int]] = collections.defaultdict(dict)
    with engine().connect() as connection:
        for tuning, state, number in connection.execute(wanted):
            found[tuning][state] = number
    return dict(found)


def owner(flow_run_id: str) -> tuple[str, int] | None:
    """Return the tuning and the number of the trial that a flow run is; None if it is not one."""
    return owners([flow_run_id]).get(flow_run_id)


def owners(flow_run_ids: Iterable[str]) -> dict[str, tuple[str, int]]:
    """Return the tuning and the number of each flow run that is a trial."""
    own = _TABLE.c.flow_run_id
    wanted = select(own, _TABLE.c.tuning, _TABLE.c.number).where(own.in_(list(flow_run_ids)))
    with engine().connect() as connection:
        return {run: (tuning, number) for run, tuning, number in connection.execute(wanted)}


def remove(tuning: str) -> None:
    """Remove every trial of a tuning."""
    with engine().begin() as connection:
        connection.execute(delete(TrialModel).where(TrialModel.tuning == tuning))
