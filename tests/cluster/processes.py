"""Containers as processes of this machine, each behind namespaces of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_ENCLOSURE = Path(__file__).with_name("enclosure.py")
_LONGEST_LINE = 16 << 10
_CHARGED = ("Pss_Anon:", "Pss_Shmem:")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class StartError(Exception):
    """The command could not be executed: the runtime's reason."""


@dataclass(frozen=True)
class Wanted:
    """A container, when everything is known of it."""

    command: Sequence[str]
    env: Mapping[str, str]
    hostname: str
    folder: Path
    """Its own: its root's mount point, its ``/tmp``."""
    log: Path
    mounts: Sequence[Mapping[str, Any]] = ()
    shm: int = 64 << 20
    holder: int | None = None
    """The process that has the pod's memory."""
    workdir: str = "/"
    user: int | None = None
    group: int | None = None
    groups: Sequence[int] = ()
    hidden: Sequence[str] = ()
    held: Sequence[str] = ()
    closed: Sequence[str] = ()
    """Folders that are its own, and that it may not write to."""
    powerless: bool = False
    """Whether it has no capability, so that it cannot look into all processes of its user."""


def _pipe(content: object) -> int:
    """A descriptor from which a document can be read; it may be larger than a pipe holds."""
    descriptor = os.memfd_create("spec", 0)
    os.write(descriptor, json.dumps(content).encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _arguments(mode: str, *descriptors: int) -> list[str]:
    numbers = [str(one) for one in (*descriptors, os.getpid())]
    return [sys.executable, "-I", "-S", str(_ENCLOSURE), mode, *numbers]


class Holder:
    """What keeps the memory volumes of a pod while its containers come and go."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    @classmethod
    async def start(cls, memory: Mapping[str, int]) -> Holder:
        spec = _pipe({"memory": dict(memory)})
        try:
            process = await asyncio.create_subprocess_exec(
                *_arguments("hold", spec),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                pass_fds=[spec],
            )
        finally:
            os.close(spec)
        assert process.stdout is not None
        if await process.stdout.readline() != b"ready\n":
            raise StartError("the pod's memory cannot be mounted")
        return cls(process)

    def used(self, folder: str) -> int:
        """Bytes that are in one of the volumes."""
        found = os.statvfs(f"/proc/{self.pid}/root{folder}")
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    async def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


class Running:
    """A started container."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._writer = asyncio.create_task(self._write(log))
        self._first = -1
        self.first: int | None = None
        """The number of its first process, as this machine has it."""

    @classmethod
    async def start(cls, wanted: Wanted) -> Running:
        """Raises: StartError: There is no such command, or it cannot be run."""
        for name in ("root", "scratch"):
            (wanted.folder / name).mkdir(parents=True, exist_ok=True)
        (wanted.folder / "scratch").chmod(0o1777)
        spec = _pipe(_spec(wanted))
        seen, told = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *_arguments("run", spec, told),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=[spec, told],
                start_new_session=True,
                env={},
            )
        except BaseException:
            os.close(seen)
            raise
        finally:
            os.close(spec)
            os.close(told)
        started = cls(process, wanted.log)
        told_lines = dict(
            line.split(" ", 1) for line in (await _read(seen)).splitlines() if " " in line
        )
        if "E" in told_lines:
            await started.wait()
            raise StartError(told_lines["E"])
        started._know(int(told_lines.get("P", 0)))
        return started

    def _know(self, first: int) -> None:
        self.first = first or None
        with contextlib.suppress(ProcessLookupError):
            self._first = os.pidfd_open(first) if first else -1

    async def _write(self, log: Path) -> None:
        """Writes what the container says, each line with its time, as containerd does."""
        output = self._process.stdout
        assert output is not None
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab", buffering=0) as file:
            left = b""
            while chunk := await output.read(1 << 16):
                *whole, left = (left + chunk).split(b"\n")
                file.write(b"".join(_entry(line, b"F") for line in whole))
                while len(left) > _LONGEST_LINE:
                    file.write(_entry(left[:_LONGEST_LINE], b"P"))
                    left = left[_LONGEST_LINE:]
            if left:
                file.write(_entry(left, b"P"))

    async def wait(self) -> int:
        """Its exit code; 128 and the signal's number where one has ended it."""
        code = await self._process.wait()
        await self._writer
        if self._first >= 0:
            os.close(self._first)
            self._first = -1
        return code if code >= 0 else 128 - code

    def signal(self, number: int) -> None:
        """Sends a signal to the first process of the container; SIGKILL ends all of them."""
        if self._first >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._first, number)

    def kill(self) -> None:
        """Ends everything in the container."""
        self.signal(signal.SIGKILL)


def _spec(wanted: Wanted) -> dict[str, Any]:
    return {
        "root": str(wanted.folder / "root"),
        "scratch": str(wanted.folder / "scratch"),
        "hidden": list(wanted.hidden),
        "held": list(wanted.held),
        "closed": list(wanted.closed),
        "powerless": wanted.powerless,
        "mounts": list(wanted.mounts),
        "shm": wanted.shm,
        "holder": wanted.holder,
        "hostname": wanted.hostname,
        "env": dict(wanted.env),
        "workdir": wanted.workdir,
        "user": wanted.user,
        "group": wanted.group,
        "groups": list(wanted.groups),
        "command": list(wanted.command),
    }


async def _read(descriptor: int) -> str:
    """What is written to a pipe until its other end is closed."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    try:
        return (await reader.read()).decode(errors="replace")
    finally:
        transport.close()


def _entry(line: bytes, whole: bytes) -> bytes:
    moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z").encode()
    return b"%s stdout %s %s\n" % (moment, whole, line)


def trees(firsts: Iterable[int]) -> dict[int, list[int]]:
    """The numbers of processes, each with those of all that they have started."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                fields = (entry / "stat").read_text().rpartition(") ")[2].split()
                children.setdefault(int(fields[1]), []).append(int(entry.name))

    def tree(pid: int) -> list[int]:
        return [pid, *(one for child in children.get(pid, ()) for one in tree(child))]

    return {first: tree(first) for first in firsts}


def resident(pids: Iterable[int]) -> int:
    """Bytes that processes have in memory; what they share counts for each of them."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, IndexError):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    return total


def charged(pids: Iterable[int]) -> int:
    """Bytes that a memory limit is about: no files, and what is shared once. It takes a while."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith(_CHARGED):
                    total += int(line.split()[1]) << 10
    return total
