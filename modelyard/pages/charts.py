"""Charts of lines, as data that a template draws: nothing here writes markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tasks.evaluation.curve_lines import PlotLine

WIDTH, HEIGHT = 360, 316
_LEFT, _TOP, _RIGHT, _BOTTOM = 44, 8, 352, 276
MOST_LINES = 10  # of which each has a colour, or a dash, of its own
_CLOSE = 1.0  # points that are closer than a pixel cannot be told apart


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
        number: Which of the style sheet's lines it is.
        name: What it is of.
        points: Its points as SVG writes them.
    """

    number: int
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
        has_legend: Whether it has a legend of its own.
    """

    title: str
    x_title: str
    y_title: str
    x_ticks: Sequence[ChartTick]
    y_ticks: Sequence[ChartTick]
    lines: Sequence[ChartLine]
    has_legend: bool = False

    left, top, right, bottom = _LEFT, _TOP, _RIGHT, _BOTTOM
    width, height = WIDTH, HEIGHT


def of_rates(
    title: str, x_title: str, y_title: str, lines: Iterable[PlotLine], *, has_legend: bool = False
) -> ChartView:
    """Return a chart of values between 0 and 1."""
    ticks = [tick / 5 for tick in range(6)]
    return ChartView(
        title,
        x_title,
        y_title,
        [ChartTick(_x(one), f"{one:g}") for one in ticks],
        [ChartTick(_y(one), f"{one:g}") for one in ticks],
        [ChartLine(number, line.name, _points(line)) for number, line in enumerate(lines)],
        has_legend,
    )


def _x(share: float) -> float:
    return round(_LEFT + (_RIGHT - _LEFT) * min(1.0, max(0.0, share)), 1)


def _y(share: float) -> float:
    return round(_BOTTOM - (_BOTTOM - _TOP) * min(1.0, max(0.0, share)), 1)


def _points(line: PlotLine) -> str:
    kept: list[tuple[float, float]] = []
    last = len(line.x) - 1
    for number, (x, y) in enumerate(zip(line.x, line.y, strict=True)):
        point = _x(x), _y(y)
        is_apart = (
            not kept or max(abs(point[0] - kept[-1][0]), abs(point[1] - kept[-1][1])) >= _CLOSE
        )
        if is_apart or number == last:
            kept.append(point)
    return " ".join(f"{x:g},{y:g}" for x, y in kept)
