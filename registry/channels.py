"""Notifications of the catalogue's database, as a subscription of a controller."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psycopg
from psycopg import sql

from registry.catalogue import engine


class ChannelSubscription:
    """Events of a PostgreSQL channel, sent with ``pg_notify`` by whoever writes rows."""

    def __init__(self, channel: str) -> None:
        """Subscribe to ``channel`` when a controller listens."""
        self._channel = channel

    async def listen(self, notify: Callable[[], None]) -> None:
        """Call ``notify`` once connected, and with each event.

        Raises:
            psycopg.OperationalError: If the database cannot be reached, or is gone.
        """
        url = engine().url.set(drivername="postgresql").render_as_string(hide_password=False)
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)))
            notify()
            while True:
                async for _ in connection.notifies(timeout=0):
                    notify()
                await _readable(connection.fileno())


async def _readable(descriptor: int) -> None:
    """Wait until a socket can be read; psycopg itself would wake up ten times a second."""
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
