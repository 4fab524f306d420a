"""The contract of a lease store, and a store in memory on a clock that a test moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from infra.controllers import LeaseStore


@dataclass(frozen=True)
class MemoryLease:
    name: str
    holder: str
    token: int


@dataclass
class MemoryLeases:
    """Leases in memory; ``silent`` makes it fail as a database does that is down."""

    clock: Callable[[], float]
    held: dict[str, tuple[MemoryLease, float]] = field(default_factory=dict)
    silent: bool = False

    def take(self, name: str, holder: str, seconds: float) -> MemoryLease | None:
        self._answer()
        last, expires = self.held.get(name, (MemoryLease(name, "", 0), 0.0))
        if expires > self.clock() and last.holder != holder:
            return None
        taken = MemoryLease(name, holder, last.token + 1)
        self.held[name] = (taken, self.clock() + seconds)
        return taken

    def renew(self, lease: MemoryLease, seconds: float) -> bool:
        self._answer()
        if self.held[lease.name][0] != lease:
            return False
        self.held[lease.name] = (lease, self.clock() + seconds)
        return True

    def release(self, lease: MemoryLease) -> None:
        self.renew(lease, 0.0)

    def _answer(self) -> None:
        if self.silent:
            raise ConnectionError("no answer")


class LeaseStoreContract:
    """What every lease store does."""

    @pytest.fixture
    def store(self) -> LeaseStore:
        raise NotImplementedError

    @pytest.fixture
    def expire(self) -> Callable[[Any], None]:
        """Makes a lease expire."""
        raise NotImplementedError

    def test_one_of_two_has_it(self, store: LeaseStore) -> None:
        first = store.take("x", "a", 60)

        assert first is not None
        assert store.take("x", "b", 60) is None
        assert store.take("y", "b", 60) is not None

    def test_its_holder_takes_it_again_with_a_larger_token(self, store: LeaseStore) -> None:
        first, again = store.take("x", "a", 60), store.take("x", "a", 60)

        assert again.token > first.token
        assert not store.renew(first, 60)
        assert store.renew(again, 60)

    def test_another_takes_it_at_once_when_it_is_released(self, store: LeaseStore) -> None:
        first = store.take("x", "a", 60)
        store.release(first)
        second = store.take("x", "b", 60)

        assert second.token > first.token
        assert store.take("x", "a", 60) is None

    def test_another_takes_it_when_it_has_expired(
        self, store: LeaseStore, expire: Callable[[Any], None]
    ) -> None:
        first = store.take("x", "a", 60)
        expire(first)
        second = store.take("x", "b", 60)

        assert second.token > first.token
        assert not store.renew(first, 60)
        store.release(first)  # it is another's, and stays so
        assert store.take("x", "a", 60) is None

    def test_one_that_expired_and_nobody_took_is_renewed(
        self, store: LeaseStore, expire: Callable[[Any], None]
    ) -> None:
        lease = store.take("x", "a", 60)
        expire(lease)

        assert store.renew(lease, 60)
        assert store.take("x", "b", 60) is None
