from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.home import Home
from infra.stack.preloaded import Forked, Preloader
from tests.infra.stack.fakes import Supervised, part, run
from tests.processes import PATIENCE_SECONDS, eventually, pid_in, runs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="parts are forked on Linux")

# `early` says who has imported it; `late` is imported when it may. `served` shows what it has.
_MODULES = {
    "early": "import os\nIMPORTED_BY = os.getpid()\n",
    "late": """
import os
with open(os.environ["GATE"]) as gate:
    gate.read()
IMPORTED_BY = os.getpid()
""",
    "broken": "raise RuntimeError('no luck')\n",
    "threaded": """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
""",
    "served": """
import importlib, json, os, sys, time
module, then = sys.argv[1:3]
print(json.dumps({
    "forked": importlib.import_module(module).IMPORTED_BY != os.getpid(), "argv": sys.argv[1:],
    "colour": os.environ.get("COLOUR"), "gate": "GATE" in os.environ, "cwd": os.getcwd(),
    "read": sys.stdin.read(), "name": __name__, "leash": os.getppid(),
}))
print("problem", file=sys.stderr, flush=True)
open(f"{then}.pid", "w").write(str(os.getpid()))
if then == "waits":
    time.sleep(600)
sys.exit(7)
""",
    "listens": """
import socket, sys
with socket.socket(fileno=int(sys.argv[1])) as listener:
    listener.accept()[0].sendall(b"here")
""",
}


class Preloaded:
    """A preloader of the modules above, and what is started with it."""

    def __init__(self, folder: Path, *modules: str) -> None:
        for name, text in _MODULES.items():
            (folder / f"{name}.py").write_text(text)
        self.folder = folder
        self.gate = folder / "gate"
        os.mkfifo(self.gate)
        self.log = (folder / "log").open("wb")
        env = {"PYTHONPATH": os.pathsep.join([str(folder), *sys.path]), "GATE": str(self.gate)}
        self.preloader = Preloader(modules, env, self.log)

    async def start(
        self, *words: str, preload: tuple[str, ...] = ("early",), keep: tuple[int, ...] = ()
    ) -> Forked:
        command = [sys.executable, "-P", "-m", *words]
        forked = await self.preloader.start(
            command, env={"COLOUR": "blue"}, cwd=self.folder, grace=0.2,
            log=self.log.fileno(), keep=keep, preload=preload,
        )  # fmt: skip
        assert forked
        return forked

    def pid(self, name: str) -> int:
        return pid_in(self.folder / f"{name}.pid")

    def said(self) -> str:
        return (self.folder / "log").read_text()


Test = Callable[[Preloaded], Coroutine[Any, Any, None]]


def _with(folder: Path, *modules: str) -> Callable[[Test], None]:
    """Run a test with a preloader of these modules."""

    def perform(test: Test) -> None:
        async def whole() -> None:
            preloaded = Preloaded(folder, *modules)
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await test(preloaded)
            finally:
                await preloaded.preloader.close()
                preloaded.log.close()

        asyncio.run(whole())

    return perform


def test_a_part_is_a_fork_with_all_that_its_own_process_would_have(tmp_path: Path) -> None:
    @_with(tmp_path, "early")
    async def _(preloaded: Preloaded) -> None:
        forked = await preloaded.start("served", "early", "ends")

        assert await forked.wait() == 7
        assert forked.returncode == 7
        shown, problem = sorted(preloaded.said().splitlines(), key=len, reverse=True)
        assert problem == "problem"
        assert json.loads(shown) == {
            "forked": True, "argv": ["early", "ends"], "colour": "blue", "gate": False,
            "cwd": str(tmp_path), "read": "", "name": "__main__", "leash": forked.pid,
        }  # fmt: skip


def test_a_part_waits_for_its_own_modules_only(tmp_path: Path) -> None:
    @_with(tmp_path, "early", "late")
    async def _(preloaded: Preloaded) -> None:
        # Both have asked before anything is imported.
        asking = asyncio.create_task(preloaded.start("served", "early", "one"))
        both = asyncio.create_task(
            preloaded.start("served", "late", "both", preload=("early", "late"))
        )
        one = await asking
        assert await one.wait() == 7
        assert not both.done()

        preloaded.gate.write_text("open")

        assert await (await both).wait() == 7
        assert preloaded.said().count('"forked": true') == 2


