"""What the components of a run print: all of it in a file, and of it what Prefect can bear."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_TASKS = 5  # so many tasks that print as much as they may are passed on in full


class _Share:
    """How many lines a second all tasks together may still pass on."""

    def __init__(self, lines_per_second: int) -> None:
        self._most = lines_per_second
        self._lock = threading.Lock()
        self._second, self._taken = 0, 0

    def take(self, second: int) -> bool:
        with self._lock:
            if second != self._second:
                self._second, self._taken = second, 0
            self._taken += 1
            return self._taken <= self._most


class _TaskLog:
    """The lines of one task."""

    def __init__(self, path: str, show: Callable[[str], object], most: int, share: _Share) -> None:
        self.path = path
        self._show = show
        self._most = most
        self._share = share
        self._second, self._shown, self._held_back = 0, 0, 0

    def pass_on(self, line: str) -> None:
        """Show a line, or count it."""
        now = int(time.monotonic())
        if now != self._second:
            self.settle()
            self._second, self._shown = now, 0
        if self._shown < self._most and self._share.take(now):
            self._shown += 1
            self._show(f"{self.path} | {line}")
        else:
            self._held_back += 1

    def settle(self) -> None:
        """Say how many lines were held back since the last time."""
        if self._held_back:
            self._show(
                f"{self.path} | ... {self._held_back} more lines, in the run's log file only"
            )
            self._held_back = 0


class RunLog:
    """The lines of a run. Several threads may write, each for a task of its own."""

    def __init__(self, file: Path, lines_per_second: int) -> None:
        """Go on with a file.

        Args:
            file: Gets every line, after its task's path.
            lines_per_second: How many of one task's lines are shown.
        """
        self.file = file
        self._most = lines_per_second
        self._share = _Share(_TASKS * lines_per_second)
        self._tasks: dict[str, _TaskLog] = {}
        file.parent.mkdir(parents=True, exist_ok=True)
        self._out = file.open("ab", buffering=0)

    @contextmanager
    def of(self, path: str, show: Callable[[str], object]) -> Iterator[None]:
        """Show the lines of a task for the while."""
        task = self._tasks[path] = _TaskLog(path, show, self._most, self._share)
        try:
            yield
        finally:
            del self._tasks[path]
            task.settle()

    def write(self, path: str, line: str) -> None:
        """Take a line of a task."""
        self._out.write(f"{path} | {line}\n".encode(errors="replace"))
        task = self._tasks.get(path)
        if task is not None:
            task.pass_on(line)

    def close(self) -> None:
        """Close the file."""
        self._out.close()
