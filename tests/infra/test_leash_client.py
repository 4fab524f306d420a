"""The contract of everything that starts commands on leashes."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.leash_client import Leash, LeashServer, LeashStarter, SpawnedLeash
from tests.processes import eventually, pid_in, runs

_ROOT = Path(__file__).parents[2]

# Detaches a process that ignores SIGTERM, writes its id, and goes on itself.
_DETACHED = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open(sys.argv[1], "w").write(str(os.getpid()))
    time.sleep(600)
time.sleep(600)
"""


def _read(leash: Leash) -> bytes:
    found = b""
    while data := os.read(leash.output.fileno(), 65536):
        found += data
    return found


# Half of its processor time is that of a process whose parent is gone before it ends.
_FORGETFUL = """
import os, time

def burn():
    while time.process_time() < 0.2:
        pass

reading, writing = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        burn()
    os._exit(0)
os.wait()
os.close(writing)
os.read(reading, 1)
burn()
"""


class Contract:
    """What every way to start a command on a leash keeps."""

    @pytest.fixture
    def start(self) -> LeashStarter:
        raise NotImplementedError

    @pytest.mark.parametrize(
        ("script", "code"),
        [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", -15), ("kill -KILL $$", -9)],
    )
    def test_it_ends_as_the_command_ended(
        self, start: LeashStarter, tmp_path: Path, script: str, code: int
    ) -> None:
        leash = start(["sh", "-c", script], env={}, cwd=tmp_path, grace=1)
        assert _read(leash) == b""
        assert leash.wait() == code
        leash.output.close()

    def test_what_it_runs_has_this_environment_folder_and_no_input(
        self, start: LeashStarter, tmp_path: Path
    ) -> None:
        script = "import os, sys; print(dict(os.environ), os.getcwd(), repr(sys.stdin.read()))"
        env = {"WORD": "with spaces and ü", "LC_ALL": "C.UTF-8"}
        leash = start([sys.executable, "-c", script], env=env, cwd=tmp_path, grace=1)
        said = _read(leash).decode()
        assert leash.wait() == 0
        assert said == f"{env} {tmp_path} ''\n"
        leash.output.close()

    def test_both_outputs_are_one(self, start: LeashStarter, tmp_path: Path) -> None:
        leash = start(["sh", "-c", "echo a; echo b >&2; echo c"], env={}, cwd=tmp_path, grace=1)
        assert _read(leash) == b"a\nb\nc\n"
        assert leash.wait() == 0
        leash.output.close()

    def test_a_command_that_is_not_there(self, start: LeashStarter, tmp_path: Path) -> None:
        leash = start(["/nowhere/at/all"], env={}, cwd=tmp_path, grace=1)
        assert b"cannot run /nowhere/at/all: No such file" in _read(leash)
        assert leash.wait() == 127
        leash.output.close()

    def test_it_knows_the_processor_time_of_its_tree(
        self, start: LeashStarter, tmp_path: Path
    ) -> None:
        leash = start([sys.executable, "-c", _FORGETFUL], env={}, cwd=tmp_path, grace=1)
        assert runs(leash.pid)
        _read(leash)
        assert (leash.wait(), leash.cpu_seconds > 0.35) == (0, True)
        assert leash.cpu_seconds < 0.7
        leash.output.close()

    def test_a_stop_ends_the_whole_tree(self, start: LeashStarter, tmp_path: Path) -> None:
        pid = tmp_path / "pid"
        command = [sys.executable, "-c", _DETACHED, str(pid)]
        leash = start(command, env={}, cwd=tmp_path, grace=0.2)
        child = pid_in(pid)
        leash.stop()
        leash.stop()
        assert _read(leash) == b""
        assert leash.wait() == -signal.SIGTERM
        assert not runs(child)
        leash.output.close()

    def test_what_is_kept_is_held_until_the_tree_is_gone(
        self, start: LeashStarter, tmp_path: Path
    ) -> None:
        with (tmp_path / "lock").open("w") as mine:
            fcntl.flock(mine, fcntl.LOCK_EX)
            leash = start(
                ["sh", "-c", "echo here; sleep 600"],
                env={}, cwd=tmp_path, grace=1, keep=[mine.fileno()],
            )  # fmt: skip
            assert os.read(leash.output.fileno(), 8) == b"here\n"
        with (tmp_path / "lock").open("w") as other:
            with pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leash.stop()
            leash.wait()
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        leash.output.close()

    def test_what_is_kept_has_its_numbers(self, start: LeashStarter, tmp_path: Path) -> None:
        pipes = [os.pipe() for _ in range(3)]
        numbers = [writing for _, writing in reversed(pipes)]
        script = "import os, sys; [os.write(int(n), n.encode()) for n in sys.argv[1:]]"
        command = [sys.executable, "-c", script, *map(str, numbers)]
        leash = start(command, env={}, cwd=tmp_path, grace=1, keep=numbers)
        assert (_read(leash), leash.wait()) == (b"", 0)
        leash.output.close()
        for reading, writing in pipes:
            os.close(writing)
            assert os.read(reading, 16) == str(writing).encode()
            os.close(reading)

    def test_nothing_else_is_inherited(self, start: LeashStarter, tmp_path: Path) -> None:
        first = start(["sleep", "600"], env={}, cwd=tmp_path, grace=1)
        script = "import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))"
        second = start([sys.executable, "-c", script], env={}, cwd=tmp_path, grace=1)
        assert _read(second) == b"[0, 1, 2, 3]\n"  # 3 is the listing's own
        for leash in (first, second):
            leash.stop()
            leash.wait()
            leash.output.close()


class TestLeashed(Contract):
    @pytest.fixture
    def start(self) -> LeashStarter:
        return SpawnedLeash


class TestLeashServer(Contract):
    @pytest.fixture
    def server(self) -> Iterator[LeashServer]:
        server = LeashServer()
        yield server
        server.close()

    @pytest.fixture
    def start(self, server: LeashServer) -> LeashStarter:
        return server.start

    def test_a_hundred_from_many_threads(self, server: LeashServer, tmp_path: Path) -> None:
        def one(number: int) -> tuple[bytes, int]:
            command = ["sh", "-c", f"echo {number}; exit {number}"]
            leash = server.start(command, env={}, cwd=tmp_path, grace=1)
            said = _read(leash), leash.wait()
            leash.output.close()
            return said

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(one, range(100)))
        assert found == [(f"{number}\n".encode(), number) for number in range(100)]

    def test_a_large_environment(self, server: LeashServer, tmp_path: Path) -> None:
        env = {f"NAME{number}": "x" * 100_000 for number in range(10)}
        leash = server.start(["sh", "-c", "echo ${#NAME9}"], env=env, cwd=tmp_path, grace=1)
        assert _read(leash) == b"100000\n"
        assert leash.wait() == 0
        leash.output.close()

    def test_leashes_outlive_a_server_that_was_killed(
        self, server: LeashServer, tmp_path: Path
    ) -> None:
        os.mkfifo(tmp_path / "go")
        slow = server.start(
            ["sh", "-c", "echo here; read line < go; echo on"], env={}, cwd=tmp_path, grace=1
        )
        assert os.read(slow.output.fileno(), 8) == b"here\n"
        server._process.kill()
        server._process.wait()
        quick = server.start(["sh", "-c", "echo new"], env={}, cwd=tmp_path, grace=1)
        assert (_read(quick), quick.wait()) == (b"new\n", 0)
        (tmp_path / "go").write_text("line\n")
        assert (_read(slow), slow.wait()) == (b"on\n", 0)
        for leash in (slow, quick):
            leash.output.close()

    def test_a_leash_that_was_killed_is_told_as_killed(
        self, server: LeashServer, tmp_path: Path
    ) -> None:
        script = "import os; print(os.getppid(), flush=True); os.kill(os.getppid(), 9)"
        leash = server.start([sys.executable, "-c", script], env={}, cwd=tmp_path, grace=1)
        _read(leash)
        assert leash.wait() == -signal.SIGKILL
        leash.output.close()

    def test_everything_ends_with_an_owner_that_was_killed(self, tmp_path: Path) -> None:
        pid = tmp_path / "pid"
        owner = f"""
import os, signal, sys
sys.path.insert(0, {str(_ROOT)!r})
from pathlib import Path
from infra.leash_client import LeashServer
server = LeashServer()
command = [sys.executable, "-c", {_DETACHED!r}, {str(pid)!r}]
leash = server.start(command, env={{}}, cwd=Path({str(tmp_path)!r}), grace=0.2)
print(server._process.pid, flush=True)
sys.stdin.read()
"""
        process = subprocess.Popen(
            [sys.executable, "-c", owner], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdin is not None
        assert process.stdout is not None
        server = int(process.stdout.readline())
        child = pid_in(pid)
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
        eventually(lambda: not runs(child) and not runs(server), "everything has ended")
