from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from infra.controllers import LeaderElection, LeadershipLostError, LeaseStore
from tests.infra.controllers.lease_store import LeaseStoreContract, MemoryLeases
from tests.processes import eventually

SECONDS = 20.0


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class TestMemoryLeases(LeaseStoreContract):
    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def store(self, clock: Clock) -> LeaseStore:
        return MemoryLeases(clock)

    @pytest.fixture
    def expire(self, clock: Clock) -> Callable[[Any], None]:
        def later(_: Any) -> None:
            clock.now += 61

        return later


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryLeases:
    return MemoryLeases(clock)


def election(store: MemoryLeases, holder: str, **more: Any) -> LeaderElection:
    return LeaderElection(store, "x", holder, seconds=SECONDS, clock=store.clock, **more)


class TestCampaign:
    """Elections on a clock that the test moves."""

    def test_nobody_leads_before_a_campaign(self, store: MemoryLeases) -> None:
        made = election(store, "a")

        assert not made.is_leader()
        with pytest.raises(LeadershipLostError):
            made.confirm()

    def test_one_of_two_leads_and_the_other_takes_over_after_a_clean_end(
        self, store: MemoryLeases
    ) -> None:
        first, second = election(store, "a"), election(store, "b")
        first.campaign()
        second.campaign()
        assert (first.is_leader(), second.is_leader()) == (True, False)

        first.close()
        assert not first.is_leader()
        second.campaign()
        assert second.is_leader()
        assert second.confirm().token > 1

    def test_a_killed_leader_is_replaced_when_its_lease_is_over(
        self, store: MemoryLeases, clock: Clock
    ) -> None:
        first, second = election(store, "a"), election(store, "b")
        first.campaign()
        clock.now += SECONDS - 0.1
        second.campaign()
        assert not second.is_leader()

        clock.now += 0.2
        second.campaign()
        assert second.is_leader()
        first.campaign()  # it was only asleep
        assert not first.is_leader()

    def test_a_leader_without_its_store_stops_before_its_lease_is_over(
        self, store: MemoryLeases, clock: Clock
    ) -> None:
        first, second = election(store, "a"), election(store, "b")
        first.campaign()
        store.silent = True
        while first.is_leader():
            with pytest.raises(ConnectionError):
                first.campaign()
            clock.now += 1
        with pytest.raises(LeadershipLostError):
            first.confirm()
        store.silent = False
        second.campaign()
        assert not second.is_leader()  # nobody leads for a moment, and never two

        first.campaign()
        assert first.is_leader()

    def test_its_time_counts_from_before_the_store_was_asked(
        self, store: MemoryLeases, clock: Clock
    ) -> None:
        """An answer may be long on its way; the lease counts from when the store wrote it."""
        take = store.take

        def slow(*given: Any) -> Any:
            taken = take(*given)
            clock.now += SECONDS
            return taken

        store.take = slow  # type: ignore[method-assign]
        made = election(store, "a")
        made.campaign()

        assert not made.is_leader()

    def test_who_hangs_is_replaced_and_leads_again_when_it_may(
        self, store: MemoryLeases, clock: Clock
    ) -> None:
        first, second = election(store, "a", stalled_seconds=60.0), election(store, "b")
        first.campaign()
        for _ in range(100):  # its thread campaigns, its controller confirms nothing
            clock.now += 1
            first.campaign()
        assert not first.is_leader()
        second.campaign()
        assert not second.is_leader()  # nor does the second one's confirm anything
        with pytest.raises(LeadershipLostError):
            second.confirm()
        second.campaign()
        assert second.is_leader()

        second.close()
        with pytest.raises(LeadershipLostError):
            first.confirm()  # it goes on
        first.campaign()
        assert first.is_leader()

    def test_progress_keeps_it(self, store: MemoryLeases, clock: Clock) -> None:
        made = election(store, "a", stalled_seconds=60.0)
        made.campaign()
        for _ in range(100):
            clock.now += 2
            made.campaign()
            made.confirm()
        assert made.is_leader()

    def test_one_whose_token_was_outdated_leads_no_longer(self, store: MemoryLeases) -> None:
        made = election(store, "a")
        made.campaign()
        made.resign()

        assert not made.is_leader()

    def test_who_has_ended_campaigns_no_more(self, store: MemoryLeases) -> None:
        made = election(store, "a")
        made.close()
        made.campaign()

        assert not made.is_leader()
        assert store.take("x", "b", SECONDS) is not None

    def test_an_end_without_the_store_is_an_end(self, store: MemoryLeases) -> None:
        made = election(store, "a")
        made.campaign()
        store.silent = True
        made.close()

        assert not made.is_leader()

    def test_listeners_hear_of_the_election_once(self, store: MemoryLeases) -> None:
        heard: list[bool] = []
        made = election(store, "a")
        made.on_elected(lambda: heard.append(made.is_leader()))
        made.campaign()
        made.campaign()

        assert heard == [True]


class TestThread:
    def test_it_campaigns_aside_and_releases_the_lease(self, store: MemoryLeases) -> None:
        with election(store, "a", renew_seconds=0.01) as first:
            eventually(first.is_leader, "the first leads")
            with election(store, "b", renew_seconds=0.01) as second:
                tried = threading.Event()
                take = store.take

                def taking(name: str, holder: str, seconds: float) -> Any:
                    found = take(name, holder, seconds)
                    if holder == "b":
                        tried.set()
                    return found

                store.take = taking  # type: ignore[method-assign]
                assert tried.wait(30)
                assert not second.is_leader()
                first.close()
                assert not first.is_leader()
                eventually(second.is_leader, "the other leads")

    def test_it_goes_on_after_errors(
        self, store: MemoryLeases, caplog: pytest.LogCaptureFixture
    ) -> None:
        store.silent = True
        with election(store, "a", renew_seconds=0.01) as made:
            eventually(lambda: "no answer" in caplog.text, "it has failed")
            store.silent = False
            eventually(made.is_leader, "it leads")

    def test_an_end_does_not_wait_for_a_store_that_hangs(self, store: MemoryLeases) -> None:
        hangs, goes_on = threading.Event(), threading.Event()

        def hanging(*_: Any) -> Any:
            hangs.set()
            goes_on.wait(60)

        store.take = hanging  # type: ignore[method-assign]
        with election(store, "a", renew_seconds=0.01) as made:
            assert hangs.wait(30)
        goes_on.set()
        assert not made.is_leader()
