"""Rows of the nodes of runs: where each is, from when to when, and how it ended.

The pods of a distributed run rendezvous through them. The first node executes the run, and
announces values to the others; these report their addresses, their readiness and their end. They
send heartbeats, with the database's time, so that the clocks of the machines do not matter.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Double, Integer, Text, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column

from infra import site
from registry.catalogue import Base, engine, retry_transient
from registry.runs import statuses
from registry.runs.run_views import RunNodeView, RunView

_NODE = "MODELYARD_NODE"
_ATTEMPT = "MODELYARD_ATTEMPT"
_MACHINE = "MODELYARD_MACHINE"
_POD = "MODELYARD_POD_NAME"

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
    machine: Mapped[str] = mapped_column(Text, default="")
    pod: Mapped[str] = mapped_column(Text, default="")
    began: Mapped[float | None] = mapped_column(Double)


@dataclass(frozen=True)
class RunNode:
    """A node of a run, as its row describes it.

    Attributes:
        number: Its number, from 0.
        host: Its address, for the others.
        told: Values that it has announced; the others read those of node 0.
        ready: Values that it has reported with its readiness; None before.
        heard: Time of its last heartbeat, in seconds of the database's clock.
        ended: Time of its end, in seconds of the database's clock; None while it is running.
        code: Exit status of its script, or minus a signal's number; None without one.
        tail: Last lines of its script.
        error: Error before its script ran: ``{"code", "message", "hint"}``; else empty.
        machine: Name of its machine; "" of a row of an older version.
        pod: Name of its pod; "" outside a cluster.
        began: Time of its start, in seconds of the database's clock; None likewise.
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
    machine: str = ""
    pod: str = ""
    began: float | None = None


@dataclass(frozen=True)
class NodeSlot:
    """Slot of a node in an attempt of a run, which one process claims.

    Attributes:
        flow_run_id: The run.
        attempt: Its attempt, the same for all of its nodes.
        number: Number of the node, from 0.
    """

    flow_run_id: str
    attempt: int
    number: int

    def take(self, holder: str, host: str, told: Mapping[str, Any]) -> bool:
        """Claim the slot; whether ``holder`` has it now.

        Args:
            holder: Name of the process; the same one may claim it again.
            host: Its address.
            told: Values that are announced at once.
        """
        row = {"flow_run_id": self.flow_run_id, "attempt": self.attempt, "number": self.number}
        made = insert(RunNodeModel).values(
            **row, holder=holder, host=host, told=json.dumps(told), tail="[]", error="{}",
            heard=_NOW, began=_NOW, pod=os.environ.get(_POD, ""),
            machine=os.environ.get(_MACHINE) or socket.gethostname(),
        )  # fmt: skip

        def do() -> bool:
            with engine().begin() as connection:
                connection.execute(made.on_conflict_do_nothing())
                found = connection.scalar(select(RunNodeModel.holder).where(*self._own()))
            return found == holder

        return retry_transient(do)

    def tell(self, told: Mapping[str, Any]) -> None:
        """Announce values to the other nodes."""
        self._set(told=json.dumps(told), heard=_NOW)

    def is_ready(self, ready: Mapping[str, Any]) -> None:
        """Report readiness, with values that the rendezvous needs."""
        self._set(ready=json.dumps(ready), heard=_NOW)

    def beat(self) -> None:
        """Send a heartbeat."""
        self._set(heard=_NOW)

    def end(
        self, *, code: int | None, tail: Sequence[str], error: Mapping[str, str] | None = None
    ) -> None:
        """Report the end of the node, once; see :class:`RunNode`. A code that it has stays."""
        self._set(
            code=func.coalesce(RunNodeModel.code, code), tail=json.dumps(list(tail)),
            error=json.dumps(dict(error or {})), heard=_NOW,
            ended=func.coalesce(RunNodeModel.ended, _NOW),
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


def own_slot(flow_run_id: str, attempt: int = 1) -> NodeSlot:
    """Slot of this machine in the current attempt of a run.

    Args:
        flow_run_id: The run.
        attempt: Its attempt, outside a cluster.
    """
    attempt = int(os.environ.get(_ATTEMPT) or attempt)
    return NodeSlot(flow_run_id, attempt, int(os.environ.get(_NODE, "0")))


def own_holder() -> str:
    """Unique name of this process among those that may claim the same node."""
    return os.environ.get(site.POD_VARIABLE) or f"{socket.gethostname()}-{os.getpid()}"


def now() -> float:
    """Current time of the database's clock, in seconds."""

    def do() -> float:
        with engine().connect() as connection:
            return float(connection.scalars(select(_NOW)).one())

    return retry_transient(do)


def look(flow_run_id: str, attempt: int) -> dict[int, RunNode]:
    """Read the nodes of an attempt that have joined, by number."""
    wanted = select(RunNodeModel).where(
        RunNodeModel.flow_run_id == flow_run_id, RunNodeModel.attempt == attempt
    )

    def do() -> dict[int, RunNode]:
        with engine().connect() as connection:
            return {row.number: _node(row) for row in connection.execute(wanted)}

    return retry_transient(do)


def _node(row: Any) -> RunNode:
    return RunNode(
        number=row.number,
        host=row.host,
        told=json.loads(row.told),
        ready=None if row.ready is None else json.loads(row.ready),
        heard=row.heard,
        ended=row.ended,
        code=row.code,
        tail=tuple(json.loads(row.tail)),
        error=json.loads(row.error),
        machine=row.machine,
        pod=row.pod,
        began=row.began,
    )


def of_run(run: RunView) -> list[RunNodeView]:
    """The nodes of a run's newest attempt, by rank; empty before its work has started."""
    newest = select(func.max(RunNodeModel.attempt)).where(RunNodeModel.flow_run_id == run.id)
    with engine().connect() as connection:
        attempt = connection.scalar(newest)
    found = look(run.id, attempt) if attempt is not None else {}
    return [_view(found[number], run) for number in sorted(found)]


def _view(node: RunNode, run: RunView) -> RunNodeView:
    first = node.number == 0
    state = _first_state(run) if first else _state(node, run)
    ended = node.ended and datetime.fromtimestamp(node.ended, UTC)
    return RunNodeView(
        rank=node.number,
        state=state,
        machine=node.machine or node.host,
        pod=node.pod,
        started=node.began and datetime.fromtimestamp(node.began, UTC),
        ended=None if state == "RUNNING" else ended or (run.ended if first else None),
        exit_code=node.code,
    )


def _first_state(run: RunView) -> str:
    """State of the first node, which executes the run."""
    if not run.is_final:
        return "RUNNING"
    return run.state if run.state in {statuses.COMPLETE, statuses.STOPPED} else "FAILED"


def _state(node: RunNode, run: RunView) -> str:
    if node.ended is None:
        return "LOST" if run.is_final else "RUNNING"
    if node.error or node.code:
        return "FAILED"
    return statuses.STOPPED if node.code is None else statuses.COMPLETE


def remove(flow_run_id: str) -> None:
    """Delete the rows of a run's nodes."""
    with engine().begin() as connection:
        connection.execute(delete(RunNodeModel).where(RunNodeModel.flow_run_id == flow_run_id))
