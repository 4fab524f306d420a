"""What all controllers are: a task that goes on until it is ended, with its timers."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Hashable


class ControlLoop(ABC):
    """A controller. What it has put off until later goes with it."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._due: dict[Hashable, asyncio.TimerHandle] = {}

    def start(self) -> None:
        """Begin, in the running event loop."""
        self._task = asyncio.create_task(self._go_on())

    async def stop(self) -> None:
        """End."""
        for timer in self._due.values():
            timer.cancel()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    @abstractmethod
    async def _go_on(self) -> None:
        """Look whenever something has changed, for ever."""
