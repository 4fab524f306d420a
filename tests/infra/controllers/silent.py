from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class SilentSubscription:
    """Connected, without an event."""

    def __init__(self, *_: Any, **__: Any) -> None:
        """Subscribe to nothing."""

    async def listen(self, notify: Callable[[], None]) -> None:
        notify()
        await asyncio.Event().wait()
