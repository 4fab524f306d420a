from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra import leash
from tests.processes import eventually, pid_in, runs

_LEASH = Path(leash.__file__)
_DETACHED = """
import os, sys, time, signal
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1], "w").write(str(os.getpid()))
time.sleep(600)
"""

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def popen(*command: str, options: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_LEASH), *options, "--", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield popen
    for process in started:
        process.kill()
        process.wait(30)
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -TERM $$", -signal.SIGTERM),
        ("kill -KILL $$", -signal.SIGKILL),
        ("kill -SEGV $$", -signal.SIGSEGV),
    ],
)
def test_it_ends_as_the_command_ended(start: Start, script: str, code: int) -> None:
    assert start("sh", "-c", script).wait(30) == code


def test_a_command_that_cannot_be_run_is_named(start: Start) -> None:
    process = start("/nowhere/to/be/found")

    assert process.stdout is not None
    assert b"cannot run /nowhere/to/be/found: No such file" in process.stdout.read()
    assert process.wait(30) == 127


def test_the_command_reads_nothing_and_leads_its_own_session(start: Start) -> None:
    script = "import os, sys; print(repr(sys.stdin.read()), os.getsid(0) == os.getpid())"
    process = start(sys.executable, "-c", script)

    assert process.stdout is not None
    assert process.stdout.readline() == b"'' True\n"


def test_closing_the_pipe_ends_a_tree_that_ignores_it_and_has_detached(
    start: Start, tmp_path: Path
) -> None:
    script = f'trap "" TERM; "{sys.executable}" -c \'{_DETACHED}\' far; echo $$ > near; sleep 600'
    process = start("sh", "-c", script, options=("--grace", "0.2"))
    near, far = pid_in(tmp_path / "near"), pid_in(tmp_path / "far")

    assert process.stdin is not None
    process.stdin.close()

    assert process.wait(30) == -signal.SIGKILL
    assert not runs(near)
    assert not runs(far)


def test_an_end_before_the_start_needs_no_grace(tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-S", str(_LEASH), "--grace", "15", "--", "sleep", "600"]

    done = subprocess.run(command, stdin=subprocess.DEVNULL, timeout=10)

    assert done.returncode == -signal.SIGTERM


def test_within_the_grace_the_command_tidies_up(start: Start, tmp_path: Path) -> None:
    script = 'trap "echo tidy > tidied; exit 4" TERM; echo $$ > pid; while :; do sleep 0.02; done'
    process = start("sh", "-c", script, options=("--grace", "30"))
    pid_in(tmp_path / "pid")

    assert process.stdin is not None
    process.stdin.close()

    assert process.wait(30) == 4
    assert (tmp_path / "tidied").exists()


def test_what_a_command_leaves_running_is_killed(start: Start, tmp_path: Path) -> None:
    script = f"\"{sys.executable}\" -c '{_DETACHED}' far; until [ -s far ]; do sleep 0.02; done"
    process = start("sh", "-c", script, options=("--grace", "600"))

    assert process.wait(30) == 0
    assert not runs(pid_in(tmp_path / "far"))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_leash_ends_the_command(
    start: Start, tmp_path: Path, signum: signal.Signals
) -> None:
    process = start("sh", "-c", "echo $$ > pid; exec sleep 600")
    pid = pid_in(tmp_path / "pid")

    process.send_signal(signum)

    assert process.wait(30) == -signal.SIGTERM
    assert not runs(pid)


def test_the_stop_signal_can_be_chosen(start: Start, tmp_path: Path) -> None:
    script = 'trap "exit 9" INT; trap "exit 8" TERM; echo $$ > pid; while :; do sleep 0.02; done'
    process = start("sh", "-c", script, options=("--signal", str(int(signal.SIGINT))))
    pid_in(tmp_path / "pid")

    assert process.stdin is not None
    process.stdin.close()

    assert process.wait(30) == 9


@pytest.mark.parametrize(
    ("first", "told", "until"),
    [("tree", True, "until [ -e told ]; do sleep 0.02; done"), ("main", False, "sleep 0.3")],
)
def test_first_says_who_is_told(
    start: Start, tmp_path: Path, first: str, told: bool, until: str
) -> None:
    child = 'trap "echo > told" TERM; echo $$ > child; while :; do sleep 0.02; done'
    script = f"""
        trap "{until}; exit 5" TERM
        sh -c '{child}' &
        until [ -s child ]; do sleep 0.02; done; echo $$ > pid; while :; do sleep 0.02; done
    """
    process = start("sh", "-c", script, options=("--first", first, "--grace", "30"))
    pid_in(tmp_path / "pid")

    assert process.stdin is not None
    process.stdin.close()

    assert process.wait(30) == 5
    assert (tmp_path / "told").exists() is told
    assert not runs(pid_in(tmp_path / "child"))


def test_the_tree_ends_when_the_owner_is_killed(tmp_path: Path) -> None:
    owner_script = f"""
import subprocess, sys, time
command = [sys.executable, "-I", "-S", {str(_LEASH)!r}, "--", "sh", "-c",
           "echo $$ > pid; exec sleep 600"]
leash = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
time.sleep(600)
"""
    owner = subprocess.Popen([sys.executable, "-c", owner_script], cwd=tmp_path)
    pid = pid_in(tmp_path / "pid")

    owner.kill()
    owner.wait(30)

    eventually(lambda: not runs(pid), "the command ends")


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel does this on Linux only")
def test_the_command_is_killed_with_the_leash(start: Start, tmp_path: Path) -> None:
    process = start("sh", "-c", 'trap "" TERM; echo $$ > pid; while :; do sleep 1; done')
    pid = pid_in(tmp_path / "pid")

    process.kill()

    eventually(lambda: not runs(pid), "the command ends")


def test_descendants_are_found_nearest_first(tmp_path: Path) -> None:
    script = "sleep 600 & echo $! > leaf; echo $$ > branch; wait"
    process = subprocess.Popen(["sh", "-c", script], cwd=tmp_path)
    try:
        leaf, branch = pid_in(tmp_path / "leaf"), pid_in(tmp_path / "branch")
        found = leash.descendants(os.getpid())
        assert leaf in found
        assert branch in found
        assert found.index(branch) < found.index(leaf)
        assert leash.descendants(branch) == [leaf]
    finally:
        for pid in (leaf, branch):
            os.kill(pid, signal.SIGKILL)
        process.wait(30)
