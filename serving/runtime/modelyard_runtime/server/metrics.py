"""Counters, gauges and histograms of a server, and their text for Prometheus.

They are cells of :mod:`metric_cells`: a scrape of any process has the numbers of all.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate

from modelyard_runtime.server.metric_cells import CellFile

OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class MetricKind(StrEnum):
    """Type of a metric, as Prometheus has them.

    Attributes:
        COUNTER: A sum that never falls; also what processes that have ended counted.
        GAUGE: A value of now, of the processes that run.
        HISTOGRAM: Counts of values by upper bounds, and their sum.
    """

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class MetricFamily:
    """A metric with all its label sets.

    Attributes:
        name: Its name, without the ``_total`` of a counter.
        kind: Its type.
        help: What it is.
        labels: Names of its labels.
        bounds: Upper bounds of a histogram, without infinity.
        combine: How the values of several processes become one.
    """

    name: str
    kind: MetricKind
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    combine: Callable[[Iterable[float]], float] = math.fsum

    @property
    def size(self) -> int:
        """The number of cells: of a histogram one for each bound, infinity, and the sum."""
        return len(self.bounds) + 2 if self.kind is MetricKind.HISTOGRAM else 1


class CounterCell:
    """A counter of one label set."""

    __slots__ = ("_at", "_cells")

    def __init__(self, cells: memoryview[float], at: int) -> None:
        self._cells = cells
        self._at = at

    def add(self, value: float = 1.0) -> None:
        """Count ``value`` more."""
        self._cells[self._at] += value


class GaugeCell(CounterCell):
    """A gauge of one label set, or a counter that is counted elsewhere."""

    __slots__ = ()

    @property
    def value(self) -> float:
        """Its value."""
        return float(self._cells[self._at])

    def set(self, value: float) -> None:
        """Make it ``value``."""
        self._cells[self._at] = value


class HistogramCells:
    """A histogram of one label set."""

    __slots__ = ("_at", "_bounds", "_cells", "_sum")

    def __init__(self, cells: memoryview[float], at: int, bounds: Sequence[float]) -> None:
        self._cells = cells
        self._at = at
        self._bounds = bounds
        self._sum = at + len(bounds) + 1

    def observe(self, value: float) -> None:
        """Count a value."""
        cells = self._cells
        cells[self._at + bisect_left(self._bounds, value)] += 1.0
        cells[self._sum] += value


class Metrics:
    """The metrics of this process, and the text of those of all processes of the server."""

    def __init__(self, families: Sequence[MetricFamily], file: CellFile | None = None) -> None:
        """Write ``families`` into ``file``, of which one is made if it is left out."""
        self._families = {one.name: one for one in families}
        self._file = file or CellFile()
        for key, at in self._file.keys.items():  # of a process that has ended
            family = self._families.get(_parsed(key)[0])
            if family and family.kind is MetricKind.GAUGE:
                self._file.cells[at] = 0.0

    def counter(self, family: MetricFamily, *labels: str) -> CounterCell:
        """The counter of a label set; the same for the same labels."""
        return CounterCell(self._file.cells, self._reserve(family, labels))

    def gauge(self, family: MetricFamily, *labels: str) -> GaugeCell:
        """The gauge of a label set."""
        return GaugeCell(self._file.cells, self._reserve(family, labels))

    def histogram(self, family: MetricFamily, *labels: str) -> HistogramCells:
        """The histogram of a label set."""
        return HistogramCells(self._file.cells, self._reserve(family, labels), family.bounds)

    def _reserve(self, family: MetricFamily, labels: tuple[str, ...]) -> int:
        assert len(labels) == len(family.labels)
        return self._file.reserve(json.dumps([family.name, *labels]), family.size)

    def expose(self, *, open_metrics: bool = False) -> bytes:
        """The text of all metrics that have a value.

        Args:
            open_metrics: In OpenMetrics 1.0; else in Prometheus's own format, 0.0.4.
        """
        series = self._combined()
        lines: list[str] = []
        for family in self._families.values():
            if found := series.get(family.name):
                lines += _head(family, open_metrics=open_metrics)
                for labels in sorted(found):
                    lines += _samples(family, labels, found[labels])
        if open_metrics:
            lines.append("# EOF")
        return "".join(f"{line}\n" for line in lines).encode()

    def _combined(self) -> Mapping[str, Mapping[tuple[str, ...], Sequence[float]]]:
        """By family and labels, the cells of all processes as one."""
        found: dict[str, dict[tuple[str, ...], list[tuple[float, ...]]]] = {}
        for values, is_running in self._file.read_all():
            for key, cells in values.items():
                name, labels = _parsed(key)
                family = self._families.get(name)
                if family and len(cells) == family.size and (
                    is_running or family.kind is not MetricKind.GAUGE
                ):  # fmt: skip
                    found.setdefault(name, {}).setdefault(labels, []).append(cells)
        return {
            name: {
                labels: [self._families[name].combine(one) for one in zip(*several, strict=True)]
                for labels, several in by_labels.items()
            }
            for name, by_labels in found.items()
        }


def accepts_open_metrics(accept: str) -> bool:
    """Whether a header ``Accept`` prefers OpenMetrics 1.0 to Prometheus's own text."""
    best = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for one in accept.lower().split(","):
        kind, *rest = (part.strip() for part in one.split(";"))
        parameters = dict(part.partition("=")[::2] for part in rest)
        if kind in best and parameters.get("version", "1.0.0") in {"1.0.0", "0.0.4"}:
            best[kind] = max(best[kind], _quality(parameters.get("q", "1")))
    return best["application/openmetrics-text"] > best["text/plain"]


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _parsed(key: str) -> tuple[str, tuple[str, ...]]:
    name, *labels = json.loads(key)
    return name, tuple(labels)


def _head(family: MetricFamily, *, open_metrics: bool) -> list[str]:
    is_total = family.kind is MetricKind.COUNTER and not open_metrics
    name = f"{family.name}_total" if is_total else family.name
    return [f"# HELP {name} {family.help}", f"# TYPE {name} {family.kind}"]


def _samples(
    family: MetricFamily, labels: Sequence[str], cells: Sequence[float]
) -> Iterator[str]:  # fmt: skip
    pairs = [
        f'{name}="{_escaped(value)}"' for name, value in zip(family.labels, labels, strict=True)
    ]
    if family.kind is not MetricKind.HISTOGRAM:
        suffix = "_total" if family.kind is MetricKind.COUNTER else ""
        yield f"{family.name}{suffix}{_braced(pairs)} {cells[0]!r}"
        return
    *buckets, total = cells
    counts = list(accumulate(buckets))
    for bound, count in zip([*map(repr, family.bounds), "+Inf"], counts, strict=True):
        within = _braced([*pairs, f'le="{bound}"'])
        yield f"{family.name}_bucket{within} {count!r}"
    yield f"{family.name}_count{_braced(pairs)} {counts[-1]!r}"
    yield f"{family.name}_sum{_braced(pairs)} {total!r}"


def _braced(pairs: Sequence[str]) -> str:
    return f"{{{','.join(pairs)}}}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
