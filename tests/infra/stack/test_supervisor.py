from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import psutil
import pytest

from infra.errors import ConflictError, StackError
from infra.home import Home
from infra.settings import Settings
from infra.stack import client, supervisor
from infra.stack.parts import Part
from tests.processes import PATIENCE_SECONDS, eventually, pid_in, runs, with_variable

_SLEEP = "exec sleep 600"


def _part(name: str, script: str = _SLEEP, **options: Any) -> Part:
    """A part that runs a shell script in the home; ready at once unless told otherwise."""
    options = {"ready": lambda: True, "grace": 0.5, **options}
    return Part(name, ["sh", "-c", script], **options)


class Caller:
    """One connection to the supervisor's control socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def say(self, operation: str) -> None:
        self._writer.write(json.dumps({"op": operation}).encode() + b"\n")
        await self._writer.drain()

    async def hear(self) -> dict[str, Any]:
        return json.loads(await self._reader.readline())  # type: ignore[no-any-return]

    async def ask(self, operation: str) -> dict[str, Any]:
        await self.say(operation)
        return await self.hear()

    async def parts(self) -> dict[str, dict[str, Any]]:
        return {part["name"]: part for part in (await self.ask("status"))["parts"]}

    async def until(self, name: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        while not holds(part := (await self.parts())[name]):
            await asyncio.sleep(0.02)
        return part

    def leave(self) -> None:
        self._writer.close()


class Stack:
    """A supervisor of fake parts, run in the test's own event loop."""

    def __init__(self, home: Home, task: asyncio.Task[None]) -> None:
        self.home = home
        self.task = task

    async def call(self) -> Caller:
        while True:
            assert not self.task.done(), await self.task
            with contextlib.suppress(OSError):
                control = json.loads(self.home.record.read_text())["control"]
                return Caller(*await asyncio.open_unix_connection(control))
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_IDLE_SECONDS", 0.1)
    monkeypatch.setattr(supervisor, "_POLL_SECONDS", 0.02)


