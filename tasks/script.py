"""Run a script on a leash and follow its output line by line."""

from __future__ import annotations

import codecs
import collections
import contextlib
import os
import re
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from infra.leashed import Leashed

_TICK_SECONDS = 0.2
_LONGEST_LINE = 64 * 1024
_TAIL_LINES = 20
_LINE_END = re.compile(r"\r\n|\n|\r")


class Ending(Enum):
    """Why a script ended."""

    EXITED = "exited"
    STOPPED = "stopped"
    TIMED_OUT = "timed out"


@dataclass(frozen=True)
class Ended:
    """How a script ended.

    Attributes:
        ending: Whether by itself, on request or at its time limit.
        code: Exit status, or minus the signal that killed it.
        tail: The last lines of its output.
    """

    ending: Ending
    code: int
    tail: tuple[str, ...]


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


def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    log: Path,
    on_line: Callable[[str], None],
    deadline: float | None,
    stop_requested: Callable[[], bool],
    grace: float,
) -> Ended:
    """Run ``command`` to its end and pass on its output as it appears.

    Whatever ends this call (an exception raised by a signal handler, too) ends the command's
    whole process tree first, within ``grace`` seconds and a little.

    Args:
        command: The command line.
        env: Its whole environment.
        cwd: Its working directory.
        log: File that gets its output as it is.
        on_line: Called for every line, without the line's end.
        deadline: ``time.monotonic()`` at which it is ended, or None for never.
        stop_requested: Asked a few times a second whether it is to be ended.
        grace: Seconds between SIGTERM and SIGKILL.
    """
    tail: collections.deque[str] = collections.deque(maxlen=_TAIL_LINES)
    lines = Lines()
    ending = Ending.EXITED

    def take(found: list[str]) -> None:
        for line in found:
            tail.append(line)
            on_line(line)

    process = Leashed(command, env=env, cwd=cwd, grace=grace)
    try:
        with log.open("ab", buffering=0) as file:
            descriptor = process.output.fileno()
            while True:
                if ending is Ending.EXITED and stop_requested():
                    ending = Ending.STOPPED
                    process.stop()
                elif ending is Ending.EXITED and deadline and time.monotonic() >= deadline:
                    ending = Ending.TIMED_OUT
                    process.stop()
                ready, _, _ = select.select([descriptor], [], [], _TICK_SECONDS)
                if ready:
                    data = os.read(descriptor, 65536)
                    if not data:
                        break
                    file.write(data)
                    take(lines.feed(data))
            take(lines.close())
    finally:
        with _undisturbed():
            process.stop()
            process.output.close()
            code = process.wait()
    return Ended(ending, code, tuple(tail))


class Forwarder:
    """Passes lines on to a logger, but no more a second than a person could want.

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
            self._log(line)
        else:
            self._held_back += 1

    def close(self) -> None:
        """Say how many lines were held back since the last time."""
        if self._held_back:
            self._log(f"... {self._held_back} more lines, in the run's log file only")
            self._held_back = 0
