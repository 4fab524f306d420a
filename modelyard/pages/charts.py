"""Charts of lines and dots, as data that a template draws: nothing here writes markup."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tasks.evaluation.curve_lines import PlotLine

MOST_LINES = 10  # of which each has a colour, or a dash, of its own
_WIDTH, _HEIGHT = 360, 316
_LEFT, _TOP, _RIGHT, _BOTTOM = 44, 8, 344, 276
_CLOSE = 1.0  # points that are closer than a pixel cannot be told apart
_LARGEST, _SMALLEST = 1e300, 1e-300  # beyond them differences may be infinite, or inexact
_STEPS = (1, 2, 5, 10)

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class ChartTick:
    """A tick of an axis.

    Attributes:
        at: Its place in the drawing, in pixels.
        text: Its label.
    """

    at: float
    text: str


@dataclass(frozen=True)
class ChartLine:
    """A line of a chart.

    Attributes:
        style: Its class in the style sheet.
        name: What it is of.
        points: Its points as SVG writes them.
    """

    style: str
    name: str
    points: str


@dataclass(frozen=True)
class ChartView:
    """A chart.

    Attributes:
        title: What it shows.
        x_title: What goes to the right.
        y_title: What goes up.
        x_ticks: Ticks of the axis below.
        y_ticks: Ticks of the axis at the left.
        lines: Its lines.
        dots: The path of its dots as SVG writes it; empty without any.
        has_legend: Whether it has a legend of its own.
    """

    title: str
    x_title: str
    y_title: str
    x_ticks: Sequence[ChartTick]
    y_ticks: Sequence[ChartTick]
    lines: Sequence[ChartLine]
    dots: str = ""
    has_legend: bool = False

    left, top, right, bottom = _LEFT, _TOP, _RIGHT, _BOTTOM
    width, height = _WIDTH, _HEIGHT


@dataclass(frozen=True)
class _Axis:
    """An axis: which value is where."""

    low: float
    high: float
    start: int
    end: int
    ticks: Sequence[float]

    def at(self, value: float) -> float:
        """The place of a value, in pixels; of one beside the axis, its end."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + (self.end - self.start) * min(1.0, max(0.0, share)), 1)

    def labels(self) -> list[ChartTick]:
        return [ChartTick(self.at(tick), _label(tick)) for tick in self.ticks]


def style(number: int) -> str:
    """Return the class of a line by its number."""
    return f"line-{number % MOST_LINES}"


def of_rates(
    title: str,
    x_title: str,
    y_title: str,
    lines: Iterable[PlotLine],
    *,
    has_legend: bool = False,
    ideal: str = "",
) -> ChartView:
    """Return a chart of values between 0 and 1.

    Args:
        title: What it shows.
        x_title: What goes to the right.
        y_title: What goes up.
        lines: Its lines.
        has_legend: Whether it has a legend of its own.
        ideal: The name of the diagonal; empty for none.
    """
    ticks = [tick / 5 for tick in range(6)]
    x, y = _Axis(0, 1, _LEFT, _RIGHT, ticks), _Axis(0, 1, _BOTTOM, _TOP, ticks)
    drawn = [
        ChartLine(style(number), line.name, _path(zip(line.x, line.y, strict=True), x, y))
        for number, line in enumerate(lines)
    ]
    if ideal:
        drawn.insert(0, ChartLine("ideal", ideal, _path([(0, 0), (1, 1)], x, y)))
    return ChartView(title, x_title, y_title, x.labels(), y.labels(), drawn, has_legend=has_legend)


def of_values(
    title: str,
    x_title: str,
    y_title: str,
    lines: Sequence[tuple[str, str, Points]],
    dots: Points = (),
) -> ChartView:
    """Return a chart of any values, whose axes are as long as these want it.

    Args:
        title: What it shows.
        x_title: What goes to the right.
        y_title: What goes up.
        lines: The style, the name and the points of each line.
        dots: Single points.
    """
    every = [point for _, _, points in lines for point in points] + [*dots]
    x = _axis([point[0] for point in every], _LEFT, _RIGHT)
    y = _axis([point[1] for point in every], _BOTTOM, _TOP)
    drawn = [ChartLine(style, name, _path(points, x, y)) for style, name, points in lines]
    marks = "".join(f"M{x.at(right):g},{y.at(up):g}h0" for right, up in dots)
    return ChartView(title, x_title, y_title, x.labels(), y.labels(), drawn, marks)


def _path(points: Iterable[tuple[float, float]], x: _Axis, y: _Axis) -> str:
    """The points of a line, without those that lie on the one before."""
    kept: list[tuple[float, float]] = []
    last = None
    for right, up in points:
        last = (x.at(right), y.at(up))
        if not kept or max(abs(last[0] - kept[-1][0]), abs(last[1] - kept[-1][1])) >= _CLOSE:
            kept.append(last)
    if last is not None and last != kept[-1]:
        kept.append(last)
    return " ".join(f"{right:g},{up:g}" for right, up in kept)


def _axis(values: Sequence[float], start: int, end: int) -> _Axis:
    """An axis that begins and ends at round numbers, around all values."""
    held = [min(_LARGEST, max(-_LARGEST, value)) for value in values] or [0.0]
    low, high = min(held), max(held)
    if high - low <= max(1e-9 * max(abs(low), abs(high)), _SMALLEST):
        margin = abs(low) / 10 if abs(low) > _SMALLEST else 1.0
        low, high = low - margin, high + margin
    step = _step((high - low) / 5)
    first, last = math.floor(low / step), math.ceil(high / step)
    return _Axis(
        first * step, last * step, start, end, [at * step for at in range(first, last + 1)]
    )


def _step(least: float) -> float:
    """The smallest round number that is at least so large: 1, 2 or 5 times a power of 10."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * one for one in _STEPS if power * one >= least or one == _STEPS[-1])


def _label(value: float) -> str:
    return f"{value + 0.0:.3g}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")
