"""Run a group of processes, each on a leash, and follow their output line by line.

The processes of a group, such as the nodes of a training, end together.
"""

from __future__ import annotations

import codecs
import collections
import contextlib
import errno
import os
import re
import selectors
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from infra.leash_client import Leash, LeashStarter, SpawnedLeash
from infra.masking import mask
from infra.workloads.exit_status import ExitCause, ExitStatus

_TICK_SECONDS = 0.2
_LOG_TICK_SECONDS = 0.05
_PIECE_BYTES = 64 * 1024
_LONGEST_LINE = 64 * 1024
_TAIL_LINES = 20

# When one process dies, its peers fail within moments, and may be observed first.
_SETTLE_SECONDS = 1.0
_LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True)
class ProcessSpec:
    """One process of a group.

    Attributes:
        command: Its command line.
        env: Its whole environment.
        name: The prefix of its lines in the log, such as ``node 1``; empty for the only one.
        node: Rank of the node of a distributed run that it belongs to.
    """

    command: Sequence[str]
    env: Mapping[str, str]
    name: str = ""
    node: int = 0


class ProcessObserver(Protocol):
    """Observer of the processes of a group. Its methods return at once, and never raise."""

    def on_started(self, process: ProcessSpec, leash: Leash) -> None:
        """Called when a process has started."""

    def on_ended(self, process: ProcessSpec, leash: Leash, code: int) -> None:
        """Called when a process and all that it started have ended, with its exit status."""


class _NoObserver:
    def on_started(self, process: ProcessSpec, leash: Leash) -> None:
        """Do nothing."""

    def on_ended(self, process: ProcessSpec, leash: Leash, code: int) -> None:
        """Do nothing."""


UNOBSERVED: ProcessObserver = _NoObserver()


class LineSplitter:
    """Incremental splitter of bytes into lines; a carriage return ends a line, too."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._rest = ""

    def feed(self, data: bytes) -> list[str]:
        """Return the lines that ``data`` completes; an overlong one is cut."""
        *lines, rest = _LINE_END.split(self._rest + self._decode(data))
        if len(rest) > _LONGEST_LINE:
            lines.append(rest)
            rest = ""
        self._rest = rest
        return [
            line[begin : begin + _LONGEST_LINE]
            for line in lines
            for begin in range(0, len(line), _LONGEST_LINE)
        ]

    def close(self) -> list[str]:
        """Return the last line, if it had no end."""
        rest, self._rest = self._rest, ""
        return [rest] if rest else []


@contextlib.contextmanager
def _sigterm_ignored() -> Iterator[None]:
    """Ignore further SIGTERMs: the first one has started the clean-up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _RunningProcess:
    """A running process and its output.

    Its output comes through the leash's pipe, or is followed in the file that it writes to.
    """

    def __init__(
        self,
        process: ProcessSpec,
        leash: Leash,
        observer: ProcessObserver,
        written: IO[bytes] | None = None,
    ) -> None:
        self.name = process.name
        self.leash = leash
        self._process = process
        self._observer = observer
        self._written = written
        self.code: int | None = None
        self._lines = LineSplitter()
        self._tail: collections.deque[str] = collections.deque(maxlen=_TAIL_LINES)

    def read(self) -> tuple[bytes, list[str]]:
        """Read what the pipe has: the bytes, and the lines that new output completes.

        At the end of the output, wait for the process and set ``code``.
        """
        data = os.read(self.leash.output.fileno(), _PIECE_BYTES)
        if self._written is not None:
            found = self.read_written()
            is_over = not data and not found
        else:
            found = self._take(self._lines.feed(data))
            is_over = not data
        if is_over:
            found = self._take(self._lines.close())
            self.wait()
        return data, found

    @property
    def writes_log(self) -> bool:
        """Whether it writes into the log itself."""
        return self._written is not None

    def read_written(self) -> list[str]:
        """Read the lines that new output in the log completes; [] if it does not write there."""
        found: list[str] = []
        while self._written is not None and not found:
            data = self._written.read(_PIECE_BYTES)
            if not data:
                break
            found = self._lines.feed(data)
        return self._take(found)

    def _take(self, lines: list[str]) -> list[str]:
        self._tail.extend(lines)
        return lines

    def wait(self) -> None:
        """Wait for the end of the process and of all that it started."""
        if self.code is None:
            self.code = self.leash.wait()
            self._observer.on_ended(self._process, self.leash, self.code)

    @property
    def tail(self) -> tuple[str, ...]:
        return tuple(self._tail)


