"""Leases in the catalogue, by the database's own clock: the store of leader elections.

A lease has a token that grows with each holder. A holder checks the token in the transaction of
each write, so that a holder that was replaced while it hung changes nothing any more. The module
is an :class:`infra.controllers.LeaseStore`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Connection, Double, Text, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column

from infra.controllers import LeadershipLostError
from registry.catalogue import Base, engine


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
        name: Its name.
        holder: The process that took it.
        token: Larger than that of each holder before.
    """

    name: str
    holder: str
    token: int

    def check(self, connection: Connection) -> None:
        """Check the token in an open transaction, until whose end no other can take the lease.

        Raises:
            LeadershipLostError: If another holder has taken it.
        """
        wanted = select(LeaseModel.token).where(LeaseModel.name == self.name)
        if connection.scalar(wanted.with_for_update(read=True)) != self.token:
            raise LeadershipLostError(f"The lease {self.name} has another holder.")


_NOW: Any = func.extract("epoch", func.clock_timestamp())


def take(name: str, holder: str, seconds: float) -> Lease | None:
    """Take a lease that is free, expired or the holder's own, with a new token.

    Returns:
        The lease; None while another holds it.
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
    """Extend a lease to so many seconds from now; False if another holder has taken it."""
    return _expire(lease, seconds)


def release(lease: Lease) -> None:
    """Free a lease for others at once."""
    _expire(lease, 0.0)


def _expire(lease: Lease, seconds: float) -> bool:
    own = (LeaseModel.name == lease.name, LeaseModel.token == lease.token)
    changed = update(LeaseModel).where(*own).values(expires=_NOW + seconds)
    with engine().begin() as connection:
        return connection.execute(changed).rowcount == 1


def held(name: str) -> dict[str, Any] | None:
    """The holder, token and remaining seconds of a lease; None if it is free."""
    left = (LeaseModel.expires - _NOW).label("left")
    wanted = select(LeaseModel.holder, LeaseModel.token, left).where(LeaseModel.name == name)
    with engine().connect() as connection:
        row = connection.execute(wanted).one_or_none()
    if row is None or row.left <= 0:
        return None
    return {"holder": row.holder, "token": row.token, "seconds": round(row.left, 1)}
