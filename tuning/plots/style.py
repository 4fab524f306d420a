"""Style of plots: white background, light grid, colours safe for colour blindness.

Nothing here is global but what is constant, and pyplot is not used: plots are drawn in threads.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable
from typing import Any

from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    LogFormatterSciNotation,
    LogLocator,
    MaxNLocator,
    NullLocator,
    ScalarFormatter,
)

from tuning.plots.scales import Scale
from tuning.trials import TrialState

INK = "#24292f"
QUIET = "#5f6873"
PALE = "#b8c0ca"
GRID = "#e6e9ed"
ACCENT = "#d55e00"
PLAIN = "#7a9cba"

# From the worst value to the best.
RAMP = LinearSegmentedColormap.from_list(
    "worst to best", ["#dfe3e8", "#a9c4dd", "#4a90c4", "#12558f", "#0a2f5c"]
)

# Of each state what it is called, its colour and its mark. Marks differ where colours may not.
STATES: dict[TrialState, tuple[str, str, str]] = {
    TrialState.SUCCEEDED: ("succeeded", "#0072b2", "o"),
    TrialState.EARLY_STOPPED: ("stopped early", "#e69f00", "s"),
    TrialState.FAILED: ("failed", "#a3123a", "X"),
    TrialState.METRICS_UNAVAILABLE: ("no value", "#cc79a7", "P"),
    TrialState.KILLED: ("killed", "#8a939e", "v"),
    TrialState.RUNNING: ("running", "#56b4e9", ">"),
    TrialState.CREATED: ("waiting", PALE, "."),
}

TITLE, LABEL, TICK, SMALL = 22, 17, 15, 13
_SIGNS_IN_A_ROW, _SIGNS_OF_A_MARK = 118, 5
_INCHES, _DPI = (16, 9), 100

# Fonts that have what the first does not, where they are installed.
_FONTS = (
    "DejaVu Sans", "Noto Sans CJK KR", "Noto Sans KR", "NanumGothic", "Malgun Gothic",
    "Apple SD Gothic Neo", "Noto Sans CJK JP", "Noto Sans CJK SC", "Arial Unicode MS",
)  # fmt: skip
_MISSING = "\N{WHITE SQUARE}"


@functools.cache
def _families() -> tuple[str, ...]:
    installed = set(font_manager.fontManager.get_font_names())
    return tuple(name for name in _FONTS if name in installed)


@functools.cache
def _signs() -> frozenset[int]:
    """Every sign that the fonts have."""
    paths = (font_manager.findfont(family) for family in _families())
    return frozenset(sign for path in paths for sign in font_manager.get_font(path).get_charmap())


def shown(text: object, longest: int) -> str:
    """``text`` as it is drawn: in one line, not too long, and no formula."""
    signs = _signs()
    line = " ".join(str(text).split())
    if len(line) > longest:
        head = (longest - 1) * 2 // 3
        line = f"{line[:head]}…{line[len(line) - (longest - 1 - head) :]}"
    plain = "".join(sign if ord(sign) in signs else _MISSING for sign in line)
    return plain.replace("$", r"\$")


def font(size: float = LABEL, color: str = INK, **others: Any) -> dict[str, Any]:
    """The arguments of a text."""
    return {"fontsize": size, "color": color, "fontfamily": list(_families()), **others}


def figure(title: str, subtitle: str = "") -> Figure:
    """An empty figure of 1600 by 900 points with a title."""
    made = Figure(figsize=_INCHES, dpi=_DPI, facecolor="white")
    made.text(0.045, 0.948, title, **font(TITLE, weight="bold"))
    made.text(0.045, 0.905, subtitle, **font(TICK, QUIET))
    return made


def png(made: Figure) -> bytes:
    """``made`` as the bytes of a PNG."""
    buffer = io.BytesIO()
    FigureCanvasAgg(made).print_png(  # type: ignore[no-untyped-call]
        buffer, pil_kwargs={"compress_level": 4}
    )
    return buffer.getvalue()


def quiet(axes: Axes, ticks: float = TICK) -> None:
    """Give axes a light grid and thin edges."""
    axes.grid(visible=True, color=GRID, linewidth=1)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in {"left", "bottom"})
        spine.set_color(PALE)
    axes.tick_params(labelsize=ticks, colors=QUIET, length=0, pad=6)


def scaled(axes: Axes, which: str, scale: Scale) -> None:
    """Put one axis, ``x`` or ``y``, on a scale."""
    set_scale, set_limits = getattr(axes, f"set_{which}scale"), getattr(axes, f"set_{which}lim")
    if scale.log:
        set_scale("log")
    set_limits(scale.low, scale.high)
    axis: Axis = getattr(axes, f"{which}axis")
    if scale.log and scale.decades >= 1:
        axis.set_major_locator(LogLocator(numticks=7))
        axis.set_major_formatter(LogFormatterSciNotation(labelOnlyBase=False))
        axis.set_minor_locator(NullLocator())
    elif not scale.log:
        formatter = ScalarFormatter(useOffset=False)
        formatter.set_powerlimits((-4, 5))
        axis.set_major_formatter(formatter)
    axis.get_offset_text().set(fontsize=SMALL, color=QUIET)


def counted(axes: Axes) -> None:
    """Put whole numbers only on the horizontal axis."""
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))


def mark(label: str, color: str, marker: str, **others: Any) -> Line2D:
    """An entry of a legend with a mark."""
    return Line2D([], [], linestyle="", marker=marker, color=color, label=label, **others)


def line(label: str, color: str, **others: Any) -> Line2D:
    """An entry of a legend with a line."""
    return Line2D([], [], color=color, label=label, **others)


def legend(made: Figure, entries: Iterable[Line2D]) -> None:
    """Put a legend in one row above the axes, to the right, in letters that let it fit."""
    handles = list(entries)
    signs = sum(len(str(one.get_label())) + _SIGNS_OF_A_MARK for one in handles)
    made.legend(
        handles=handles, loc="lower right", bbox_to_anchor=(0.98, 0.835), ncols=len(handles),
        frameon=False, fontsize=min(TICK, TICK * _SIGNS_IN_A_ROW / signs), labelcolor=INK,
        handletextpad=0.4, columnspacing=1.2, borderaxespad=0,
    )  # fmt: skip
