"""Run a script on leashes, one for each of its processes, and follow its output line by line."""

from __future__ import annotations

import codecs
import collections
import contextlib
import os
import re
import selectors
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import IO

from infra.leashed import Leash, Leashed, Start
from infra.masking import mask

_TICK_SECONDS = 0.2
_LONGEST_LINE = 64 * 1024
_TAIL_LINES = 20

# When one process dies, those that talk to it fail within moments, and may be noticed first.
_SETTLE_SECONDS = 1.0
_LINE_END = re.compile(r"\r\n|\n|\r")


class Ending(Enum):
    """Why a script ended."""

    EXITED = "exited"
    STOPPED = "stopped"
    TIMED_OUT = "timed out"


@dataclass(frozen=True)
class Process:
    """One process of a script, with all that it starts.

    Attributes:
        command: Its command line.
        env: Its whole environment.
        name: What its lines begin with, such as ``node 1``; empty for the only one.
    """

    command: Sequence[str]
    env: Mapping[str, str]
    name: str = ""


@dataclass(frozen=True)
class Ended:
    """How a script ended.

    Attributes:
        ending: Whether by itself, on request or at its time limit.
        code: Exit status, or minus the signal that killed it; of several processes, that of the
            one whose failure ended the others.
        tail: The last lines of that one's output.
        name: Its name.
        silent: Names of the processes that printed nothing.
    """

    ending: Ending
    code: int
    tail: tuple[str, ...]
    name: str = ""
    silent: tuple[str, ...] = ()


class Lines:
    """Cuts a stream of bytes into lines; progress bars' carriage returns end a line too."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._rest = ""

    def feed(self, data: bytes) -> list[str]:
        """The lines that ``data`` completes; an overlong one is cut."""
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
        """The last line, if it had no end."""
        rest, self._rest = self._rest, ""
        return [rest] if rest else []


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore further SIGTERMs for the while: the first one has started the clean-up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Running:
    """A process that runs, and what it has printed."""

    def __init__(self, process: Process, leashed: Leash) -> None:
        self.name = process.name
        self.leashed = leashed
        self.code: int | None = None
        self._lines = Lines()
        self._tail: collections.deque[str] = collections.deque(maxlen=_TAIL_LINES)

    def read(self) -> tuple[bytes, list[str]]:
        """What it has printed since: as it is, and the lines that are complete by now.

        At the end of its output it has ended, and ``code`` says how.
        """
        data = os.read(self.leashed.output.fileno(), 65536)
        found = self._lines.feed(data) if data else self._lines.close()
        self._tail.extend(found)
        if not data:
            self.code = self.leashed.wait()
        return data, found

    @property
    def tail(self) -> tuple[str, ...]:
        return tuple(self._tail)


def run(
    processes: Sequence[Process],
    *,
    cwd: Path,
    log: Path | None,
    on_line: Callable[[int, str], object],
    deadline: float | None,
    stop_requested: Callable[[], bool],
    grace: float,
    keep: Sequence[int] = (),
    start: Start = Leashed,
) -> Ended:
    """Run a script's processes to their end and pass on their output as it appears.

    The first that fails ends all others. Whatever ends this call (an exception raised by a signal
    handler, too) ends all their process trees first, within ``grace`` seconds and a little.

    Args:
        processes: At least one.
        cwd: Their working directory.
        log: File that gets their output: as it is, or line by line with their names if there are
            several; None for no file.
        on_line: Called with the process's number, from 0, for every line without its end.
        deadline: ``time.monotonic()`` at which they are ended, or None for never.
        stop_requested: Asked a few times a second whether they are to be ended.
        grace: Seconds between SIGTERM and SIGKILL.
        keep: Open files that they inherit.
        start: What starts each on its leash.
    """
    running: list[_Running] = []
    try:
        for process in processes:
            leashed = start(process.command, env=process.env, cwd=cwd, grace=grace, keep=keep)
            running.append(_Running(process, leashed))
        with log.open("ab", buffering=0) if log else contextlib.nullcontext() as file:
            return _follow(running, file, on_line, deadline, stop_requested)
    finally:
        with _undisturbed():
            for one in running:
                one.leashed.stop()
            for one in running:
                one.leashed.output.close()
                one.leashed.wait()


def _follow(
    running: list[_Running],
    log: IO[bytes] | None,
    on_line: Callable[[int, str], object],
    deadline: float | None,
    stop_requested: Callable[[], bool],
) -> Ended:
    ending = Ending.EXITED
    failed: list[_Running] = []
    stop_at: float | None = None
    with selectors.DefaultSelector() as selector:
        for number, one in enumerate(running):
            selector.register(one.leashed.output, selectors.EVENT_READ, number)
        while selector.get_map():
            now = time.monotonic()
            if stop_at is None and stop_requested():
                ending, stop_at = Ending.STOPPED, now
            elif stop_at is None and deadline and now >= deadline:
                ending, stop_at = Ending.TIMED_OUT, now
            if stop_at is not None and now >= stop_at:
                for one in running:
                    one.leashed.stop()
            for key, _ in selector.select(_TICK_SECONDS):
                one = running[key.data]
                data, lines = one.read()
                if log is not None:
                    log.write(data if not one.name else _named(one.name, lines))
                for line in lines:
                    on_line(key.data, line)
                if one.code is not None:
                    selector.unregister(key.fileobj)
                    if one.code != 0 and (stop_at is None or now < stop_at):
                        failed.append(one)
                        stop_at = stop_at or now + (_SETTLE_SECONDS if len(running) > 1 else 0)
    # One that was killed is the reason, whoever noticed first that it was gone.
    first = min(failed, key=lambda one: (one.code or 0) > 0, default=running[0])
    silent = tuple(one.name for one in running if one.name and not one.tail)
    return Ended(ending, first.code or 0, first.tail, first.name, silent)


def _named(name: str, lines: list[str]) -> bytes:
    return "".join(f"[{name}] {line}\n" for line in lines).encode(errors="replace")


class Forwarder:
    """Passes lines on to a logger, but no more a second than a person could want.

    Secrets in URLs are masked.

    A script that prints a million lines would otherwise fill the server's database with them.
    What is held back is counted, and the count is passed on.
    """

    def __init__(self, log: Callable[[str], None], lines_per_second: int) -> None:
        self._log = log
        self._limit = lines_per_second
        self._second = 0
        self._passed = 0
        self._held_back = 0

    def __call__(self, line: str) -> None:
        """Pass ``line`` on, or count it."""
        now = int(time.monotonic())
        if now != self._second:
            self.close()
            self._second, self._passed = now, 0
        if self._passed < self._limit:
            self._passed += 1
            self._log(mask(line))
        else:
            self._held_back += 1

    def close(self) -> None:
        """Say how many lines were held back since the last time."""
        if self._held_back:
            self._log(f"... {self._held_back} more lines, in the run's log file only")
            self._held_back = 0
