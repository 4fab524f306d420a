from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import threading
import time
from typing import Any

import pytest

from infra.door import credential
from infra.errors import ConflictError, StackError
from infra.home import Home
from infra.settings import Settings
from infra.stack import client, supervisor
from infra.stack.parts import Part
from tests.infra.stack.fakes import SLEEP, Supervised, left, part, run
from tests.processes import PATIENCE_SECONDS, eventually, pid_in, runs

pytestmark = pytest.mark.integration


def test_parts_start_at_the_same_time(supervised: Supervised, home: Home) -> None:
    def meeting(own: str, others: str) -> Part:
        script = f"touch {own}; until [ -e {others} ]; do sleep 0.02; done; touch {own}.met; "
        return part(own, script + SLEEP, ready=(home.root / f"{own}.met").exists)

    async def test() -> None:
        async with supervised(meeting("a", "b"), meeting("b", "a")) as stack:
            status = await (await stack.call()).ask("wait")
            assert status["ready"]
            assert {part["state"] for part in status["parts"]} == {"ready"}

    run(test())


def test_a_part_starts_after_what_it_needs_is_ready(supervised: Supervised, home: Home) -> None:
    gate, first = home.root / "gate", home.root / "first"
    seen: list[bool] = []

    async def test() -> None:
        async with supervised(
            part("first", f"until [ -e gate ]; do sleep 0.02; done; touch first; {SLEEP}",
                  ready=first.exists),
            part("second", needs=("first",), prepare=lambda: seen.append(first.exists())),
        ) as stack:  # fmt: skip
            caller = await stack.call()
            await caller.until("first", lambda part: part["state"] == "starting")
            waiting = (await caller.parts())["second"]
            assert (waiting["state"], waiting["pid"]) == ("waiting", None)
            gate.touch()
            assert (await caller.ask("wait"))["ready"]

    run(test())
    assert seen == [True]


def test_a_one_shot_is_done_before_what_needs_it(supervised: Supervised, home: Home) -> None:
    seen: list[bool] = []
    done = home.root / "done"

    async def test() -> None:
        async with supervised(
            part("once", "sleep 0.1; touch done", once=True),
            part("after", needs=("once",), prepare=lambda: seen.append(done.exists())),
        ) as stack:
            caller = await stack.call()
            await caller.ask("wait")
            once = (await caller.parts())["once"]
            assert (once["state"], once["pid"], once["restarts"]) == ("done", None, 0)

    run(test())
    assert seen == [True]


@pytest.mark.parametrize("victim", ["leash", "process"])
def test_what_is_killed_is_started_again(supervised: Supervised, home: Home, victim: str) -> None:
    async def test() -> None:
        script = f"echo $$ >> pids; {SLEEP}"
        async with supervised(part("server", script), part("other")) as stack:
            caller = await stack.call()
            await caller.ask("wait")
            before = (await caller.parts())["server"]
            other = (await caller.parts())["other"]
            pid = pid_in(home.root / "pids")
            os.kill(before["pid"] if victim == "leash" else pid, signal.SIGKILL)

            after = await caller.until(
                "server", lambda part: part["restarts"] == 1 and part["state"] == "ready"
            )

            assert after["pid"] != before["pid"]
            assert (await caller.parts())["other"] == other
            eventually(lambda: not runs(pid), "the old process ends")

    run(test())


@pytest.mark.parametrize("alone", [True, False])
def test_what_a_killed_part_has_left_is_ended_if_it_must_be_alone(
    supervised: Supervised, home: Home, alone: bool
) -> None:
    script = f"[ -e far ] || setsid sh -c 'echo $$ > far; exec sleep 600' & {SLEEP}"

    async def test() -> None:
        async with supervised(part("server", script, alone=alone)) as stack:
            caller = await stack.call()
            await caller.ask("wait")
            far = pid_in(home.root / "far")
            os.kill((await caller.parts())["server"]["pid"], signal.SIGKILL)
            await caller.until("server", lambda part: part["restarts"] == 1 and part["pid"])
            assert runs(far) is not alone

    run(test())


def test_a_part_may_fail_at_first(supervised: Supervised, home: Home) -> None:
    script = f'echo x >> tries; [ "$(wc -l < tries)" -gt 2 ] || exit 1; touch up; {SLEEP}'

    async def test() -> None:
        async with supervised(part("late", script, ready=(home.root / "up").exists)) as stack:
            caller = await stack.call()
            assert (await caller.ask("wait"))["ready"]
            assert (await caller.parts())["late"]["restarts"] == 2

    run(test())


