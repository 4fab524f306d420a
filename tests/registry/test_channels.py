from __future__ import annotations

import asyncio
from collections.abc import Iterator

import psycopg
import pytest

from infra.home import Home
from registry import catalogue
from registry.channels import ChannelSubscription
from registry.schedules import schedules
from tests.registry.conftest import new_database


@pytest.fixture(autouse=True)
def _catalogue(database_home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MODELYARD_DATABASE_URL", new_database(database_home))
    catalogue.migrate()
    yield
    catalogue.engine().dispose()


def notify_schedule() -> None:
    with catalogue.engine().begin() as connection:
        schedules.notify_changed(connection, "any")


def end_other_connections() -> None:
    """End the database's other connections, as a restart of it would."""
    url = catalogue.engine().url.set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


async def _listening() -> tuple[asyncio.Task[None], asyncio.Queue[None]]:
    heard: asyncio.Queue[None] = asyncio.Queue()
    subscription = ChannelSubscription(schedules.CHANNEL)
    task = asyncio.create_task(subscription.listen(lambda: heard.put_nowait(None)))
    await asyncio.wait_for(heard.get(), 60)  # it is connected
    return task, heard


def test_it_hears_of_each_event() -> None:
    async def script() -> None:
        task, heard = await _listening()
        for _ in range(2):
            await asyncio.to_thread(notify_schedule)
            await asyncio.wait_for(heard.get(), 60)
        assert heard.empty()
        task.cancel()

    asyncio.run(script())


def test_it_ends_when_the_database_is_gone_and_can_listen_again() -> None:
    async def script() -> None:
        task, _ = await _listening()
        await asyncio.to_thread(end_other_connections)
        with pytest.raises(psycopg.OperationalError):
            await asyncio.wait_for(task, 60)
        again, heard = await _listening()
        await asyncio.to_thread(notify_schedule)
        await asyncio.wait_for(heard.get(), 60)
        again.cancel()

    asyncio.run(script())
