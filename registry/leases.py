"""Leases: who of several processes leads, by the database's own clock.

A lease has a token that grows with every holder. Whoever writes as its holder checks the token in
the same transaction, so that one who was thought dead, and goes on, changes nothing any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Connection, Double, Text, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column

from registry.catalogue import Base, engine


class LeaseLostError(RuntimeError):
    """Somebody else has become the holder."""


class LeaseModel(Base):
    """One lease."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    holder: Mapped[str] = mapped_column(Text)
    token: Mapped[int] = mapped_column(BigInteger)
    expires: Mapped[float] = mapped_column(Double)


@dataclass(frozen=True)
class Lease:
    """A lease that was taken.

    Attributes:
        name: What it is for.
        holder: Who took it.
        token: Larger than that of every holder before.
    """

    name: str
    holder: str
    token: int

    def check(self, connection: Connection) -> None:
        """See in an open transaction that it is held, and that nobody takes it meanwhile.

        Raises:
            LeaseLostError: If somebody else has taken it.
        """
        wanted = select(LeaseModel.token).where(LeaseModel.name == self.name)
        if connection.scalar(wanted.with_for_update(read=True)) != self.token:
            raise LeaseLostError(self.name)


_NOW: Any = func.extract("epoch", func.clock_timestamp())


def take(name: str, holder: str, seconds: float) -> Lease | None:
    """Become the holder for so many seconds; None if another still is.

    Its own holder takes it as well, with a new token.
    """
    made = insert(LeaseModel).values(name=name, holder=holder, token=1, expires=_NOW + seconds)
    taken = made.on_conflict_do_update(
        index_elements=["name"],
        set_={"holder": holder, "token": LeaseModel.token + 1, "expires": _NOW + seconds},
        where=or_(LeaseModel.expires < _NOW, LeaseModel.holder == holder),
    ).returning(LeaseModel.token)
    with engine().begin() as connection:
        token = connection.scalar(taken)
    return None if token is None else Lease(name, holder, token)


def renew(lease: Lease, seconds: float) -> bool:
    """Stay the holder for so many seconds from now; whether it still was one."""
    return _expire(lease, seconds)


def release(lease: Lease) -> None:
    """Let another take it at once."""
    _expire(lease, 0.0)


def _expire(lease: Lease, seconds: float) -> bool:
    own = (LeaseModel.name == lease.name, LeaseModel.token == lease.token)
    changed = update(LeaseModel).where(*own).values(expires=_NOW + seconds)
    with engine().begin() as connection:
        return connection.execute(changed).rowcount == 1


def held(name: str) -> dict[str, Any] | None:
    """Who holds a lease now, and for how many seconds; None if nobody does."""
    left = (LeaseModel.expires - _NOW).label("left")
    wanted = select(LeaseModel.holder, LeaseModel.token, left).where(LeaseModel.name == name)
    with engine().connect() as connection:
        row = connection.execute(wanted).one_or_none()
    if row is None or row.left <= 0:
        return None
    return {"holder": row.holder, "token": row.token, "seconds": round(row.left, 1)}
