from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from infra.home import Home
from infra.settings import Settings
from infra.stack import supervisor
from infra.stack.parts import Part
from tests.infra.stack.fakes import Stack, Supervised
from tests.processes import PATIENCE_SECONDS


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_IDLE_SECONDS", 0.1)
    monkeypatch.setattr(supervisor, "_POLL_SECONDS", 0.02)


@pytest.fixture
def supervised(home: Home, monkeypatch: pytest.MonkeyPatch) -> Supervised:
    @contextlib.asynccontextmanager
    async def start(
        *parts: Part, lasting: bool = True, timeout: float = PATIENCE_SECONDS
    ) -> AsyncIterator[Stack]:
        monkeypatch.setattr(supervisor.parts_module, "build", lambda *_: list(parts))
        settings = Settings(
            home=home.root,
            prefect_port=0,
            mlflow_port=0,
            web_port=0,
            start_timeout_seconds=timeout,
        )
        task = asyncio.create_task(supervisor.supervise(home, settings, lasting=lasting))
        try:
            async with asyncio.timeout(2 * PATIENCE_SECONDS):
                yield Stack(home, task)
                if not task.done():
                    await (await Stack(home, task).call()).say("down")
                await task
        finally:
            task.cancel()

    return start
