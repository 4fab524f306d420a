from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from infra.controllers import (
    Controller,
    LeaderElection,
    LeadershipLostError,
    PeriodicTask,
    Reconciler,
    SharedSubscription,
    ThreadedReconciler,
)
from tests.infra.controllers.lease_store import MemoryLeases


class Killed(BaseException):
    """The process is gone."""


@dataclass
class Store:
    """What is wanted, what there is, and the token of whoever may write."""

    spec: set[str] = field(default_factory=set)
    status: set[str] = field(default_factory=set)
    token: int = 0

    def write(self, token: int, change: Callable[[], None]) -> None:
        if token < self.token:
            raise LeadershipLostError("outdated")
        self.token = token
        change()


class Keeper(Reconciler[tuple[set[str], set[str]], list[tuple[str, str]]]):
    """Makes what is missing and removes what nobody wants."""

    def __init__(self, store: Store, election: LeaderElection, before_act: Any = None) -> None:
        self.store = store
        self.election = election
        self.before_act = before_act or (lambda: None)
        self.forgot = 0

    async def observe(self) -> tuple[set[str], set[str]]:
        return set(self.store.spec), set(self.store.status)

    def decide(self, observed: tuple[set[str], set[str]]) -> list[tuple[str, str]]:
        spec, status = observed
        return [("remove", one) for one in sorted(status - spec)] + [
            ("make", one) for one in sorted(spec - status)
        ]

    async def act(self, plan: list[tuple[str, str]]) -> None:
        for verb, one in plan:
            self.before_act()
            change = self.store.status.add if verb == "make" else self.store.status.discard
            self.store.write(self.election.confirm().token, lambda c=change, o=one: c(o))

    def on_stopped_leading(self) -> None:
        self.forgot += 1


class World:
    """Controllers on one clock, one store and one lease."""

    def __init__(self) -> None:
        self.now = 0.0
        self.store = Store()
        self.leases = MemoryLeases(lambda: self.now)
        self._names = itertools.count()

    def controller(self, before_act: Any = None) -> tuple[Controller[Any, Any], Keeper]:
        election = LeaderElection(
            self.leases, "x", str(next(self._names)), seconds=20.0, clock=lambda: self.now
        )
        keeper = Keeper(self.store, election, before_act)
        return Controller("x", keeper, resync_seconds=30.0, leadership=election), keeper


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


