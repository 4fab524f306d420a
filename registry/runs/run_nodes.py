"""The nodes of a run that works on several machines, and what they tell each other.

The first node executes the run. It tells the others what they need to know, and they tell it
where they are, when they are ready and how they ended. Each says again and again that it lives;
times are the database's own, so that no clock of theirs counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Double, Integer, Text, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column

from registry.catalogue import Base, engine, retry_transient

_NOW: Any = func.extract("epoch", func.clock_timestamp())


class RunNodeModel(Base):
    """One node of one attempt of a run."""

    __tablename__ = "run_nodes"

    flow_run_id: Mapped[str] = mapped_column(Text, primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    holder: Mapped[str] = mapped_column(Text)
    host: Mapped[str] = mapped_column(Text)
    told: Mapped[str] = mapped_column(Text, default="{}")
    ready: Mapped[str | None] = mapped_column(Text)
    code: Mapped[int | None] = mapped_column(Integer)
    tail: Mapped[str] = mapped_column(Text, default="[]")
    error: Mapped[str] = mapped_column(Text, default="{}")
    heard: Mapped[float] = mapped_column(Double)
    ended: Mapped[float | None] = mapped_column(Double)


@dataclass(frozen=True)
class Node:
    """What is known of a node.

    Attributes:
        number: Its number, from 0.
        host: Its address, for the others.
        told: What it has told the others; they read that of node 0.
        ready: What it has to say of itself since it is ready; None before.
        heard: When it was last heard of, in seconds of the database's clock.
        ended: When it ended, in seconds of the database's clock; None while it goes on.
        code: How its script ended: exit status, or minus a signal's number; None if it did not.
        tail: The last lines of its script.
        error: Why it could not do its part: ``{"code", "message", "hint"}``; else empty.
    """

    number: int
    host: str
    told: Mapping[str, Any]
    ready: Mapping[str, Any] | None
    heard: float
    ended: float | None
    code: int | None
    tail: tuple[str, ...]
    error: Mapping[str, str]


@dataclass(frozen=True)
class Seat:
    """A node's place in an attempt of a run.

    Attributes:
        flow_run_id: The run.
        attempt: Its attempt, which all of its nodes have in common.
        number: The node's number, from 0.
    """

    flow_run_id: str
    attempt: int
    number: int

    def take(self, holder: str, host: str, told: Mapping[str, Any]) -> bool:
        """Become this node; whether nobody else is.

        Args:
            holder: Who does; the same one may do so again.
            host: Its address.
            told: What the others may know at once.
        """
        row = {"flow_run_id": self.flow_run_id, "attempt": self.attempt, "number": self.number}
        made = insert(RunNodeModel).values(
            **row, holder=holder, host=host, told=json.dumps(told), tail="[]", error="{}",
            heard=_NOW,
        )  # fmt: skip

        def do() -> bool:
            with engine().begin() as connection:
                connection.execute(made.on_conflict_do_nothing())
                found = connection.scalar(select(RunNodeModel.holder).where(*self._own()))
            return found == holder

        return retry_transient(do)

    def tell(self, told: Mapping[str, Any]) -> None:
        """Tell the others."""
        self._set(told=json.dumps(told), heard=_NOW)

    def is_ready(self, ready: Mapping[str, Any]) -> None:
        """Say that it may begin, and what the others must know of it for that."""
        self._set(ready=json.dumps(ready), heard=_NOW)

    def beat(self) -> None:
        """Say that it lives."""
        self._set(heard=_NOW)

    def end(
        self, *, code: int | None, tail: Sequence[str], error: Mapping[str, str] | None = None
    ) -> None:
        """Say how it ended, now if it had not before; see :class:`Node`."""
        self._set(
            code=code, tail=json.dumps(list(tail)), error=json.dumps(dict(error or {})),
            heard=_NOW, ended=func.coalesce(RunNodeModel.ended, _NOW),
        )  # fmt: skip

    def _own(self) -> tuple[Any, ...]:
        return (
            RunNodeModel.flow_run_id == self.flow_run_id,
            RunNodeModel.attempt == self.attempt,
            RunNodeModel.number == self.number,
        )

    def _set(self, **values: Any) -> None:
        changed = update(RunNodeModel).where(*self._own()).values(**values)

        def do() -> None:
            with engine().begin() as connection:
                connection.execute(changed)

        retry_transient(do)


def now() -> float:
    """The database's time, as :class:`Node` tells when one ended; seconds."""

    def do() -> float:
        with engine().connect() as connection:
            return float(connection.scalars(select(_NOW)).one())

    return retry_transient(do)


def look(flow_run_id: str, attempt: int) -> dict[int, Node]:
    """The nodes of an attempt that have been heard of, by number."""
    wanted = select(RunNodeModel).where(
        RunNodeModel.flow_run_id == flow_run_id, RunNodeModel.attempt == attempt
    )

    def do() -> dict[int, Node]:
        with engine().connect() as connection:
            return {row.number: _node(row) for row in connection.execute(wanted)}

    return retry_transient(do)


def _node(row: Any) -> Node:
    return Node(
        number=row.number,
        host=row.host,
        told=json.loads(row.told),
        ready=None if row.ready is None else json.loads(row.ready),
        heard=row.heard,
        ended=row.ended,
        code=row.code,
        tail=tuple(json.loads(row.tail)),
        error=json.loads(row.error),
    )


def remove(flow_run_id: str) -> None:
    """Forget a run's nodes."""
    with engine().begin() as connection:
        connection.execute(delete(RunNodeModel).where(RunNodeModel.flow_run_id == flow_run_id))
