from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from infra import worker
from infra.home import Home
from tests.infra.controllers.silent import SilentSubscription

POOLS = ("gpu", "cpu")


class TestPools:
    """Pools that become a cluster's, or this machine's again, while a worker serves them."""

    @pytest.fixture(autouse=True)
    def _turns(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found: list[Any] = []

        async def local_ones(*_: Any) -> Any:
            turn = self.found.pop(0)
            if isinstance(turn, Exception):
                raise turn
            return turn

        @contextlib.asynccontextmanager
        async def client() -> Any:
            yield None

        for name in ("_POOLS_SECONDS", "_IDLE_SECONDS", "_SETTLE_SECONDS"):
            monkeypatch.setattr(worker, name, 0)
        monkeypatch.setattr(worker, "get_client", client)
        monkeypatch.setattr(worker.work_pools, "list_local", local_ones)

    @pytest.mark.parametrize("now", [("cpu",), (), ("gpu", "cpu", "more")])
    def test_a_worker_ends_when_its_pools_change(self, now: tuple[str, ...]) -> None:
        self.found = [POOLS, OSError("no answer"), POOLS, now]
        asyncio.run(worker.until_pools_change(None, POOLS, POOLS, SilentSubscription()))  # type: ignore[arg-type]

        assert self.found == []

    def test_only_this_machines_are_served(
        self, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        served: list[str] = []

        class Worker:
            def __init__(self, work_pool_name: str, **_: Any) -> None:
                served.append(work_pool_name)
                self.started = asyncio.Event()

            async def start(self) -> None:
                self.started.set()

        class Runs:
            def __init__(self, _client: Any, _home: Home, pools: Any, *_: Any, **__: Any) -> None:
                served.append(f"reconciles {pools}")

            async def observe(self) -> None:
                """Observe nothing."""

            def decide(self, observed: None) -> None:
                """Decide nothing."""

            async def act(self, plan: None) -> None:
                """Do nothing."""

        monkeypatch.setattr(worker, "EventSubscription", SilentSubscription)
        monkeypatch.setattr(worker, "LocalWorker", Worker)
        monkeypatch.setattr(worker, "LocalRunReconciler", Runs)
        self.found = [("cpu",), ("cpu",), POOLS]
        with pytest.raises(ExceptionGroup) as raised:
            asyncio.run(worker.work(POOLS, lambda _: None))

        assert served == ["cpu", "reconciles ('cpu',)"]
        assert raised.group_contains(worker.PoolsChangedError)