class TestRound:
    def test_it_observes_decides_and_acts(self) -> None:
        world = World()
        world.store.spec, world.store.status = {"a", "b"}, {"b", "c"}
        made, keeper = world.controller()
        keeper.election.campaign()

        assert run(made.reconcile()) == 30.0
        assert world.store.status == {"a", "b"}

    def test_who_does_not_lead_does_nothing(self) -> None:
        world = World()
        world.store.spec = {"a"}
        made, _ = world.controller()

        assert run(made.reconcile()) == 30.0
        assert world.store.status == set()

    def test_who_leads_no_longer_forgets_once(self) -> None:
        world = World()
        made, keeper = world.controller()
        keeper.election.campaign()
        run(made.reconcile())
        world.now += 100
        run(made.reconcile())
        run(made.reconcile())

        assert keeper.forgot == 1

    def test_who_was_overtaken_in_the_middle_of_a_round_writes_no_more(self) -> None:
        world = World()
        world.store.spec = {"a", "b", "c"}
        other, its_keeper = world.controller()

        def overtaken() -> None:
            if len(world.store.status) == 1:
                world.now += 21  # it slept for longer than its lease lasts
                its_keeper.election.campaign()
                world.store.token = its_keeper.election.confirm().token

        made, keeper = world.controller(before_act=overtaken)
        keeper.election.campaign()
        run(made.reconcile())
        assert world.store.status == {"a"}
        assert not keeper.election.is_leader()

        run(other.reconcile())
        assert world.store.status == {"a", "b", "c"}

    @pytest.mark.parametrize("survives", range(6))
    def test_killed_between_any_two_acts_the_next_one_finishes(self, survives: int) -> None:
        world = World()
        world.store.spec, world.store.status = {"a", "b", "c"}, {"x", "y", "z"}
        acts = itertools.count()

        def perhaps_killed() -> None:
            if next(acts) == survives:
                raise Killed

        made, keeper = world.controller(before_act=perhaps_killed)
        keeper.election.campaign()
        with pytest.raises(Killed):
            run(made.reconcile())
        assert len(world.store.status ^ {"x", "y", "z"}) == survives

        other, its_keeper = world.controller()
        its_keeper.election.campaign()
        run(other.reconcile())
        assert not its_keeper.election.is_leader()  # the lease of the killed one is not over
        world.now += 21
        its_keeper.election.campaign()
        run(other.reconcile())
        assert world.store.status == {"a", "b", "c"}

    def test_an_error_is_logged_and_the_round_repeated_soon(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        errors: list[Exception] = [ValueError("odd"), ConnectionError("gone")]

        async def fails() -> None:
            if errors:
                raise errors.pop(0)

        made = Controller(
            "x", PeriodicTask(fails), resync_seconds=30.0, retry_seconds=2.0,
            outages=(ConnectionError,),
        )  # fmt: skip

        assert [run(made.reconcile()) for _ in range(3)] == [2.0, 2.0, 30.0]
        assert "ValueError: odd" in caplog.text
        assert "a server does not answer: gone" in caplog.text
        assert "ConnectionError" not in caplog.text  # an outage needs no traceback

    def test_a_round_may_ask_for_an_earlier_one_and_not_for_a_later(self) -> None:
        class Asking(PeriodicTask):
            after: float | None = 0.5

            async def act(self, plan: None) -> Any:
                return self.after

        asking = Asking(lambda: asyncio.sleep(0))
        made = Controller("x", asking, resync_seconds=30.0)
        assert run(made.reconcile()) == 0.5
        asking.after = float("inf")
        assert run(made.reconcile()) == 30.0

    def test_it_is_healthy_while_rounds_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from infra.controllers import controller

        clock = [0.0]
        monkeypatch.setattr(controller.time, "monotonic", lambda: clock[0])
        made = Controller("x", PeriodicTask(lambda: asyncio.sleep(0)), resync_seconds=30.0)
        clock[0] = 179.0
        assert made.is_healthy(180.0)
        clock[0] = 181.0
        assert not made.is_healthy(180.0)
        run(made.reconcile())
        assert made.is_healthy(180.0)

    def test_a_blocking_reconciler_runs_in_threads(self) -> None:
        threads: list[str] = []

        class Blocking:
            def observe(self) -> int:
                threads.append(threading.current_thread().name)
                return 1

            def decide(self, observed: int) -> int:
                return observed + 1

            def act(self, plan: int) -> float:
                threads.append(threading.current_thread().name)
                return float(plan)

        made = Controller("x", ThreadedReconciler(Blocking()), resync_seconds=30.0)

        assert run(made.reconcile()) == 2.0
        assert threading.main_thread().name not in threads


class Events:
    """A subscription that a test drives; it ends with what ``end`` is told."""

    def __init__(self) -> None:
        self.connected = 0
        self.notify: Callable[[], None] = lambda: None
        self._ended: asyncio.Future[None] | None = None

    async def listen(self, notify: Callable[[], None]) -> None:
        self._ended = asyncio.get_running_loop().create_future()
        self.connected += 1
        self.notify = notify
        notify()
        await self._ended

    def end(self, error: Exception) -> None:
        assert self._ended is not None
        self._ended.set_exception(error)


class TestLoop:
    """The loop itself; its rounds are counted, and its timers are too long to matter."""

    def setup_method(self) -> None:
        self.rounds = 0
        self.counted = asyncio.Condition()

    async def _count(self) -> None:
        async with self.counted:
            self.rounds += 1
            self.counted.notify_all()

    async def _reaches(self, rounds: int) -> None:
        async with asyncio.timeout(60), self.counted:
            await self.counted.wait_for(lambda: self.rounds >= rounds)

    def _run(
        self, made: Controller[Any, Any], script: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        async def both() -> None:
            loop = asyncio.create_task(made.run())
            try:
                await script()
                assert not loop.done()
            finally:
                loop.cancel()
                with suppress(asyncio.CancelledError):
                    await loop

        asyncio.run(both())

    def test_an_event_wakes_it_and_so_does_each_connection(self) -> None:
        events = Events()
        made = Controller(
            "x", PeriodicTask(self._count), resync_seconds=3600.0, subscriptions=[events],
            retry_seconds=0.01,
        )  # fmt: skip

        async def script() -> None:
            await self._reaches(2)  # at the start, and when it was connected
            events.notify()
            await self._reaches(3)
            events.end(ConnectionError("lost"))
            await self._reaches(5)  # what happened while it was not connected is looked for
            assert events.connected == 2

        self._run(made, script)

    def test_it_polls_while_a_subscription_is_not_connected(self) -> None:
        class Broken:
            async def listen(self, notify: Callable[[], None]) -> None:
                raise ConnectionError("refused")

        made = Controller(
            "x", PeriodicTask(self._count), resync_seconds=3600.0, poll_seconds=0.01,
            subscriptions=[Broken()], retry_seconds=3600.0,
        )  # fmt: skip

        self._run(made, lambda: self._reaches(10))

    def test_any_thread_may_wake_it(self) -> None:
        made = Controller("x", PeriodicTask(self._count), resync_seconds=3600.0)

        async def script() -> None:
            await self._reaches(1)
            await asyncio.to_thread(made.notify)
            await self._reaches(2)

        made.notify()  # it does not run yet, and looks when it does
        self._run(made, script)

    def test_events_of_one_moment_are_one_round(self) -> None:
        events = Events()
        made = Controller(
            "x", PeriodicTask(self._count), resync_seconds=3600.0, subscriptions=[events]
        )

        async def script() -> None:
            await self._reaches(2)
            for _ in range(100):
                events.notify()
            await self._reaches(3)
            events.notify()
            await self._reaches(4)
            assert self.rounds == 4

        self._run(made, script)

    def test_an_event_is_answered_when_others_have_settled(self) -> None:
        events = Events()
        made = Controller(
            "x", PeriodicTask(self._count), resync_seconds=3600.0, settle_seconds=3600.0,
            subscriptions=[events],
        )  # fmt: skip

        async def script() -> None:
            await self._reaches(1)
            for _ in range(100):
                events.notify()
                await asyncio.sleep(0)
            assert self.rounds == 1

        self._run(made, script)

        self.setup_method()
        soon = Controller(
            "x", PeriodicTask(self._count), resync_seconds=3600.0, settle_seconds=0.01,
            subscriptions=[events],
        )  # fmt: skip
        self._run(soon, lambda: self._reaches(2))


class TestSharedSubscription:
    def test_all_listeners_share_one_connection_and_its_end(self) -> None:
        events = Events()
        shared = SharedSubscription(events)
        heard: list[str] = []

        async def script() -> None:
            first = asyncio.create_task(shared.listen(lambda: heard.append("first")))
            await asyncio.sleep(0)
            second = asyncio.create_task(shared.listen(lambda: heard.append("second")))
            while len(heard) < 2:
                await asyncio.sleep(0)
            events.notify()
            assert sorted(heard) == ["first", "first", "second", "second"]
            events.end(ConnectionError("lost"))
            ends = await asyncio.gather(first, second, return_exceptions=True)
            assert [str(one) for one in ends] == ["lost", "lost"]
            assert events.connected == 1

            again = asyncio.create_task(shared.listen(lambda: heard.append("again")))
            while "again" not in heard:
                await asyncio.sleep(0)
            assert events.connected == 2
            again.cancel()
            await asyncio.wait([again])

        asyncio.run(script())

    def test_one_listener_that_ends_leaves_the_others(self) -> None:
        events = Events()
        shared = SharedSubscription(events)
        heard: list[str] = []

        async def script() -> None:
            first = asyncio.create_task(shared.listen(lambda: heard.append("first")))
            second = asyncio.create_task(shared.listen(lambda: heard.append("second")))
            while len(heard) < 2:
                await asyncio.sleep(0)
            first.cancel()
            await asyncio.wait([first])
            events.notify()
            assert heard.count("second") == 2
            assert heard.count("first") == 1
            second.cancel()
            await asyncio.wait([second])

        asyncio.run(script())
