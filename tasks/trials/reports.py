"""What a trial reports of the metrics that somebody waits for, kept in a file beside it.

The file is why a kill loses no report: MLflow gets them a moment later only. It has a line for
each, which is there, for whoever reads it after a kill, before anything is done because of it.
"""

from __future__ import annotations

import errno
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import astuple, dataclass
from enum import StrEnum
from pathlib import Path

from tuning.metrics import Observation


class Source(StrEnum):
    """Where a report was found."""

    LINES = "lines"
    EVENTS = "events"
    PUSHED = "pushed"  # to MLflow, by the script itself
    KEPT = "kept"  # in MLflow, where an earlier attempt on another machine has left it


_PRINTED = {Source.LINES, Source.EVENTS}


@dataclass(frozen=True)
class Report:
    """One value of a metric."""

    metric: str
    value: float
    source: Source
    step: int = 0
    at: float = 0.0

    @property
    def printed(self) -> bool:
        """Whether it is we who tell MLflow of it."""
        return self.source in _PRINTED


class Reports:
    """The reports of one trial, in order; several threads may add to them.

    A metric that the script both prints and pushes to MLflow is taken from where it was first.

    Attributes:
        earlier: What earlier attempts have reported.
    """

    def __init__(
        self, path: Path, metrics: Collection[str], tell: Callable[[str, float], object]
    ) -> None:
        """Go on with the reports at ``path``; ``tell`` is told of each, once they are let.

        Raises:
            OSError: If the file cannot be read or written.
        """
        self._metrics = frozenset(metrics)
        self._tell = tell
        self._lock = threading.Lock()
        self._printed: dict[str, bool] = {}
        self._counts: Counter[str] = Counter()
        self._steps: dict[str, int] = {}
        self._let = False
        data = path.read_bytes() if path.exists() else b""
        self.earlier = _parsed(data)
        self._cut = bool(data) and not data.endswith(b"\n")
        for report in self.earlier:
            self._note(report)
        self._file = path.open("ab", buffering=0)

    def close(self) -> None:
        """Take no further ones, and tell none."""
        with self._lock:
            self._let = False
            self._file.close()

    def keep(self, metric: str, values: Iterable[float], step: int) -> None:
        """Take values that MLflow has of an earlier attempt which left no file here.

        Args:
            metric: Whose values.
            values: The values, in order.
            step: What the next one's step will be.
        """
        for value in values:
            report = Report(metric, value, Source.KEPT, step - 1)
            self._write(report)
            self._note(report)
            self.earlier.append(report)

    def let(self) -> None:
        """Tell what there is, and from now on what comes."""
        with self._lock:
            self._let = True
            for report in self.earlier:
                self._tell(report.metric, report.value)

    def take(self, found: Observation) -> Observation | None:
        """Take what was found in the script's output; what MLflow is to be told, if anything."""
        if found.name not in self._metrics:
            return found
        with self._lock:
            if not self._let or not self._printed.setdefault(found.name, True):
                return None
            source = Source.LINES if found.at is None else Source.EVENTS
            step = self._steps.get(found.name, 0) if found.step is None else found.step
            at = time.time() if found.at is None else found.at
            self._add(Report(found.name, found.value, source, step, at))
        return Observation(found.name, found.value, step, at)

    def awaited(self) -> dict[str, int]:
        """Metrics that the script may push, with how many values of each are known."""
        with self._lock:
            if not self._let:
                return {}
            return {
                name: self._counts[name]
                for name in self._metrics
                if not self._printed.get(name, False)
            }

    def push(self, metric: str, known: int, values: Iterable[float]) -> None:
        """Take what was found in MLflow beyond ``known`` values, unless others came meanwhile."""
        with self._lock:
            for number, value in enumerate(values, known):
                taken = self._printed.get(metric, False) or self._counts[metric] != number
                if taken or not self._let:
                    return
                self._printed[metric] = False
                self._add(Report(metric, value, Source.PUSHED))

    def _add(self, report: Report) -> None:
        self._write(report)
        self._note(report)
        self._tell(report.metric, report.value)

    def _write(self, report: Report) -> None:
        line = json.dumps(astuple(report)).encode() + b"\n"
        line = b"\n" + line if self._cut else line
        self._cut = True  # until all of it is there
        if self._file.write(line) != len(line):
            raise OSError(errno.ENOSPC, "The disk is full.")
        self._cut = False

    def _note(self, report: Report) -> None:
        self._counts[report.metric] += 1
        self._steps[report.metric] = max(report.step + 1, self._steps.get(report.metric, 0))
        if report.source is not Source.KEPT:
            self._printed[report.metric] = report.printed


def read(path: Path) -> list[Report]:
    """What a trial has reported, of the file at ``path``; nothing if it cannot be read."""
    try:
        return _parsed(path.read_bytes())
    except OSError:
        return []


def _parsed(data: bytes) -> list[Report]:
    """The reports in a file's content; lines that are cut are left out."""
    found = []
    for line in data.splitlines():
        try:
            metric, value, source, step, at = json.loads(line)
            found.append(Report(metric, float(value), Source(source), int(step), float(at)))
        except (ValueError, TypeError):
            continue
    return found
