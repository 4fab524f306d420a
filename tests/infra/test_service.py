from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket

import pytest

from infra import forked, service
from infra.home import Home

NAME = "scheduler.sock"


async def _accepts(home: Home) -> bool:
    async with service.liveness_socket(home, NAME):
        return await asyncio.to_thread(forked.accepts, home.sockets / NAME)


def test_its_home_is_made_where_it_is_missing(home: Home) -> None:
    shutil.rmtree(home.root)

    assert asyncio.run(_accepts(home))


def test_it_is_seen_though_another_was_killed_and_left_its_socket(home: Home) -> None:
    path = home.sockets / NAME
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert path.exists()
    assert not forked.accepts(path)

    assert asyncio.run(_accepts(home))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_cancels_the_loops(signum: signal.Signals) -> None:
    ended: list[str] = []

    async def loop(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async def signals() -> None:
        os.kill(os.getpid(), signum)

    asyncio.run(service.run_until_stopped(loop("a"), loop("b"), signals()))

    assert sorted(ended) == ["a", "b"]


def test_a_loop_that_fails_ends_the_others() -> None:
    ended: list[str] = []

    async def loop() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("a")

    async def fails() -> None:
        raise KeyError("x")

    with pytest.raises(ExceptionGroup):
        asyncio.run(service.run_until_stopped(loop(), fails()))
    assert ended == ["a"]
