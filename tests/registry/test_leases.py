from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from infra.controllers import LeadershipLostError, LeaseStore
from registry import catalogue, leases
from tests.infra.controllers.lease_store import LeaseStoreContract

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _catalogue(postgresql: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MODELYARD_DATABASE_URL", postgresql)
    catalogue.migrate()
    yield
    catalogue.engine().dispose()


class TestLeases(LeaseStoreContract):
    @pytest.fixture
    def store(self) -> LeaseStore:
        return leases

    @pytest.fixture
    def expire(self) -> Callable[[Any], None]:
        def ends(lease: leases.Lease) -> None:
            leases.renew(lease, -1.0)

        return ends


def test_a_write_under_an_outdated_token_fails() -> None:
    old = leases.take("fenced", "a", 0.0)
    assert old is not None
    with catalogue.engine().begin() as connection:
        old.check(connection)
    assert leases.take("fenced", "a", 60.0) is not None

    with catalogue.engine().begin() as connection, pytest.raises(LeadershipLostError):
        old.check(connection)
