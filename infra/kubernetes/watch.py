"""Changes of a cluster's objects, as a subscription of a controller."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping

from infra.kubernetes.api import Api


class WatchSubscription:
    """Changes of the objects of a kind that have certain labels."""

    def __init__(self, api: Api, kind: str, labels: Mapping[str, str]) -> None:
        """Watch when a controller listens."""
        self._api = api
        self._kind = kind
        self._labels = labels

    async def listen(self, notify: Callable[[], None]) -> None:
        """Call ``notify`` once connected, and with each change.

        Raises:
            ClusterError: If the account may not watch them, or the connection breaks.
        """
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        stopped = threading.Event()

        def on_end(error: Exception) -> None:
            if not ended.done():
                ended.set_exception(error)

        def call(function: Callable[..., object], *arguments: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(function, *arguments)

        def follow() -> None:
            try:
                while not stopped.is_set():  # a server ends each watch after a while
                    with self._api.watch(self._kind, self._labels) as changes:
                        call(notify)
                        for _ in changes:
                            if stopped.is_set():
                                return
                            call(notify)
            except Exception as error:  # noqa: BLE001 (the edge of a thread; raised by listen)
                call(on_end, error)

        # Not of the loop's executor, which waits for its threads at the end: this one may read.
        threading.Thread(target=follow, daemon=True, name=f"watch {self._kind}").start()
        try:
            await ended
        finally:
            stopped.set()