@pytest.fixture
def supervised(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., contextlib.AbstractAsyncContextManager[Stack]]:
    @contextlib.asynccontextmanager
    async def start(
        *parts: Part, lasting: bool = True, timeout: float = PATIENCE_SECONDS
    ) -> AsyncIterator[Stack]:
        monkeypatch.setattr(supervisor.parts_module, "build", lambda *_: list(parts))
        settings = Settings(
            home=home.root, prefect_port=0, mlflow_port=0, start_timeout_seconds=timeout
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


Supervised = Callable[..., contextlib.AbstractAsyncContextManager[Stack]]


def _run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def _left(home: Home) -> list[psutil.Process]:
    return with_variable("MODELYARD_PART", f"@{home.root}")


def test_parts_start_at_the_same_time(supervised: Supervised, home: Home) -> None:
    def meeting(own: str, others: str) -> Part:
        script = f"touch {own}; until [ -e {others} ]; do sleep 0.02; done; touch {own}.met; "
        return _part(own, script + _SLEEP, ready=(home.root / f"{own}.met").exists)

    async def test() -> None:
        async with supervised(meeting("a", "b"), meeting("b", "a")) as stack:
            status = await (await stack.call()).ask("wait")
            assert status["ready"]
            assert {part["state"] for part in status["parts"]} == {"ready"}

    _run(test())


def test_a_part_starts_after_what_it_needs_is_ready(supervised: Supervised, home: Home) -> None:
    gate, first = home.root / "gate", home.root / "first"
    seen: list[bool] = []

    async def test() -> None:
        async with supervised(
            _part("first", f"until [ -e gate ]; do sleep 0.02; done; touch first; {_SLEEP}",
                  ready=first.exists),
            _part("second", needs=("first",), prepare=lambda: seen.append(first.exists())),
        ) as stack:  # fmt: skip
            caller = await stack.call()
            await caller.until("first", lambda part: part["state"] == "starting")
            waiting = (await caller.parts())["second"]
            assert (waiting["state"], waiting["pid"]) == ("waiting", None)
            gate.touch()
            assert (await caller.ask("wait"))["ready"]

    _run(test())
    assert seen == [True]


def test_a_one_shot_is_done_before_what_needs_it(supervised: Supervised, home: Home) -> None:
    seen: list[bool] = []
    done = home.root / "done"

    async def test() -> None:
        async with supervised(
            _part("once", "sleep 0.1; touch done", once=True),
            _part("after", needs=("once",), prepare=lambda: seen.append(done.exists())),
        ) as stack:
            caller = await stack.call()
            await caller.ask("wait")
            once = (await caller.parts())["once"]
            assert (once["state"], once["pid"], once["restarts"]) == ("done", None, 0)

    _run(test())
    assert seen == [True]


@pytest.mark.parametrize("victim", ["leash", "process"])
def test_what_is_killed_is_started_again(supervised: Supervised, home: Home, victim: str) -> None:
    async def test() -> None:
        script = f"echo $$ >> pids; {_SLEEP}"
        async with supervised(_part("server", script), _part("other")) as stack:
            caller = await stack.call()
            before = await caller.until("server", lambda part: part["state"] == "ready")
            other = (await caller.parts())["other"]
            pid = pid_in(home.root / "pids")
            os.kill(before["pid"] if victim == "leash" else pid, signal.SIGKILL)

            after = await caller.until(
                "server", lambda part: part["restarts"] == 1 and part["state"] == "ready"
            )

            assert after["pid"] != before["pid"]
            assert (await caller.parts())["other"] == other
            eventually(lambda: not runs(pid), "the old process ends")

    _run(test())


def test_a_part_may_fail_at_first(supervised: Supervised, home: Home) -> None:
    script = f'echo x >> tries; [ "$(wc -l < tries)" -gt 2 ] || exit 1; touch up; {_SLEEP}'

    async def test() -> None:
        async with supervised(_part("late", script, ready=(home.root / "up").exists)) as stack:
            caller = await stack.call()
            assert (await caller.ask("wait"))["ready"]
            assert (await caller.parts())["late"]["restarts"] == 2

    _run(test())


@pytest.mark.parametrize("once", [True, False])
def test_a_part_that_never_starts_ends_all_with_its_log(
    supervised: Supervised, home: Home, once: bool
) -> None:
    async def test() -> None:
        script = "echo x >> tries; for i in $(seq 30); do echo line $i; done; exit 3"
        async with supervised(
            _part("fine"), _part("broken", script, once=once, ready=lambda: False)
        ) as stack:
            await stack.task

    with pytest.raises(StackError) as raised:
        _run(test())

    assert "broken does not start" in raised.value.message
    assert raised.value.message.endswith("line 29\nline 30")
    assert "line 15\n" not in raised.value.message
    assert str(home.logs / "broken.log") in raised.value.hint
    assert (home.root / "tries").read_text().count("x") == 3
    assert _left(home) == []
    assert not home.record.exists()


def test_a_part_that_is_late_is_named(supervised: Supervised, home: Home) -> None:
    async def test() -> None:
        async with supervised(
            _part("quick"), _part("slow", ready=lambda: False), timeout=0.3
        ) as stack:
            await stack.task

    with pytest.raises(StackError, match=r"Not ready after 0 s: slow\."):
        _run(test())
    assert _left(home) == []


@pytest.mark.parametrize(
    "problem",
    [
        StackError("The disk is full: No space left on device."),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
    ids=["StackError", "OSError"],
)
def test_a_part_that_cannot_be_prepared_ends_all_with_the_reason(
    supervised: Supervised, home: Home, problem: Exception
) -> None:
    def prepare() -> None:
        raise problem

    async def test() -> None:
        async with supervised(_part("a"), _part("b", prepare=prepare), timeout=5) as stack:
            await stack.task

    with pytest.raises(StackError, match="No space left on device"):
        _run(test())
    assert _left(home) == []


def test_a_part_gets_the_stacks_environment_and_its_own(
    supervised: Supervised, home: Home
) -> None:
    async def test() -> None:
        script = f"echo $COLOUR $MODELYARD_HOME $PREFECT_API_URL $PWD; {_SLEEP}"
        async with supervised(_part("server", script, env={"COLOUR": "blue"})) as stack:
            status = await (await stack.call()).ask("wait")
            log = home.logs / "server.log"
            await asyncio.to_thread(eventually, log.read_text, "it wrote")
            api = status["endpoints"]["prefect_api_url"]
            assert log.read_text().split() == ["blue", str(home.root), api, str(home.root)]

    _run(test())


def test_a_large_log_is_put_aside(
    supervised: Supervised, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_LARGEST_LOG_BYTES", 10)
    (home.logs / "server.log").write_text("of yesterday")

    async def test() -> None:
        async with supervised(_part("server")) as stack:
            await (await stack.call()).ask("wait")

    _run(test())
    assert (home.logs / "server.log.1").read_text() == "of yesterday"
    assert (home.logs / "server.log").read_text() == ""


def test_parts_end_before_what_they_need(supervised: Supervised, home: Home) -> None:
    def ending(name: str, *needs: str) -> Part:
        script = f"""
            trap "echo {name} >> ended; exit" TERM
            touch {name}; while :; do sleep 0.02; done
        """
        return _part(name, script, needs=needs, ready=(home.root / name).exists, grace=30)

    async def test() -> None:
        async with supervised(
            ending("base"), ending("middle", "base"), ending("top", "middle")
        ) as stack:
            await (await stack.call()).ask("wait")

    _run(test())
    assert (home.root / "ended").read_text().split() == ["top", "middle", "base"]


def test_nothing_is_left_after_the_end(supervised: Supervised, home: Home) -> None:
    script = "setsid sh -c 'trap \"\" TERM; echo $$ > far; while :; do sleep 1; done' &"

    async def test() -> None:
        async with supervised(
            _part("server", f"{script} {_SLEEP}", ready=(home.root / "far").exists, grace=0.2)
        ) as stack:
            await (await stack.call()).ask("wait")

    _run(test())
    assert not runs(pid_in(home.root / "far"))
    assert _left(home) == []
    assert not home.record.exists()


def test_a_part_that_is_being_prepared_at_the_end_is_not_left_running(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end passes a part that has no process yet, and waits for another meanwhile."""
    preparing, ended = threading.Event(), home.root / "ended"

    def prepare() -> None:
        preparing.set()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not ended.exists() and time.monotonic() < deadline:
            time.sleep(0.01)

    script = 'trap "touch ended; sleep 0.5; exit" TERM; touch up; while :; do sleep 0.02; done'
    first = _part("first", script, ready=(home.root / "up").exists, grace=30)
    second = _part("second", prepare=prepare)

    async def test() -> None:
        endpoints = supervisor.Endpoints("http://127.0.0.1:1/api", "http://127.0.0.1:2", "x")
        made = supervisor.Supervisor(
            home, Settings(home=home.root), endpoints, [first, second], lasting=True
        )
        task = asyncio.create_task(made.run())
        await asyncio.to_thread(preparing.wait, PATIENCE_SECONDS)
        while made.status()["parts"][0]["state"] != "ready":
            await asyncio.sleep(0.02)
        made.stop()
        await task
        assert _left(home) == []

    _run(test())


class TestPrivateStack:
    """One that lives for those who hold it."""

    @pytest.fixture
    def parts(self, home: Home) -> list[Part]:
        gate = home.root / "gate"
        return [_part("base", ready=gate.exists), _part("runner", needs=("base",), runs=True)]

    def test_it_lives_until_its_last_holder_is_gone(
        self, supervised: Supervised, home: Home, parts: list[Part]
    ) -> None:
        async def test() -> None:
            async with supervised(*parts, lasting=False) as stack:
                one, other, looker = [await stack.call() for _ in range(3)]
                await one.say("hold")
                await other.say("hold")
                (home.root / "gate").touch()
                for holder in (one, other):
                    status = await holder.hear()
                    assert status["ready"]
                    assert not status["lasting"]
                    assert [part["name"] for part in status["parts"]] == ["base"]
                one.leave()
                await asyncio.sleep(0.3)
                assert (await looker.ask("status"))["ready"]
                assert not stack.task.done()
                other.leave()
                await stack.task

        _run(test())
        assert _left(home) == []

    def test_it_ends_when_nobody_ever_holds_it(
        self, supervised: Supervised, home: Home, parts: list[Part]
    ) -> None:
        async def test() -> None:
            (home.root / "gate").touch()
            async with supervised(*parts, lasting=False) as stack:
                await stack.task

        _run(test())

    def test_keep_makes_it_last_with_what_runs_flows(
        self, supervised: Supervised, home: Home, parts: list[Part]
    ) -> None:
        async def test() -> None:
            (home.root / "gate").touch()
            async with supervised(*parts, lasting=False) as stack:
                holder, keeper = await stack.call(), await stack.call()
                base = (await holder.ask("hold"))["parts"][0]
                kept = await keeper.ask("keep")
                assert kept["ready"]
                assert kept["lasting"]
                assert [part["name"] for part in kept["parts"]] == ["base", "runner"]
                assert kept["parts"][0] == base
                holder.leave()
                await asyncio.sleep(0.3)
                assert (await keeper.ask("status"))["running"]

        _run(test())


def test_down_ends_it_and_frees_the_home(supervised: Supervised, home: Home) -> None:
    async def test() -> None:
        async with supervised(_part("server")) as stack:
            await (await stack.call()).ask("wait")
            assert (await asyncio.to_thread(client.status, home)) is not None
            assert await asyncio.to_thread(client.down, home) is True
            await stack.task

    _run(test())
    assert client.status(home) is None
    assert client.down(home) is False


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_in_good_order(
    supervised: Supervised, home: Home, signum: signal.Signals
) -> None:
    async def test() -> None:
        async with supervised(_part("server")) as stack:
            await (await stack.call()).ask("wait")
            os.kill(os.getpid(), signum)
            await stack.task

    _run(test())
    assert _left(home) == []


def test_a_second_one_is_refused(supervised: Supervised, home: Home) -> None:
    async def test() -> None:
        async with supervised(_part("server")) as stack:
            await (await stack.call()).ask("wait")
            with pytest.raises(ConflictError) as raised:
                await supervisor.supervise(home, Settings(home=home.root), lasting=True)
            assert raised.value.code == "AlreadyRunning"
            assert (await (await stack.call()).ask("status"))["ready"]

    _run(test())


@pytest.mark.parametrize("said", [b"not json\n", b'"text"\n', b"[]\n", b"{}\n", b"\xff\n", b"x"])
def test_callers_that_speak_another_language_do_no_harm(
    supervised: Supervised, said: bytes
) -> None:
    problems: list[dict[str, Any]] = []

    async def test() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: problems.append(context))
        async with supervised(_part("server")) as stack:
            stranger = await stack.call()
            stranger._writer.write(said)
            stranger._writer.write_eof()
            await stranger._reader.read()
            assert (await (await stack.call()).ask("wait"))["ready"]

    _run(test())
    assert problems == []


def test_the_control_socket_is_its_users_only(supervised: Supervised, home: Home) -> None:
    async def test() -> None:
        async with supervised(_part("server")) as stack:
            await stack.call()
            assert (home.sockets / "control.sock").stat().st_mode & 0o777 == 0o600

    _run(test())


def test_ports_are_those_of_the_last_time(supervised: Supervised, home: Home) -> None:
    found: list[dict[str, Any]] = []

    async def test() -> None:
        async with supervised(_part("server")) as stack:
            found.append((await (await stack.call()).ask("wait"))["endpoints"])

    _run(test())
    _run(test())
    assert found[0] == found[1]


_PROCESS = """
import sys
from pathlib import Path
from infra.stack import parts, supervisor
parts.build = lambda *_: [
    parts.Part("server", ["sh", "-c", sys.argv[1]], Path("up").exists, grace=0.2)
]
sys.exit(supervisor.main(["--lasting"]))
"""
_TREE = f"setsid sh -c 'echo $$ > far; exec sleep 600' & echo $$ > near; touch up; {_SLEEP}"


def _start_process(home: Home, script: str) -> subprocess.Popen[bytes]:
    env = {**os.environ, "MODELYARD_PREFECT_PORT": "0", "MODELYARD_MLFLOW_PORT": "0"}
    return subprocess.Popen([sys.executable, "-c", _PROCESS, script], env=env, cwd=home.root)


def test_a_supervisor_that_is_killed_leaves_nothing(home: Home) -> None:
    process = _start_process(home, _TREE)
    near, far = pid_in(home.root / "near"), pid_in(home.root / "far")

    process.kill()
    process.wait(30)

    eventually(lambda: not runs(near) and not runs(far), "the parts end")
    assert client.status(home) is None


def test_the_next_one_ends_what_a_killed_leash_has_left(
    supervised: Supervised, home: Home
) -> None:
    process = _start_process(home, _TREE)
    far = pid_in(home.root / "far")
    (leash,) = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGSTOP)
    leash.kill()
    process.kill()
    process.wait(30)
    assert runs(far)

    async def test() -> None:
        async with supervised(_part("server")) as stack:
            await (await stack.call()).ask("wait")
            assert not runs(far)

    _run(test())


def test_a_process_that_fails_leaves_its_reason(home: Home) -> None:
    process = _start_process(home, "echo no luck; exit 1")

    assert process.wait(PATIENCE_SECONDS) == 1

    assert "no luck" in json.loads((home.root / "error.json").read_text())["message"]


def test_a_process_that_comes_second_is_content(home: Home) -> None:
    first = _start_process(home, _TREE)
    try:
        pid = pid_in(home.root / "near")
        second = _start_process(home, _SLEEP)
        assert second.wait(PATIENCE_SECONDS) == 0
        assert runs(pid)
        assert not (home.root / "error.json").exists()
    finally:
        first.terminate()
        assert first.wait(PATIENCE_SECONDS) == 0
    assert _left(home) == []