def test_a_socket_keeps_its_number(tmp_path: Path) -> None:
    @_with(tmp_path, "early")
    async def _(preloaded: Preloaded) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            number = listener.fileno()
            forked = await preloaded.start("listens", str(number), keep=(number,))
            address = listener.getsockname()
        reader, writer = await asyncio.open_connection(*address)
        assert await reader.read() == b"here"
        writer.close()
        assert await forked.wait() == 0


def test_a_part_is_asked_to_end_when_its_pipe_is_closed(tmp_path: Path) -> None:
    @_with(tmp_path, "early")
    async def _(preloaded: Preloaded) -> None:
        forked = await preloaded.start("served", "early", "waits")
        pid = preloaded.pid("waits")
        forked.stdin.close()
        assert await forked.wait() == -15
        assert not runs(pid)


def test_a_part_ends_with_its_leash(tmp_path: Path) -> None:
    @_with(tmp_path, "early")
    async def _(preloaded: Preloaded) -> None:
        forked = await preloaded.start("served", "early", "waits")
        pid = preloaded.pid("waits")
        psutil.Process(forked.pid).kill()
        assert await forked.wait() == 137
        eventually(lambda: not runs(pid), "the part ends")


def test_parts_outlive_the_preloader_and_each_other(tmp_path: Path) -> None:
    @_with(tmp_path, "early", "late")
    async def _(preloaded: Preloaded) -> None:
        # All have asked before anything is imported, so the pipes of the one that waits for a
        # module are the preloader's when it forks the others.
        asking = [
            asyncio.create_task(preloaded.start("served", *one))
            for one in (("early", "waits"), ("early", "ends"))
        ]
        waiting = asyncio.create_task(
            preloaded.start("served", "late", "both", preload=("early", "late"))
        )
        first, second = await asyncio.gather(*asking)
        assert await second.wait() == 7
        pid = preloaded.pid("waits")

        preloaded.preloader._process.kill()

        with pytest.raises(AssertionError):  # told at once, though the first goes on
            await waiting
        with pytest.raises(AssertionError):
            await preloaded.start("served", "early", "ends")
        assert runs(pid)
        first.stdin.close()
        assert await first.wait() == -15


@pytest.mark.parametrize("module", ["broken", "nowhere.to.be.found"])
def test_what_cannot_be_imported_is_the_parts_own_failure(tmp_path: Path, module: str) -> None:
    @_with(tmp_path, module, "early")
    async def _(preloaded: Preloaded) -> None:
        forked = await preloaded.start(module, preload=(module,))
        assert await forked.wait() == 1
        assert "Traceback" in preloaded.said() or "No module named" in preloaded.said()
        assert await (await preloaded.start("served", "early", "ends")).wait() == 7


def test_nothing_is_forked_where_an_import_has_started_a_thread(tmp_path: Path) -> None:
    @_with(tmp_path, "threaded")
    async def _(preloaded: Preloaded) -> None:
        with pytest.raises(AssertionError):
            await preloaded.start("served", "early", "ends", preload=("threaded",))
        assert "an import started threads" in preloaded.said()


def test_a_part_starts_by_itself_where_the_preloader_is_gone(
    supervised: Supervised, home: Home
) -> None:
    script = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(600)"
    (home.root / "sleeps.py").write_text(script)
    words = [sys.executable, "-P", "-m", "sleeps"]
    env = {"PYTHONPATH": str(home.root)}

    async def test() -> None:
        server = part("server", preload=("json",), env=env)
        object.__setattr__(server, "command", words)
        async with supervised(server, part("other")) as stack:
            caller = await stack.call()
            await caller.ask("wait")
            before = (await caller.parts())["server"]
            preloader = psutil.Process(before["pid"]).parent()
            assert preloader
            assert "infra.stack.preloader" in preloader.cmdline()
            preloader.kill()
            psutil.Process(before["pid"]).kill()
            after = await caller.until(
                "server", lambda part: part["restarts"] > 0 and part["state"] == "ready"
            )
            parent = psutil.Process(after["pid"]).parent()
            assert parent
            assert parent.pid == os.getpid()

    run(test())
