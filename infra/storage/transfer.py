"""Many transfers at once, over the threads that the whole process shares.

A transfer is split into steps: short functions, each of which moves one part or one small file
and may say which steps follow. Steps never wait for each other, so they cannot block the threads.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import TypeVar

from infra.settings import Settings
from infra.storage import clients, failures
from infra.storage.base import Progress

T = TypeVar("T")

MIB = 2**20
# Parts that are in memory at the same time take no more than this, or one part if it is larger.
_MEMORY = 256 * MIB
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 4.0


class StoppedError(Exception):
    """Another step of the same transfer has failed, so that this one is of no use."""


@dataclass(frozen=True)
class CompletedBytes:
    """Result of a step.

    Attributes:
        moved: Bytes transferred by the step.
        then: Steps to run next.
    """

    moved: int = 0
    then: Sequence[Step] = ()


Step = Callable[[], CompletedBytes]


@dataclass
class Transfer:
    """One call of ``fetch`` or ``publish``: its limits, and whether it has been stopped.

    Attributes:
        settings: Number of threads and attempts, and size of parts.
        total: Bytes to transfer.
        progress: Called in the caller's thread.
    """

    settings: Settings
    total: int = 0
    progress: Progress | None = None
    _moved: int = 0
    _reported: int = -1
    _stopped: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Stop this step if the transfer has failed.

        Raises:
            StoppedError: If it has.
        """
        if self._stopped.is_set():
            raise StoppedError

    def pause(self, attempt: int) -> None:
        """Wait before the next attempt: longer each time, and not all at the same moment.

        Raises:
            StoppedError: If the transfer has failed.
        """
        longest = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2**attempt)
        self._stopped.wait(longest * random.uniform(0.5, 1))
        self.check()

    def run(self, steps: Iterable[Step], part_size: int = 0) -> None:
        """Do ``steps`` and all that follows from them.

        Args:
            steps: What to begin with.
            part_size: The most bytes that one step holds in memory.

        Raises:
            ModelyardError: The first error of a step; then no other step runs any more.
        """
        threads = self.settings.transfer_threads
        at_once = _MEMORY // part_size if part_size else threads
        # Two for each thread, so that no thread waits for this one to hand out work.
        limit = 2 * threads if at_once >= threads else max(1, at_once)
        queue, pending = deque(steps), set[Future[CompletedBytes]]()
        pool = clients.pool(threads)
        try:
            while queue or pending:
                while queue and len(pending) < limit:
                    pending.add(pool.submit(queue.popleft()))
                ended, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in ended:
                    done = future.result()
                    queue.extendleft(reversed(done.then))
                    self._tell(done.moved)
        except BaseException:
            self._stopped.set()
            raise
        finally:
            # No step may write into a folder that the caller is about to remove.
            for future in pending:
                future.cancel()
            with contextlib.suppress(KeyboardInterrupt):
                wait(pending)

    def _tell(self, moved: int) -> None:
        """Report the progress, which never decreases though a part may be transferred twice."""
        self._moved += moved
        known = min(max(self._moved, self._reported), self.total)
        if self.progress is not None and known > self._reported:
            self._reported = known
            self.progress(known, self.total)


def attempt(action: Callable[[], T], transfer: Transfer, uri: str, *, reached: bool = True) -> T:
    """Do ``action``, again where its failure may pass.

    Args:
        action: One request, with the whole of its answer's body.
        transfer: What it is part of.
        uri: For the error.
        reached: Whether the server has answered before; one that never did is not asked twice,
            because a wrong endpoint is to be named soon.

    Raises:
        ModelyardError: What went wrong, at last.
        StoppedError: If another step of the transfer failed.
        botocore.exceptions.ClientError: An answer that says why it is one, for the caller to
            interpret first.
    """
    for number in range(transfer.settings.transfer_attempts):
        transfer.check()
        try:
            return action()
        except failures.FAULTS as error:
            if failures.code_of(error) and not failures.is_transient(error):
                raise
            last = number + 1 == transfer.settings.transfer_attempts
            hopeless = failures.is_unreachable(error) and not reached
            if last or hopeless or not failures.is_transient(error):
                raise failures.translate(uri, error) from None
        transfer.pause(number)
    raise AssertionError("unreachable")