@pytest.mark.parametrize("once", [True, False])
def test_a_part_that_never_starts_ends_all_with_its_log(
    supervised: Supervised, home: Home, once: bool
) -> None:
    async def test() -> None:
        script = "echo x >> tries; for i in $(seq 30); do echo line $i; done; exit 3"
        async with supervised(
            part("fine"), part("broken", script, once=once, ready=lambda: False)
        ) as stack:
            await stack.task

    with pytest.raises(StackError) as raised:
        run(test())

    assert "The part broken exits soon after each start." in raised.value.message
    assert raised.value.message.endswith("line 29\nline 30")
    assert "line 15\n" not in raised.value.message
    assert str(home.logs / "broken.log") in raised.value.hint
    assert (home.root / "tries").read_text().count("x") == 3
    assert left(home) == []
    assert not home.record.exists()


def test_a_part_that_is_late_is_named(supervised: Supervised, home: Home) -> None:
    async def test() -> None:
        async with supervised(
            part("quick"), part("slow", ready=lambda: False), timeout=0.3
        ) as stack:
            await stack.task

    with pytest.raises(StackError, match=r"Not ready after 0 s: slow\."):
        run(test())
    assert left(home) == []


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
        async with supervised(part("a"), part("b", prepare=prepare), timeout=5) as stack:
            await stack.task

    with pytest.raises(StackError, match="No space left on device"):
        run(test())
    assert left(home) == []


def test_a_part_gets_the_stacks_environment_and_its_own(
    supervised: Supervised, home: Home
) -> None:
    async def test() -> None:
        script = f"echo $COLOUR $MODELYARD_HOME $PREFECT_API_URL $PWD; {SLEEP}"
        async with supervised(part("server", script, env={"COLOUR": "blue"})) as stack:
            status = await (await stack.call()).ask("wait")
            log = home.logs / "server.log"
            await asyncio.to_thread(eventually, log.read_text, "it wrote")
            api = status["endpoints"]["prefect_api_url"]
            assert log.read_text().split() == ["blue", str(home.root), api, str(home.root)]

    run(test())


