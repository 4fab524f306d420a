"""Output of a pipeline run's components: complete in a file, rate-limited in Prefect."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_TASKS = 5  # this many tasks at their own limit are below the limit of the run


class _RateLimit:
    """Limit of lines per second of all tasks together."""

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
    """Log of one task, which shows at most so many lines per second."""

    def __init__(
        self, path: str, show: Callable[[str], object], most: int, share: _RateLimit
    ) -> None:
        self.path = path
        self._show = show
        self._most = most
        self._share = share
        self._second, self._shown, self._held_back = 0, 0, 0

    def add(self, line: str) -> None:
        """Show a line, or count it if the limit is reached."""
        now = int(time.monotonic())
        if now != self._second:
            self.report_suppressed()
            self._second, self._shown = now, 0
        if self._shown < self._most and self._share.take(now):
            self._shown += 1
            self._show(f"{self.path} | {line}")
        else:
            self._held_back += 1

    def report_suppressed(self) -> None:
        """Show how many lines were suppressed since the last report."""
        if self._held_back:
            self._show(
                f"{self.path} | ... {self._held_back} more lines, in the run's log file only"
            )
            self._held_back = 0


class RunLog:
    """Log of a run. Several threads may write, each for its own task."""

    def __init__(self, file: Path, lines_per_second: int) -> None:
        """Append to a file.

        Args:
            file: Receives every line, prefixed with its task's path.
            lines_per_second: Limit of the lines of one task that are shown.
        """
        self.file = file
        self._most = lines_per_second
        self._share = _RateLimit(_TASKS * lines_per_second)
        self._tasks: dict[str, _TaskLog] = {}
        file.parent.mkdir(parents=True, exist_ok=True)
        self._out = file.open("ab", buffering=0)

    @contextmanager
    def of(self, path: str, show: Callable[[str], object]) -> Iterator[None]:
        """Show the lines of a task with ``show`` while the context is open."""
        task = self._tasks[path] = _TaskLog(path, show, self._most, self._share)
        try:
            yield
        finally:
            del self._tasks[path]
            task.report_suppressed()

    def write(self, path: str, line: str) -> None:
        """Write a line of a task."""
        self._out.write(f"{path} | {line}\n".encode(errors="replace"))
        task = self._tasks.get(path)
        if task is not None:
            task.add(line)

    def close(self) -> None:
        """Close the file."""
        self._out.close()
