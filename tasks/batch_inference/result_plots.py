"""The plot of a batch inference: what was predicted, and what batches took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from tasks.batch_inference.result_statistics import CombinedStatistics
from tuning.plots import style

_MOST_BARS = 20
_BINS = 40


def draw(found: CombinedStatistics, name: str, records: int, failed: int) -> bytes:
    """Draw the statistics of a run's results, as PNG.

    Args:
        found: The statistics.
        name: The run's name.
        records: All records.
        failed: Those that have no prediction.
    """
    made = style.figure(name, f"{records:,} records, {failed:,} failed")
    left, right = made.subplots(
        1,
        2,
        gridspec_kw={"left": 0.12, "right": 0.975, "top": 0.79, "bottom": 0.13, "wspace": 0.25},
    )
    if found.classes:
        _bars(left, found.classes)
    elif found.numbers:
        _histogram(left, found.numbers, "predictions")
    else:
        left.set_axis_off()
    milliseconds = [1000 * seconds for seconds in found.seconds]
    if milliseconds:
        # From 0: an axis of the differences alone would show noise.
        top = 1.05 * max(milliseconds)
        _histogram(right, milliseconds, "batches, by milliseconds", (0, top))
    else:
        right.set_axis_off()
    return style.png(made)


def _bars(axes: Axes, classes: Mapping[str, int]) -> None:
    shown = list(classes.items())[:_MOST_BARS]
    total = sum(classes.values())
    names = [style.shown(name, 24) for name, _ in shown]
    axes.barh(range(len(shown)), [count / total for _, count in shown], color="#0072b2")
    axes.set_yticks(range(len(shown)), names)
    axes.invert_yaxis()
    left_out = f", {len(classes) - len(shown)} more" if len(classes) > len(shown) else ""
    _titled(axes, f"share of each class{left_out}")


def _histogram(
    axes: Axes, values: Sequence[float], title: str, span: tuple[float, float] | None = None
) -> None:
    axes.hist(values, bins=_BINS, range=span, color="#0072b2")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _titled(axes, title)


def _titled(axes: Axes, title: str) -> None:
    style.quiet(axes)
    axes.set_title(title, loc="left", **style.font())
