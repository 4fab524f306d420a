"""Plot of the metrics of several runs, each metric in a panel of its own."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tuning.plots import style

# Values of a metric with their steps.
Curve = Sequence[tuple[int, float]]

_MOST_PANELS = 12
_MOST_POINTS = 2000  # more than there are pixels
_FEW_POINTS = 40  # are marked
_COLORS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#a3123a", "#24292f",
)  # fmt: skip
_LINES = ("-", "--", ":", "-.")  # once for each round of colours


def draw(names: Sequence[str], curves: Mapping[str, Sequence[Curve]], kind: str) -> bytes:
    """Draw the curves of each metric.

    Args:
        names: The runs' names, for the legend.
        curves: For each metric the curve of each run, which may be empty.
        kind: ``svg`` or ``png``.
    """
    shown = dict(list(curves.items())[:_MOST_PANELS])
    columns = min(len(shown), 1 if len(shown) == 1 else 2 if len(shown) <= 4 else 3)
    left_out = (
        f", {len(curves) - len(shown)} more are left out" if len(curves) > len(shown) else ""
    )
    made = style.figure(
        f"{len(names)} runs", f"{len(shown)} metrics by step{left_out}" if shown else "No metrics"
    )
    if shown:
        grid = made.subplots(
            math.ceil(len(shown) / columns), columns, squeeze=False,
            gridspec_kw={"left": 0.06, "right": 0.975, "top": 0.79, "bottom": 0.07,
                         "hspace": 0.4, "wspace": 0.2},
        )  # fmt: skip
        for axes, (metric, found) in zip(grid.flat, shown.items(), strict=False):
            _panel(axes, metric, found)
        for axes in grid.flat[len(shown) :]:
            axes.set_axis_off()
    style.legend(
        made,
        [style.line(style.shown(name, 30), *_look(number)[:1], linestyle=_look(number)[1])
         for number, name in enumerate(names)],
    )  # fmt: skip
    return _save(made, kind)


def _look(number: int) -> tuple[str, str]:
    """The colour and the line of a run."""
    round_, place = divmod(number, len(_COLORS))
    return _COLORS[place], _LINES[round_ % len(_LINES)]


def _panel(axes: Axes, metric: str, curves: Sequence[Curve]) -> None:
    style.quiet(axes, style.SMALL)
    style.counted(axes)
    axes.set_title(style.shown(metric, 60), loc="left", **style.font(style.TICK))
    for number, curve in enumerate(curves):
        points = curve[:: max(1, math.ceil(len(curve) / _MOST_POINTS))]
        color, line = _look(number)
        axes.plot(
            [step for step, _ in points],
            [value if math.isfinite(value) else math.nan for _, value in points],
            color=color, linestyle=line, linewidth=2, markersize=6,
            marker="o" if len(points) <= _FEW_POINTS else "",
        )  # fmt: skip


def _save(made: Figure, kind: str) -> bytes:
    if kind == "png":
        return style.png(made)
    buffer = io.BytesIO()
    FigureCanvasAgg(made).print_figure(buffer, format=kind)
    return buffer.getvalue()
