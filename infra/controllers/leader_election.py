"""Leader election among processes, by a lease with a fencing token.

The lease is renewed in a thread, so that neither a slow round nor a busy event loop loses it. A
leader stops leading by its own clock before its lease expires in the store, and stops renewing
the lease of a controller that hangs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, Self

_RENEW_SECONDS = 3.0
_TRY_SECONDS = 2.0
_MARGIN_SECONDS = 2.0  # how far the store's clock and this process's may drift within one lease
_STALLED_SECONDS = 60.0

_logger = logging.getLogger("modelyard.leader_election")


class LeadershipLostError(RuntimeError):
    """Another process leads now."""


class Leadership(Protocol):
    """Whether this process may act."""

    def is_leader(self) -> bool:
        """Whether this process leads now. Does not block."""

    def confirm(self) -> Any:
        """Report progress; the lease, whose token each transaction checks.

        Raises:
            LeadershipLostError: If another process leads, or may lead by now.
        """

    def resign(self) -> None:
        """Stop leading at once, after a write found the token outdated."""


class LeaseStore(Protocol):
    """Where leases are kept. Its tokens grow with each holder; its methods block."""

    def take(self, name: str, holder: str, seconds: float) -> Any:
        """Take a lease that is free, expired or the holder's own; None if another holds it."""

    def renew(self, lease: Any, seconds: float) -> bool:
        """Extend a lease; False if it was taken by another holder."""

    def release(self, lease: Any) -> None:
        """Free a lease for others at once."""


class _AlwaysLeader:
    """For a controller that has no rivals."""

    def is_leader(self) -> bool:
        return True

    def confirm(self) -> None:
        return None

    def resign(self) -> None:
        raise AssertionError("nothing is checked against a token")


ALWAYS_LEADER: Leadership = _AlwaysLeader()


class LeaderElection:
    """Campaigns for a lease until it is closed.

    Use it as a context manager, which runs the campaign in a thread and frees the lease at its
    end, or call :meth:`campaign` from a loop of one's own.
    """

    def __init__(
        self,
        store: LeaseStore,
        name: str,
        holder: str,
        *,
        seconds: float,
        renew_seconds: float = _RENEW_SECONDS,
        stalled_seconds: float = _STALLED_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare the campaign.

        Args:
            store: Keeps the lease.
            name: The lease's name; one process leads per name.
            holder: This process's name, which no other has.
            seconds: How long the lease lasts without renewal.
            renew_seconds: How often it is renewed; one that another holds is tried for every two
                seconds, or as often.
            stalled_seconds: The lease of a leader without progress for so long is not renewed.
            clock: A monotonic clock, in seconds.
        """
        self.holder = holder
        self._store = store
        self._name = name
        self._seconds = seconds
        self._renew_seconds = renew_seconds
        self._try_seconds = min(renew_seconds, _TRY_SECONDS)
        self._stalled_seconds = stalled_seconds
        self._clock = clock
        self._lease: Any = None
        self._until = 0.0
        self._progress = clock()
        self._listeners: list[Callable[[], None]] = []
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True, name="leader election")

    def is_leader(self) -> bool:
        """Whether this process leads now."""
        return self._lease is not None and self._clock() < self._until

    def confirm(self) -> Any:
        """Report progress; the lease, whose token each transaction checks.

        Raises:
            LeadershipLostError: If another process leads, or may lead by now.
        """
        self._progress = self._clock()
        lease = self._lease
        if lease is None or not self.is_leader():
            raise LeadershipLostError(f"This process does not lead {self._name}.")
        return lease

    def resign(self) -> None:
        """Stop leading at once, after a write found the token outdated."""
        _logger.warning("Another process leads %s now.", self._name)
        self._lease = None

    def on_elected(self, notify: Callable[[], None]) -> None:
        """Call ``notify``, in the campaign's thread, whenever this process becomes the leader."""
        self._listeners.append(notify)

    def campaign(self) -> None:
        """Renew the lease, or try to take it, once.

        Raises:
            Exception: What the store raises; the process leads until its own clock ends that.
        """
        with self._lock:  # an end must not free what this takes
            if not self._stopped.is_set():
                self._campaign()

    def _campaign(self) -> None:
        began = self._clock()
        if began - self._progress > self._stalled_seconds:
            _logger.error("The controller of %s hangs; another process may lead.", self._name)
            return
        until = began + max(self._seconds - _MARGIN_SECONDS, self._seconds / 2)
        if self._lease is not None:
            if self._store.renew(self._lease, self._seconds):
                self._until = until
                return
            self.resign()
        lease = self._store.take(self._name, self.holder, self._seconds)
        if lease is None:
            return
        self._lease, self._until = lease, until
        _logger.info("%s leads %s.", self.holder, self._name)
        for notify in self._listeners:
            notify()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the campaign and free the lease, so that another process leads at once."""
        self._stopped.set()
        if not self._lock.acquire(timeout=self._renew_seconds):
            self._lease = None  # the store does not answer: the lease expires by itself
            return
        lease, self._lease = self._lease, None
        try:
            if lease is not None:
                self._store.release(lease)
        except Exception as error:  # noqa: BLE001 (the lease expires by itself)
            _logger.warning("The lease %s was not released: %s", self._name, error)
        finally:
            self._lock.release()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.campaign()
            except Exception as error:  # noqa: BLE001 (the loop's edge; tried again)
                _logger.warning("The lease %s cannot be renewed: %s", self._name, error)
            leads = self.is_leader()
            self._stopped.wait(self._renew_seconds if leads else self._try_seconds)
