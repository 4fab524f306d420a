"""Plots of KFP's ClassificationMetrics and SlicedClassificationMetrics."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from tuning.plots import style

WHOLE = "system.ClassificationMetrics"
SLICED = "system.SlicedClassificationMetrics"

_COLORS = (  # distinguishable with colour blindness
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#a3123a", "#e69f00", "#24292f",
)  # fmt: skip
_MOST_SLICES = len(_COLORS)
_MOST_CLASSES = 50
_MOST_POINTS = 100_000
_WITH_COUNTS = 15  # classes, so many at most


def plots(schema: str, metadata: Mapping[str, Any]) -> dict[str, bytes]:
    """Draw the ROC curves and confusion matrices of an artifact's metadata.

    Args:
        schema: ``system.ClassificationMetrics`` or ``system.SlicedClassificationMetrics``.
        metadata: Metadata as the SDK's methods write it; anything else is ignored.

    Returns:
        PNGs, by file names without a suffix.
    """
    slices: list[tuple[str, Mapping[str, Any]]]
    slices = [("", metadata)] if schema == WHOLE else _slices(metadata)
    curves = [(name, found) for name, one in slices if (found := _curve(one))]
    drawn = {"roc": _roc(curves)} if curves else {}
    for number, (name, one) in enumerate(slices):
        matrix = _matrix(one)
        if matrix is not None:
            file = "confusion-matrix" + (f"-{number + 1}" if schema == SLICED else "")
            drawn[file] = _confusion(name, *matrix)
    return drawn


def _slices(metadata: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    found = metadata.get("evaluationSlices")
    named = [
        (str(one.get("slice", "")), one.get("sliceClassificationMetrics"))
        for one in (found if isinstance(found, list) else [])
        if isinstance(one, dict)
    ]
    return [(name, one) for name, one in named if isinstance(one, Mapping)][:_MOST_SLICES]


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _curve(metadata: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Points of a ROC curve, from left to right; [] for fewer than two."""
    readings = metadata.get("confidenceMetrics")
    points = [
        (_number(one.get("falsePositiveRate")), _number(one.get("recall")))
        for one in (readings[:_MOST_POINTS] if isinstance(readings, list) else [])
        if isinstance(one, dict)
    ]
    known = sorted((x, y) for x, y in points if x is not None and y is not None)
    return known if len(known) > 1 else []


def _matrix(metadata: Mapping[str, Any]) -> tuple[list[str], list[list[float]]] | None:
    """Classes and counts of a confusion matrix; None if it is missing or incomplete."""
    found = metadata.get("confusionMatrix")
    if not isinstance(found, dict):
        return None
    specs, rows = found.get("annotationSpecs"), found.get("rows")
    if not isinstance(specs, list) or not isinstance(rows, list):
        return None
    names = [str(one.get("displayName", "")) for one in specs if isinstance(one, dict)]
    counts = [
        [_number(value) for value in row["row"]]
        for row in rows
        if isinstance(row, dict) and isinstance(row.get("row"), list)
    ]
    whole = [[value for value in row if value is not None] for row in counts]
    if not 0 < len(names) <= _MOST_CLASSES or len(whole) != len(names):
        return None
    return (names, whole) if all(len(row) == len(names) for row in whole) else None


def _area(points: Sequence[tuple[float, float]]) -> float:
    """Area under a curve, which is extended to both corners."""
    whole = [(0.0, 0.0), *points, (1.0, 1.0)]
    return sum((x - left) * (y + low) / 2 for (left, low), (x, y) in itertools.pairwise(whole))


def _roc(curves: Sequence[tuple[str, list[tuple[float, float]]]]) -> bytes:
    subtitle = f"area under the curve {_area(curves[0][1]):.4g}" if len(curves) == 1 else ""
    made = style.figure("ROC curve", subtitle)
    axes = made.add_axes((0.07, 0.11, 0.9, 0.69))
    style.quiet(axes)
    axes.plot([0, 1], [0, 1], color=style.PALE, linewidth=1, linestyle="--")
    legend = []
    for number, (name, points) in enumerate(curves):
        color = _COLORS[number]
        axes.plot(*zip(*points, strict=True), color=color, linewidth=2.5)
        shown = style.shown(name, 100 // len(curves))
        legend.append(style.line(f"{shown} ({_area(points):.3g})", color, linewidth=2.5))
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.03)
    axes.set_xlabel("false positive rate", **style.font())
    axes.set_ylabel("true positive rate", **style.font())
    if len(curves) > 1:
        style.legend(made, legend)
    return style.png(made)


def _confusion(name: str, classes: Sequence[str], counts: Sequence[Sequence[float]]) -> bytes:
    total = sum(map(sum, counts))
    correct = sum(counts[place][place] for place in range(len(classes)))
    accuracy = f"accuracy {correct / total:.2%} of {total:g}" if total > 0 else "empty"
    of = f"{style.shown(name, 60)}: " if name else ""
    made = style.figure("Confusion matrix", f"{of}{accuracy}; colours are shares of a row")
    axes = made.add_axes((0.2, 0.13, 0.75, 0.68))
    shares = [[value / (sum(row) or 1) for value in row] for row in counts]
    axes.imshow(shares, cmap=style.RAMP, vmin=0, vmax=1, aspect="auto")
    longest = max(8, 200 // len(classes))
    shown = [style.shown(one, longest) for one in classes]
    size = style.TICK if len(classes) <= _WITH_COUNTS else style.SMALL * 20 / len(classes)
    axes.set_xticks(range(len(classes)), shown, **style.font(min(size, style.TICK)))
    axes.set_yticks(range(len(classes)), shown, **style.font(min(size, style.TICK)))
    axes.set_xlabel("predicted", **style.font())
    axes.set_ylabel("true", **style.font())
    axes.tick_params(length=0)
    if len(classes) <= _WITH_COUNTS:
        _write_counts(axes, counts, shares)
    return style.png(made)


def _write_counts(
    axes: Axes, counts: Sequence[Sequence[float]], shares: Sequence[Sequence[float]]
) -> None:
    for y, row in enumerate(counts):
        for x, value in enumerate(row):
            color = "white" if shares[y][x] > 0.5 else style.INK
            axes.text(
                x, y, f"{value:g}", ha="center", va="center", **style.font(style.TICK, color)
            )
