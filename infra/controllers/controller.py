"""The loop of a controller: observe, decide, act, and wait for an event or a timer."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NoReturn, Protocol, TypeVar

from infra.controllers.leader_election import ALWAYS_LEADER, Leadership, LeadershipLostError

_RETRY_SECONDS = 1.0
_LONGEST_RECONNECT_SECONDS = 30.0

ObservedT = TypeVar("ObservedT")
PlanT = TypeVar("PlanT")

_logger = logging.getLogger("modelyard.controller")


class Reconciler(ABC, Generic[ObservedT, PlanT]):
    """Drives one kind of thing toward its specification, one round at a time.

    A process may be killed between any two writes, and another may lead from then on. So a round
    starts from what it observes, and repeating a round changes nothing more. What is remembered
    between rounds only saves work.
    """

    @abstractmethod
    async def observe(self) -> ObservedT:
        """Read specification and status; write nothing."""

    @abstractmethod
    def decide(self, observed: ObservedT) -> PlanT:
        """Decide what to do. Pure: neither input nor output, and no clock but the observed one."""

    @abstractmethod
    async def act(self, plan: PlanT) -> float | None:
        """Do what was decided.

        A transaction checks the token of ``Leadership.confirm()``; a write to a store without
        transactions asks ``Leadership.is_leader()`` directly before.

        Returns:
            Seconds until the next round at the latest; None for the controller's own interval.

        Raises:
            LeadershipLostError: If another process leads; the rest of the plan is dropped.
        """

    def on_stopped_leading(self) -> None:
        """Forget what was observed as the leader."""


class BlockingReconciler(Protocol[ObservedT, PlanT]):
    """A reconciler whose methods block; its contract is that of :class:`Reconciler`."""

    def observe(self) -> ObservedT:
        """Read specification and status; write nothing."""

    def decide(self, observed: ObservedT) -> PlanT:
        """Decide what to do; pure."""

    def act(self, plan: PlanT) -> float | None:
        """Do what was decided; seconds until the next round at the latest."""


class ThreadedReconciler(Reconciler[ObservedT, PlanT]):
    """Runs a blocking reconciler in threads. A cancelled round ends in its thread by itself."""

    def __init__(self, reconciler: BlockingReconciler[ObservedT, PlanT]) -> None:
        """Wrap ``reconciler``."""
        self._reconciler = reconciler

    async def observe(self) -> ObservedT:
        """Observe in a thread."""
        return await asyncio.to_thread(self._reconciler.observe)

    def decide(self, observed: ObservedT) -> PlanT:
        """Decide here."""
        return self._reconciler.decide(observed)

    async def act(self, plan: PlanT) -> float | None:
        """Act in a thread."""
        return await asyncio.to_thread(self._reconciler.act, plan)


class PeriodicTask(Reconciler[None, None]):
    """A task that observes and decides by itself."""

    def __init__(self, task: Callable[[], Awaitable[object]]) -> None:
        """Wrap ``task``, which is safe to repeat."""
        self._task = task

    async def observe(self) -> None:
        """Observe nothing."""

    def decide(self, observed: None) -> None:
        """Decide nothing."""

    async def act(self, plan: None) -> None:
        """Do the task."""
        await self._task()


class Subscription(Protocol):
    """A source of events that say that something may have changed."""

    async def listen(self, notify: Callable[[], None]) -> None:
        """Call ``notify`` once when connected, then with each event, until the connection ends.

        Raises:
            Exception: If it cannot connect, or loses the connection; it is called again then.
        """


class Controller(Generic[ObservedT, PlanT]):
    """Runs a reconciler: while it leads, at each event, and at least once per interval."""

    def __init__(
        self,
        name: str,
        reconciler: Reconciler[ObservedT, PlanT],
        *,
        resync_seconds: float,
        poll_seconds: float | None = None,
        settle_seconds: float = 0.0,
        leadership: Leadership = ALWAYS_LEADER,
        subscriptions: Sequence[Subscription] = (),
        outages: tuple[type[Exception], ...] = (),
        retry_seconds: float = _RETRY_SECONDS,
    ) -> None:
        """Prepare the loop.

        Args:
            name: Its name in the log.
            reconciler: What each round does.
            resync_seconds: The longest time between rounds.
            poll_seconds: The same while a subscription is not connected.
            settle_seconds: The time from an event to its round, which answers all events until
                then. It is longer where no user waits for the round.
            leadership: Whether this process may act.
            subscriptions: What wakes the loop.
            outages: Errors that say that a server is down; logged without a traceback.
            retry_seconds: The time to the next round after an error.
        """
        self._name = name
        self._reconciler = reconciler
        self._resync_seconds = resync_seconds
        self._poll_seconds = resync_seconds if poll_seconds is None else poll_seconds
        self._settle_seconds = settle_seconds
        self._leadership = leadership
        self._subscriptions = subscriptions
        self._outages = outages
        self._retry_seconds = retry_seconds
        self._connected: set[int] = set()
        self._leads = False
        self._woken = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._finished = time.monotonic()

    def is_healthy(self, seconds: float) -> bool:
        """Whether a round has ended, well or not, within the last ``seconds``."""
        return time.monotonic() - self._finished < seconds

    def notify(self) -> None:
        """Wake the loop. May be called in any thread; does nothing before it runs."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._woken.set)

    async def run(self) -> NoReturn:
        """Run until cancelled."""
        self._loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            for number in range(len(self._subscriptions)):
                group.create_task(self._follow(number))
            while True:
                self._woken.clear()
                await self._wait(await self.reconcile())

    async def reconcile(self) -> float:
        """Do one round; seconds until the next one at the latest."""
        try:
            delay = await self._round()
        except LeadershipLostError:
            self._leadership.resign()
            delay = self._retry_seconds
        except self._outages as error:
            _logger.warning("%s: a server does not answer: %s", self._name, error)
            delay = self._retry_seconds
        except Exception:
            _logger.exception("%s: the round failed and is repeated", self._name)
            delay = self._retry_seconds
        self._finished = time.monotonic()
        return delay

    async def _round(self) -> float:
        try:
            self._leadership.confirm()
        except LeadershipLostError:
            self._stop_leading()
            return self._resync_seconds
        self._leads = True
        reconciler = self._reconciler
        delay = await reconciler.act(reconciler.decide(await reconciler.observe()))
        return self._resync_seconds if delay is None else min(delay, self._resync_seconds)

    def _stop_leading(self) -> None:
        if self._leads:
            self._leads = False
            self._reconciler.on_stopped_leading()

    async def _wait(self, seconds: float) -> None:
        if len(self._connected) < len(self._subscriptions):
            seconds = min(seconds, self._poll_seconds)
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
                await asyncio.sleep(self._settle_seconds)
        except TimeoutError:
            await asyncio.sleep(0)  # a round without delays still lets others run

    async def _follow(self, number: int) -> NoReturn:
        """Follow a subscription, and connect it again whenever it ends."""

        def notify() -> None:
            self._connected.add(number)
            self._woken.set()

        delay = self._retry_seconds
        while True:
            reason: object = "the connection was closed"
            try:
                await self._subscriptions[number].listen(notify)
            except Exception as error:  # noqa: BLE001 (the loop's edge; connected again)
                reason = error
            if number in self._connected:
                self._connected.discard(number)
                self._woken.set()  # so that it polls
                delay = self._retry_seconds
            if delay == self._retry_seconds:
                _logger.warning("%s: polling, since events cannot be had: %s", self._name, reason)
            await asyncio.sleep(delay)
            delay = min(2 * delay, _LONGEST_RECONNECT_SECONDS)