def run(
    processes: Sequence[ProcessSpec],
    *,
    cwd: Path,
    log: Path | None,
    on_line: Callable[[int, str], object],
    deadline: float | None,
    stop_requested: Callable[[], bool],
    grace: float,
    keep: Sequence[int] = (),
    start: LeashStarter = SpawnedLeash,
    observer: ProcessObserver = UNOBSERVED,
) -> ExitStatus:
    """Run processes to their end, reporting their output as it appears.

    A process without a name writes into the log itself, so that nothing that it wrote is lost if
    this process is killed. The first failure ends the others. Before this call returns or raises
    (also from a signal handler), all process trees are ended, within a little more than ``grace``
    seconds.

    Args:
        processes: At least one.
        cwd: Their working directory.
        log: File that gets their output: as it is, or line by line with their names if there are
            several; None for no file.
        on_line: Called with the process's number, from 0, and each line without its end.
        deadline: ``time.monotonic()`` at which they are ended; None for never.
        stop_requested: Polled a few times a second; true ends them.
        grace: Seconds between SIGTERM and SIGKILL.
        keep: Open files that they inherit.
        start: Starts each process on its leash.
        observer: Observes each process, from its start to its end.

    Returns:
        The group's exit status, without a reason.

    Raises:
        OSError: If the disk of the log is full, which fails scripts that print.
    """
    running: list[_RunningProcess] = []
    with contextlib.ExitStack() as opened:
        file = opened.enter_context(log.open("ab", buffering=0)) if log else None
        try:
            for process in processes:
                # What it writes into the log itself is read from there.
                direct = [] if file is None or process.name else [file.fileno()]
                written = opened.enter_context(_at_end(log)) if log and direct else None
                leash = start(
                    process.command, env=process.env, cwd=cwd, grace=grace,
                    keep=[*keep, *direct], output=direct[0] if direct else None,
                )  # fmt: skip
                running.append(_RunningProcess(process, leash, observer, written))
                observer.on_started(process, leash)
            ended = _follow(running, file, on_line, deadline, stop_requested)
        finally:
            _end(running)
    if log and ended.code and shutil.disk_usage(log).free == 0:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(log))
    return ended


def _end(running: list[_RunningProcess]) -> None:
    with _sigterm_ignored():
        for one in running:
            one.leash.stop()
        for one in running:
            one.leash.output.close()
            one.wait()


def _at_end(log: Path) -> IO[bytes]:
    """Open a log for reading what is written from now on."""
    file = log.open("rb", buffering=0)
    file.seek(0, os.SEEK_END)
    return file


def _follow(
    running: list[_RunningProcess],
    log: IO[bytes] | None,
    on_line: Callable[[int, str], object],
    deadline: float | None,
    stop_requested: Callable[[], bool],
) -> ExitStatus:
    cause = ExitCause.EXITED
    failed: list[_RunningProcess] = []
    stop_at: float | None = None
    with selectors.DefaultSelector() as selector:
        for number, one in enumerate(running):
            selector.register(one.leash.output, selectors.EVENT_READ, number)
        while selector.get_map():
            now = time.monotonic()
            if stop_at is None and stop_requested():
                cause, stop_at = ExitCause.STOPPED, now
            elif stop_at is None and deadline and now >= deadline:
                cause, stop_at = ExitCause.TIMED_OUT, now
            if stop_at is not None and now >= stop_at:
                for one in running:
                    one.leash.stop()
            for number, lines in _new_output(running, selector, log):
                for line in lines:
                    on_line(number, line)
                one = running[number]
                if one.code and (stop_at is None or now < stop_at):
                    failed.append(one)
                    stop_at = stop_at or now + (_SETTLE_SECONDS if len(running) > 1 else 0)
    # One that was killed is the reason, even if another failed first because it was gone.
    first = min(failed, key=lambda one: (one.code or 0) > 0, default=running[0])
    silent = tuple(one.name for one in running if one.name and not one.tail)
    return ExitStatus(
        first.code or 0, cause=cause, tail=first.tail, process=first.name, silent=silent
    )


def _new_output(
    running: list[_RunningProcess], selector: selectors.BaseSelector, log: IO[bytes] | None
) -> Iterator[tuple[int, list[str]]]:
    """Wait a moment for output; yield the lines of each process that has some, or has ended."""
    tick = _TICK_SECONDS
    for number, one in enumerate(running):
        if one.writes_log and one.code is None:
            lines = one.read_written()
            tick = 0 if lines else _LOG_TICK_SECONDS
            yield number, lines
    for key, _ in selector.select(tick):
        one = running[key.data]
        data, lines = one.read()
        if log is not None:  # of a process that writes into it, data are the words of its leash
            log.write(data if not one.name else _named(one.name, lines))
        if one.code is not None:
            selector.unregister(key.fileobj)
        yield key.data, lines


def _named(name: str, lines: list[str]) -> bytes:
    return "".join(f"[{name}] {line}\n" for line in lines).encode(errors="replace")


class RateLimitedLog:
    """Logger of lines that drops those beyond a rate, and logs how many it dropped.

    A script that prints a million lines would otherwise fill the server's database with them.
    Secrets in URLs are masked.
    """

    def __init__(self, log: Callable[[str], None], lines_per_second: int) -> None:
        self._log = log
        self._limit = lines_per_second
        self._second = 0
        self._logged = 0
        self._dropped = 0

    def __call__(self, line: str) -> None:
        """Log ``line``, or count it as dropped."""
        now = int(time.monotonic())
        if now != self._second:
            self.close()
            self._second, self._logged = now, 0
        if self._logged < self._limit:
            self._logged += 1
            self._log(mask(line))
        else:
            self._dropped += 1

    def close(self) -> None:
        """Log how many lines were dropped since the last report."""
        if self._dropped:
            self._log(f"... {self._dropped} more lines, in the run's log file only")
            self._dropped = 0
