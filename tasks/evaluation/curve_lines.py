"""Lines of ROC and precision-recall curves, for whoever draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from registry.evaluation_results import CalibrationView, RankingCurveView


@dataclass(frozen=True)
class PlotLine:
    """A line of a plot; all values are from 0 to 1.

    Attributes:
        name: What the legend calls it.
        x: Values from left to right.
        y: Values from below.
        texts: What each point says.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    texts: Sequence[str]


@dataclass(frozen=True)
class _Rates:
    """Rates at a point of a curve."""

    threshold: float
    recall: float
    false_positive: float
    precision: float

    @property
    def text(self) -> str:
        return (
            f"threshold {self.threshold:.4g}, recall {self.recall:.4f}, false positive rate "
            f"{self.false_positive:.4f}, precision {self.precision:.4f}"
        )


def roc(name: str, curve: RankingCurveView) -> PlotLine:
    """The ROC curve: recall by false positive rate."""
    found = _rates(curve)
    x, y = [0.0, *(one.false_positive for one in found)], [0.0, *(one.recall for one in found)]
    return PlotLine(name, x, y, ["nothing is predicted", *(one.text for one in found)])


def precision_recall(name: str, curve: RankingCurveView) -> PlotLine:
    """The precision-recall curve: precision by recall."""
    found = _rates(curve)
    x, y = [one.recall for one in found], [one.precision for one in found]
    return PlotLine(name, x, y, [one.text for one in found])


def by_threshold(name: str, curve: RankingCurveView) -> tuple[PlotLine, PlotLine]:
    """Precision, and recall, by the threshold between 0 and 1."""
    found = [one for one in _rates(curve) if 0 <= one.threshold <= 1]
    x, texts = [one.threshold for one in found], [one.text for one in found]
    return (
        PlotLine(f"precision of {name}", x, [one.precision for one in found], texts),
        PlotLine(f"recall of {name}", x, [one.recall for one in found], texts),
    )


def calibration(name: str, found: CalibrationView) -> PlotLine:
    """The reliability curve: the share of the class by the probability that the model gives it."""
    texts = [f"{records:,} records" for records in found.records]
    return PlotLine(name, found.probabilities, found.shares, texts)


def _rates(curve: RankingCurveView) -> list[_Rates]:
    of_class, others = curve.positives or 1, curve.negatives or 1
    points = zip(curve.thresholds, curve.true_positives, curve.false_positives, strict=True)
    return [
        _Rates(threshold, hits / of_class, false / others, hits / (hits + false or 1))
        for threshold, hits, false in points
    ]
