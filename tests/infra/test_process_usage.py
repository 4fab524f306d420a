"""What process trees use, against what the kernel tells their parent at their end."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import Popen

import pytest

from infra import process_usage
from infra.process_usage import ProcessReader

_BURN = """
import time
def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
"""
# Two children in turn, each of which burns in a child of its own and is gone before the line.
_IN_CHILDREN = f"""{_BURN}
import os, sys
for _ in range(2):
    if (pid := os.fork()) == 0:
        if (deeper := os.fork()) == 0:
            burn(0.2)
            os._exit(0)
        os.waitpid(deeper, 0)
        os._exit(0)
    os.waitpid(pid, 0)
print("done", flush=True)
sys.stdin.read()
"""
_SHARED = """
import os, signal, sys
block = bytearray(os.urandom(1)) * (64 << 20)
pids = []
for _ in range(3):
    if (pid := os.fork()) == 0:
        os.write(1, b"ready\\n")
        signal.pause()
    pids.append(pid)
sys.stdin.read()
for pid in pids:
    os.kill(pid, 9)
    os.waitpid(pid, 0)
"""
_WAITS = "import sys; print(1, flush=True); sys.stdin.read()"
# A thread has a child, and that has another.
_IN_A_THREAD = f"""
import subprocess, sys, threading
words = ["sh", "-c", '"$0" -c "{_WAITS}"; true', sys.executable]
threading.Thread(target=subprocess.run, args=(words,)).start()
"""

_needs_children = pytest.mark.skipif(
    not process_usage._HAS_CHILDREN, reason="the kernel lists no children"
)


@contextmanager
def _below(script: str) -> Iterator[Popen[str]]:
    """A script in a child of a shell, which stands for its leash."""
    words = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c", script]
    with Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as root:
        try:
            yield root
        finally:
            if root.stdin and not root.stdin.closed:
                root.stdin.close()


def test_children_that_ended_are_counted_as_the_kernel_counts_them() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with _below(_IN_CHILDREN) as root:
        assert root.stdout
        assert root.stdout.readline() == "done\n"
        usage = ProcessReader().read_trees([root.pid])[root.pid]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert len(usage.pids) == 1
    assert used > 0.4
    assert 0.8 * used < usage.cpu_seconds < 1.05 * used + 0.02


@pytest.mark.parametrize("has_children", [pytest.param(True, marks=_needs_children), False])
def test_what_threads_have_started_is_below_them(
    has_children: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_usage, "_HAS_CHILDREN", has_children)
    with _below(_IN_A_THREAD) as root:
        assert root.stdout
        root.stdout.readline()
        usage = ProcessReader().read_trees([root.pid])[root.pid]

    assert len(usage.pids) == 3


@_needs_children
def test_only_the_trees_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read, pids = process_usage._read_lines, set[int]()

    def counted(pid: int, name: str) -> list[bytes]:
        pids.add(pid)
        return read(pid, name)

    monkeypatch.setattr(process_usage, "_read_lines", counted)
    with _below(_WAITS) as root:
        assert root.stdout
        root.stdout.readline()
        usage = ProcessReader().read_trees([root.pid])[root.pid]

    assert pids == {root.pid, *usage.pids}


def test_a_process_that_ends_during_a_reading_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with _below("") as gone:
        gone.wait()
    children_of = process_usage._children_of
    monkeypatch.setattr(process_usage, "_children_of", lambda pid: [*children_of(pid), gone.pid])
    with _below(_WAITS) as root:
        assert root.stdout
        root.stdout.readline()
        usage = ProcessReader().read_trees([root.pid])[root.pid]

    assert len(usage.pids) == 1


def test_pages_that_processes_share_count_once() -> None:
    with _below(_SHARED) as root:
        assert root.stdout
        assert [root.stdout.readline() for _ in range(3)] == ["ready\n"] * 3
        usage = ProcessReader().read_trees([root.pid])[root.pid]

    assert len(usage.pids) == 4
    assert 64e6 < usage.memory_bytes < 128e6


def test_memory_that_is_dear_to_read_is_not_read_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read, files = process_usage._read_lines, list[str]()

    def counted(pid: int, name: str) -> list[bytes]:
        files.append(name)
        return read(pid, name)

    monkeypatch.setattr(process_usage, "_MOST_OF_A_CORE", 1e-9)
    monkeypatch.setattr(process_usage, "_read_lines", counted)
    reader = ProcessReader()
    with _below(_WAITS) as root:
        assert root.stdout
        root.stdout.readline()
        first = reader.read_trees([root.pid])[root.pid]
        resident = process_usage._resident_bytes
        monkeypatch.setattr(process_usage, "_resident_bytes", lambda pid: 2 * resident(pid))
        second = reader.read_trees([root.pid])[root.pid]

    assert files.count("smaps_rollup") == 1
    assert second.memory_bytes == pytest.approx(2 * first.memory_bytes, rel=0.05)


def test_a_tree_that_is_gone_is_left_out() -> None:
    with _below("") as root:
        root.wait()
    assert ProcessReader().read_trees([root.pid]) == {}
    assert process_usage.reaped_seconds(root.pid) == 0
