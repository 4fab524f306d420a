"""Processor time, memory and I/O of process trees, from ``/proc``.

The kernel adds what a process has used to its parent when that waits for it, so nothing of a tree
is lost when its processes end between two readings. The exception is a parent that ignores
SIGCHLD: what its children used is known only while they run.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

_PROC = Path("/proc")
_HAS_PROC = Path("/proc/self/stat").exists()
_HAS_CHILDREN = Path("/proc/thread-self/children").exists()  # an option of the kernel's
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_MOST_OF_A_CORE = 0.01  # for reading proportional set sizes
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class ProcessTimes:
    """Processor time of one process, in seconds.

    Attributes:
        parent: Process id of its parent.
        own: Time of its threads, ended ones included.
        reaped: Time of the processes that it has waited for, and of those that they have.
    """

    parent: int
    own: float
    reaped: float


@dataclass(frozen=True)
class _Share:
    """The share of its resident memory that is a process's own.

    Attributes:
        of_resident: The proportional set size by the resident one.
        read_again_at: ``time.monotonic()`` before which it is not read again.
    """

    of_resident: float
    read_again_at: float


@dataclass(frozen=True)
class TreeUsage:
    """Resource usage of a process tree.

    Attributes:
        cpu_seconds: Processor time since its start, of ended processes as well.
        memory_bytes: Memory at present: proportional set sizes (PSS), so that pages which
            processes share count once; resident set sizes where the kernel does not tell.
        read_bytes: What was read from disks since its start; not what caches had.
        written_bytes: What was written to disks since its start.
        pids: The processes that there are.
    """

    cpu_seconds: float = 0.0
    memory_bytes: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    pids: frozenset[int] = frozenset()


class ProcessReader:
    """Reads process trees, and remembers what is dear to read."""

    def __init__(self) -> None:
        self._shares: dict[int, _Share] = {}

    def read_trees(self, roots: Collection[int]) -> dict[int, TreeUsage]:
        """Usage of all below each of the ``roots``, which are not counted themselves.

        Args:
            roots: Process ids of leashes, none below another. One that is gone is left out.
        """
        times = dict(_process_times(roots))
        children: dict[int, list[int]] = defaultdict(list)
        for pid, one in times.items():
            children[one.parent].append(pid)
        self._shares = {pid: share for pid, share in self._shares.items() if pid in times}
        return {root: self._tree(root, times, children) for root in roots if root in times}

    def _tree(
        self, root: int, times: Mapping[int, ProcessTimes], children: Mapping[int, list[int]]
    ) -> TreeUsage:
        below: list[int] = []
        level = [root]
        while level:
            level = [child for pid in level for child in children.get(pid, ())]
            below += level
        disk = [_disk_bytes(pid) for pid in (root, *below)]
        return TreeUsage(
            cpu_seconds=times[root].reaped
            + sum(times[pid].own + times[pid].reaped for pid in below),
            memory_bytes=sum(map(self._memory_bytes, below)),
            read_bytes=sum(read for read, _ in disk),
            written_bytes=sum(written for _, written in disk),
            pids=frozenset(below),
        )

    def _memory_bytes(self, pid: int) -> int:
        """Proportional set size, or the resident one of a process that may not be looked into.

        The kernel walks all pages of the process for it, 15 ms for each GiB. So it is not read
        again before all processes together stay below 1% of a core; meanwhile it follows the
        resident one.
        """
        resident = _resident_bytes(pid)
        share = self._shares.get(pid)
        if resident and (share is None or time.monotonic() >= share.read_again_at):
            began = time.thread_time()
            lines = _read_lines(pid, "smaps_rollup")
            pss = next((int(one.split()[1]) * 1024 for one in lines if one[:4] == b"Pss:"), None)
            seconds = (time.thread_time() - began) * max(1, len(self._shares)) / _MOST_OF_A_CORE
            share = _Share(1.0 if pss is None else pss / resident, time.monotonic() + seconds)
            self._shares[pid] = share
        return int(resident * share.of_resident) if share else 0


def reaped_seconds(pid: int) -> float:
    """Processor time of the processes that ``pid`` has waited for; 0 if that is unknown.

    It can be read until ``pid`` itself is waited for.
    """
    times = _read_times(pid)
    return times.reaped if times else 0.0


def _process_times(roots: Collection[int]) -> Iterator[tuple[int, ProcessTimes]]:
    """Times of the ``roots`` and all below them; of all processes where only that can be read."""
    if not _HAS_PROC:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error), process.oneshot():
                used = process.cpu_times()
                reaped = used.children_user + used.children_system
                yield (
                    process.pid,
                    ProcessTimes(process.ppid() or 0, used.user + used.system, reaped),
                )
        return
    if _HAS_CHILDREN:
        pids: Iterable[int] = _pids_from(roots)
    else:
        pids = (int(name) for name in os.listdir(_PROC) if name.isdigit())  # noqa: PTH208 (faster)
    for pid in pids:
        if times := _read_times(pid):
            yield pid, times


def _pids_from(roots: Collection[int]) -> Collection[int]:
    """Process ids of the ``roots`` and all below them, parents before their children.

    A child may be missed while a sibling or its parent ends, as in a pass over all of ``/proc``;
    the next reading finds it.
    """
    found: dict[int, None] = {}
    pending = list(roots)
    while pending:
        pid = pending.pop()
        if pid not in found:
            found[pid] = None
            pending += _children_of(pid)
    return found


def _children_of(pid: int) -> list[int]:
    try:
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 (faster)
    except OSError:
        return []
    lines = (line for one in threads for line in _read_lines(pid, f"task/{one}/children"))
    return [int(child) for line in lines for child in line.split()]


def _read_times(pid: int) -> ProcessTimes | None:
    for line in _read_lines(pid, "stat"):
        # The command's name may hold spaces and brackets: fields count from its end.
        fields = line.rpartition(b")")[2].split()
        user, system, reaped_user, reaped_system = (int(field) for field in fields[11:15])
        return ProcessTimes(
            int(fields[1]),
            (user + system) / _TICKS_PER_SECOND,
            (reaped_user + reaped_system) / _TICKS_PER_SECOND,
        )
    return None


def _resident_bytes(pid: int) -> int:
    if not _HAS_PROC:
        with contextlib.suppress(psutil.Error):
            return int(psutil.Process(pid).memory_info().rss)
        return 0
    return next((int(line.split()[1]) * _PAGE_BYTES for line in _read_lines(pid, "statm")), 0)


def _disk_bytes(pid: int) -> tuple[int, int]:
    """Bytes read from and written to disks, also by the processes that it has waited for."""
    pairs = (line.split(b":") for line in _read_lines(pid, "io"))
    found = {name: int(value) for name, value in pairs}
    return found.get(b"read_bytes", 0), found.get(b"write_bytes", 0)


def _read_lines(pid: int, name: str) -> list[bytes]:
    """Lines of a file of a process; none if that has ended, or may not be looked into."""
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:  # noqa: PTH123 (faster)
            return file.readlines()
    except OSError:
        return []
