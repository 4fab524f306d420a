from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

from infra.errors import StackError
from infra.home import Home
from infra.settings import Settings
from infra.stack import client, supervisor
from tests.infra.stack.fakes import SLEEP, Supervised, left, part, run


def test_a_part_that_crash_loops_after_it_was_ready_ends_a_stack_that_starts(
    supervised: Supervised, home: Home
) -> None:
    errors: list[dict[str, str]] = []

    async def test() -> None:
        async with supervised(
            part("worker", "sleep 0.3; echo no room; exit 1"), part("slow", ready=lambda: False)
        ) as stack:
            errors.append((await (await stack.call()).ask("keep"))["error"])

    with pytest.raises(StackError, match="no room") as raised:
        run(test())
    assert errors == [raised.value.as_dict()]
    assert left(home) == []


def test_whoever_waits_for_a_crash_looping_part_gets_the_reason(
    supervised: Supervised, home: Home
) -> None:
    """The servers stay up meanwhile, for those who need no more."""
    script = f"[ ! -e broken ] || {{ echo no room; exit 1; }}; {SLEEP}"

    async def test() -> None:
        async with supervised(part("server"), part("worker", script, runs=True)) as stack:
            caller = await stack.call()
            assert (await caller.ask("wait"))["ready"]
            (home.root / "broken").touch()
            os.kill((await caller.parts())["worker"]["pid"], signal.SIGKILL)
            looping = await caller.until("worker", lambda part: part["state"] == "failing")
            assert looping["error"]["message"].endswith("no room")

            answer = await (await stack.call()).ask("keep")

            assert answer["error"] == looping["error"]
            assert not answer["ready"]
            held = await (await stack.call()).ask("hold")
            assert held["error"] is None
            status = await asyncio.to_thread(client.status, home)
            assert status is not None
            assert status["error"] is None
            with pytest.raises(StackError, match="no room"):
                await asyncio.to_thread(client.up, home, Settings(home=home.root))
            (home.root / "broken").unlink()
            await caller.until("worker", lambda part: part["state"] == "ready")

    run(test())


def test_a_part_that_has_run_for_a_while_is_no_longer_crash_looping(
    supervised: Supervised, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with supervised(part("server", "[ -e mended ] || exit 1; " + SLEEP)) as stack:
            caller = await stack.call()
            await caller.until("server", lambda part: part["state"] == "restarting")
            (home.root / "mended").touch()
            assert (await caller.ask("wait"))["ready"]

    run(test())
    watched = supervisor.SupervisedPart(part("server"), failures=3, started=time.monotonic())
    assert watched.is_crash_looping()
    assert watched.is_settled()
    watched.ready.set()
    assert not watched.is_settled()
    monkeypatch.setattr(supervisor, "_STEADY_SECONDS", -1.0)
    assert not watched.is_crash_looping()
    assert watched.is_settled()


def test_the_backoff_is_bounded() -> None:
    assert [supervisor._backoff_seconds(failures) for failures in (0, 1, 2, 10_000)] == [
        0.0, 0.1, pytest.approx(0.3), 10.0
    ]  # fmt: skip
