"""Journal of a trial's reports of objectives and constraints, in a file of its folder.

MLflow receives reports with a delay, so the journal is what makes them survive a kill: each report
is a line that is written before it has any effect.
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
    """Source of a report."""

    LINES = "lines"
    EVENTS = "events"
    PUSHED = "pushed"  # logged to MLflow by the script itself
    KEPT = "kept"  # read from MLflow, from an earlier attempt on another machine


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
        """Whether Modelyard, not the script, logs it to MLflow."""
        return self.source in _PRINTED


class Reports:
    """Reports of one trial, in order; thread-safe.

    A metric that the script both prints and logs to MLflow is taken from its first source.

    Attributes:
        earlier: Reports of earlier attempts.
    """

    def __init__(
        self, path: Path, metrics: Collection[str], on_report: Callable[[str, float], object]
    ) -> None:
        """Open the journal at ``path``.

        Args:
            path: The file; created if missing.
            metrics: Metrics of the objectives and constraints; others are not recorded.
            on_report: Called with each report, from :meth:`start_reporting` on.

        Raises:
            OSError: If the file cannot be read or written.
        """
        self._metrics = frozenset(metrics)
        self._on_report = on_report
        self._lock = threading.Lock()
        self._printed: dict[str, bool] = {}
        self._counts: Counter[str] = Counter()
        self._steps: dict[str, int] = {}
        self._reporting = False
        data = path.read_bytes() if path.exists() else b""
        self.earlier = _parsed(data)
        self._cut = bool(data) and not data.endswith(b"\n")
        for report in self.earlier:
            self._note(report)
        self._file = path.open("ab", buffering=0)

    def close(self) -> None:
        """Close the journal; further values are ignored."""
        with self._lock:
            self._reporting = False
            self._file.close()

    def keep(self, metric: str, values: Iterable[float], step: int) -> None:
        """Import an earlier attempt's values from MLflow, if its journal is on another machine.

        Args:
            metric: Name of the metric.
            values: Its values, in order.
            step: Step of the next value.
        """
        for value in values:
            report = Report(metric, value, Source.KEPT, step - 1)
            self._write(report)
            self._note(report)
            self.earlier.append(report)

    def start_reporting(self) -> None:
        """Report the values of earlier attempts, and from now on new ones."""
        with self._lock:
            self._reporting = True
            for report in self.earlier:
                self._on_report(report.metric, report.value)

    def take(self, found: Observation) -> Observation | None:
        """Record a value of the script's output; the observation to log to MLflow, or None."""
        if found.name not in self._metrics:
            return found
        with self._lock:
            if not self._reporting or not self._printed.setdefault(found.name, True):
                return None
            source = Source.LINES if found.at is None else Source.EVENTS
            step = self._steps.get(found.name, 0) if found.step is None else found.step
            at = time.time() if found.at is None else found.at
            self._add(Report(found.name, found.value, source, step, at))
        return Observation(found.name, found.value, step, at)

    def awaiting_push(self) -> dict[str, int]:
        """Metrics that the script may log to MLflow itself, with their numbers of known values."""
        with self._lock:
            if not self._reporting:
                return {}
            return {
                name: self._counts[name]
                for name in self._metrics
                if not self._printed.get(name, False)
            }

    def push(self, metric: str, known: int, values: Iterable[float]) -> None:
        """Record values found in MLflow after the first ``known``, unless they are known now."""
        with self._lock:
            for number, value in enumerate(values, known):
                taken = self._printed.get(metric, False) or self._counts[metric] != number
                if taken or not self._reporting:
                    return
                self._printed[metric] = False
                self._add(Report(metric, value, Source.PUSHED))

    def _add(self, report: Report) -> None:
        self._write(report)
        self._note(report)
        self._on_report(report.metric, report.value)

    def _write(self, report: Report) -> None:
        line = json.dumps(astuple(report)).encode() + b"\n"
        line = b"\n" + line if self._cut else line
        self._cut = True  # until the line is complete
        if self._file.write(line) != len(line):
            raise OSError(errno.ENOSPC, "The disk is full.")
        self._cut = False

    def _note(self, report: Report) -> None:
        self._counts[report.metric] += 1
        self._steps[report.metric] = max(report.step + 1, self._steps.get(report.metric, 0))
        if report.source is not Source.KEPT:
            self._printed[report.metric] = report.printed


def read(path: Path) -> list[Report]:
    """Read the reports of a journal; [] if it cannot be read."""
    try:
        return _parsed(path.read_bytes())
    except OSError:
        return []


def _parsed(data: bytes) -> list[Report]:
    """Parse the content of a journal; truncated lines are skipped."""
    found = []
    for line in data.splitlines():
        try:
            metric, value, source, step, at = json.loads(line)
            found.append(Report(metric, float(value), Source(source), int(step), float(at)))
        except (ValueError, TypeError):
            continue
    return found