def test_a_large_log_is_put_aside(
    supervised: Supervised, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_LARGEST_LOG_BYTES", 10)
    (home.logs / "server.log").write_text("of yesterday")

    async def test() -> None:
        async with supervised(part("server")) as stack:
            await (await stack.call()).ask("wait")

    run(test())
    assert (home.logs / "server.log.1").read_text() == "of yesterday"
    assert (home.logs / "server.log").read_text() == ""


def test_parts_end_before_what_they_need(supervised: Supervised, home: Home) -> None:
    def ending(name: str, *needs: str) -> Part:
        script = f"""
            trap "echo {name} >> ended; exit" TERM
            touch {name}; while :; do sleep 0.02; done
        """
        return part(name, script, needs=needs, ready=(home.root / name).exists, grace=30)

    async def test() -> None:
        async with supervised(
            ending("base"), ending("middle", "base"), ending("top", "middle")
        ) as stack:
            await (await stack.call()).ask("wait")

    run(test())
    assert (home.root / "ended").read_text().split() == ["top", "middle", "base"]


def test_nothing_is_left_after_the_end(supervised: Supervised, home: Home) -> None:
    script = "setsid sh -c 'trap \"\" TERM; echo $$ > far; while :; do sleep 1; done' &"

    async def test() -> None:
        async with supervised(
            part("server", f"{script} {SLEEP}", ready=(home.root / "far").exists, grace=0.2)
        ) as stack:
            await (await stack.call()).ask("wait")

    run(test())
    assert not runs(pid_in(home.root / "far"))
    assert left(home) == []
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
    first = part("first", script, ready=(home.root / "up").exists, grace=30)
    second = part("second", prepare=prepare)

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
        assert left(home) == []

    run(test())


class TestPrivateStack:
    """One that lives for those who hold it."""

    @pytest.fixture
    def parts(self, home: Home) -> list[Part]:
        gate = home.root / "gate"
        return [part("base", ready=gate.exists), part("runner", needs=("base",), runs=True)]

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

        run(test())
        assert left(home) == []

    def test_it_ends_when_nobody_ever_holds_it(
        self, supervised: Supervised, home: Home, parts: list[Part]
    ) -> None:
        async def test() -> None:
            (home.root / "gate").touch()
            async with supervised(*parts, lasting=False) as stack:
                await stack.task

        run(test())

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

        run(test())

    @pytest.mark.parametrize("lasting", [False, True])
    def test_attached_it_ends_with_its_caller(
        self, supervised: Supervised, home: Home, lasting: bool
    ) -> None:
        async def test() -> None:
            async with supervised(part("base"), lasting=lasting) as stack:
                caller, holder = await stack.call(), await stack.call()
                await holder.ask("hold")
                assert (await caller.ask("attach"))["lasting"]
                caller.leave()
                await stack.task

        run(test())
        assert left(home) == []


def test_one_that_is_ending_answers_nobody(supervised: Supervised, home: Home) -> None:
    slow = part("server", "trap 'sleep 0.3; exit' TERM; sleep 600 & wait", grace=5.0)

    async def test() -> None:
        async with supervised(slow) as stack:
            caller, late = await stack.call(), await stack.call()
            await caller.ask("wait")
            await caller.say("down")
            for operation in ("keep", "attach", "hold", "wait", "status"):
                with pytest.raises((ValueError, OSError)):
                    await (await stack.call()).ask(operation)
            with pytest.raises((ValueError, OSError)):
                await late.ask("keep")
            await stack.task

    run(test())


def test_down_ends_it_and_frees_the_home(supervised: Supervised, home: Home) -> None:
    async def test() -> None:
        async with supervised(part("server")) as stack:
            await (await stack.call()).ask("wait")
            assert (await asyncio.to_thread(client.status, home)) is not None
            assert await asyncio.to_thread(client.down, home) is True
            await stack.task

    run(test())
    assert client.status(home) is None
    assert client.down(home) is False


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_in_good_order(
    supervised: Supervised, home: Home, signum: signal.Signals
) -> None:
    async def test() -> None:
        async with supervised(part("server")) as stack:
            await (await stack.call()).ask("wait")
            os.kill(os.getpid(), signum)
            await stack.task

    run(test())
    assert left(home) == []


def test_a_second_one_is_refused(supervised: Supervised, home: Home) -> None:
    async def test() -> None:
        async with supervised(part("server")) as stack:
            await (await stack.call()).ask("wait")
            with pytest.raises(ConflictError) as raised:
                await supervisor.supervise(home, Settings(home=home.root), lasting=True)
            assert raised.value.code == "AlreadyRunning"
            assert (await (await stack.call()).ask("status"))["ready"]

    run(test())


@pytest.mark.parametrize("said", [b"not json\n", b'"text"\n', b"[]\n", b"{}\n", b"\xff\n", b"x"])
def test_callers_that_speak_another_language_do_no_harm(
    supervised: Supervised, said: bytes
) -> None:
    problems: list[dict[str, Any]] = []

    async def test() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: problems.append(context))
        async with supervised(part("server")) as stack:
            stranger = await stack.call()
            stranger._writer.write(said)
            stranger._writer.write_eof()
            await stranger._reader.read()
            assert (await (await stack.call()).ask("wait"))["ready"]

    run(test())
    assert problems == []


def test_the_control_socket_is_its_users_only(supervised: Supervised, home: Home) -> None:
    async def test() -> None:
        async with supervised(part("server")) as stack:
            await stack.call()
            assert (home.sockets / "control.sock").stat().st_mode & 0o777 == 0o600

    run(test())


@pytest.mark.parametrize("lasting", [True, False])
def test_each_server_is_linked_to_where_it_is_served(
    supervised: Supervised, home: Home, lasting: bool
) -> None:
    async def test() -> None:
        async with supervised(part("server"), lasting=lasting) as stack:
            status = await (await stack.call()).ask("hold")
            ports = json.loads((home.root / "ports.json").read_text())
            assert set(ports) == {"prefect", "mlflow", "web"}
            shown = {"prefect", "mlflow", "web"} if lasting else {"prefect", "mlflow"}
            assert status["links"] == {name: f"http://127.0.0.1:{ports[name]}" for name in shown}

    run(test())


def test_ports_are_those_of_the_last_time(supervised: Supervised, home: Home) -> None:
    found: list[dict[str, Any]] = []

    async def test() -> None:
        async with supervised(part("server")) as stack:
            found.append((await (await stack.call()).ask("wait"))["endpoints"])

    run(test())
    run(test())
    assert found[0] == found[1]


@pytest.mark.parametrize("lasting", [True, False])
def test_every_stack_has_a_credential_and_does_not_show_it(
    supervised: Supervised, home: Home, lasting: bool
) -> None:
    """The home of an older release gets one."""
    assert credential.read(home) is None

    async def test() -> None:
        async with supervised(part("server"), lasting=lasting) as stack:
            status = await (await stack.call()).ask("hold")
            held = credential.read(home)
            assert held is not None
            assert status["door"] is True
            assert held.secret not in json.dumps(status)

    run(test())
