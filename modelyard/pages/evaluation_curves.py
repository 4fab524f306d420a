"""Charts of an evaluation's page: of classes' scores, or of a regression's errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from modelyard.pages import charts, evaluation_tables
from modelyard.pages.charts import ChartView, Points
from registry.evaluation_results import (
    ErrorCurvesView,
    EvaluationCurvesView,
    EvaluationResultView,
    RankingCurveView,
)
from tasks.evaluation import curve_lines

_TOGETHER = "all classes together"


@dataclass(frozen=True)
class LegendEntry:
    """What the lines of one colour are of.

    Attributes:
        style: The lines' class in the style sheet.
        name: What they are of.
        about: The areas below them, or another figure that they belong to.
        link: The page of what they are of; empty without one.
    """

    style: str
    name: str
    about: str
    link: str = ""


@dataclass(frozen=True)
class CurvesView:
    """Curves of an evaluation, or of several.

    Attributes:
        charts: The charts, whose lines have the same names and colours.
        legend: What the lines are of.
        unlisted: How many more classes there are.
        chosen: The class that is shown alone; empty for the first ones.
        link: The page that shows the first ones.
    """

    charts: Sequence[ChartView]
    legend: Sequence[LegendEntry] = ()
    unlisted: int = 0
    chosen: str = ""
    link: str = ""


def of(
    result: EvaluationResultView, curves: EvaluationCurvesView, page: str, chosen: str
) -> CurvesView | None:
    """Return the curves of an evaluation; None if it has none.

    Args:
        result: Its result.
        curves: Its curves.
        page: Path of its page.
        chosen: The class whose curves are shown; empty for the first ones.
    """
    if curves.errors is not None:
        return CurvesView(_of_errors(curves.errors))
    return _of_classes(result, curves, page, chosen) if curves.classes else None


def _of_classes(
    result: EvaluationResultView, curves: EvaluationCurvesView, page: str, chosen: str
) -> CurvesView:
    classes = curves.classes
    is_chosen = chosen in classes
    shown = [chosen] if is_chosen else list(islice(classes, charts.MOST_LINES))
    names = [evaluation_tables.name_of(name) for name in shown]
    found = [classes[name] for name in shown]
    return CurvesView(
        charts=[
            charts.of_rates(
                "ROC", "false positive rate", "recall", map(curve_lines.roc, names, found)
            ),
            charts.of_rates(
                "Precision-recall", "recall", "precision",
                map(curve_lines.precision_recall, names, found),
            ),
            _thresholds(curves, chosen if is_chosen else ""),
            *_calibration(curves, shown),
        ],
        legend=[
            LegendEntry(charts.style(number), name, areas(result, f"/{key}"))
            for number, (name, key) in enumerate(zip(names, shown, strict=True))
        ],
        unlisted=0 if is_chosen else len(classes) - len(shown),
        chosen=names[0] if is_chosen else "",
        link=f"{page}#curves",
    )  # fmt: skip


def _calibration(curves: EvaluationCurvesView, shown: Sequence[str]) -> list[ChartView]:
    """How often records are of a class, by the probability that the model gives it."""
    if any(name not in curves.calibration for name in shown):
        return []  # of an earlier version
    lines = [
        curve_lines.calibration(evaluation_tables.name_of(name), curves.calibration[name])
        for name in shown
    ]
    return [
        charts.of_rates(
            "Calibration", "probability of the class", "share of the class", lines,
            ideal="as it should be",
        )
    ]  # fmt: skip


def _thresholds(curves: EvaluationCurvesView, chosen: str) -> ChartView:
    """Precision and recall by threshold: of the chosen class, else of the one that matters most.

    Of two classes the second is the one that is looked for, as of a model's two probabilities.
    """
    if chosen or curves.micro is None or len(curves.classes) <= 2:
        name = chosen or list(curves.classes)[-1]
        curve, of = curves.classes[name], evaluation_tables.name_of(name)
    else:
        curve, of = curves.micro, _TOGETHER
    lines = zip(("precision", "recall"), curve_lines.by_threshold(of, curve), strict=True)
    return charts.of_rates(
        f"By threshold: {of}", "threshold", "", [replace(line, name=name) for name, line in lines],
        has_legend=True,
    )  # fmt: skip


def areas(result: EvaluationResultView, suffix: str) -> str:
    """Return the areas below curves in words: of ``/CLASS``, or of another mean."""
    found = {
        label: result.metrics.get(f"{metric}{suffix}")
        for metric, label in (("roc_auc", "ROC AUC"), ("pr_auc", "PR AUC"))
    }
    return ", ".join(f"{label} {value:.4f}" for label, value in found.items() if value is not None)


def _of_errors(errors: ErrorCurvesView) -> list[ChartView]:
    dots = list(zip(errors.targets, errors.predictions, strict=True))
    ends = [min(errors.targets, default=0), max(errors.targets, default=0)]
    ideal = [(end, end) for end in ends]
    return [
        charts.of_values(
            f"Predictions of {len(dots)} records", "true value", "prediction",
            [("ideal", "as it should be", ideal)], dots,
        ),
        charts.of_values(
            "Residuals", "prediction minus true value", "records",
            [(charts.style(0), "residuals", stairs(errors))],
        ),
        charts.of_values(
            "Absolute errors", "absolute error", "share of records",
            [(charts.style(0), "absolute errors", within(errors))],
        ),
    ]  # fmt: skip


def stairs(errors: ErrorCurvesView) -> Points:
    """Return the outline of a histogram of residuals."""
    pairs = zip(errors.edges, [0, *errors.counts], [*errors.counts, 0], strict=True)
    return [(edge, float(count)) for edge, *counts in pairs for count in counts]


def within(errors: ErrorCurvesView) -> Points:
    """Return the share of records whose absolute error is at most so large."""
    steps = max(1, len(errors.quantiles) - 1)
    return [(error, at / steps) for at, error in enumerate(errors.quantiles)]


class ComparedCurves:
    """Curves of several evaluations in the same charts, added one after another."""

    def __init__(self, chosen: str) -> None:
        """Draw the curves of a class; of the one that matters most if ``chosen`` is empty."""
        self._chosen = chosen
        self._of = ""
        self._legend: list[LegendEntry] = []
        self._classes: list[tuple[str, RankingCurveView]] = []
        self._errors: list[tuple[str, str, ErrorCurvesView]] = []

    def add(
        self,
        name: str,
        page: str,
        result: EvaluationResultView,
        curves: EvaluationCurvesView,
        names: Mapping[str, str],
    ) -> None:
        """Add an evaluation.

        Args:
            name: Its name.
            page: Path of its page.
            result: Its result.
            curves: Its curves.
            names: How it calls the classes of the first one.
        """
        style = charts.style(len(self._legend))
        shown = evaluation_tables.name_of(name)
        if curves.errors is not None:
            self._errors.append((style, shown, curves.errors))
            self._legend.append(LegendEntry(style, shown, "", page))
            return
        of_class = self._chosen or (list(names)[-1] if len(names) == 2 else "")
        curve = curves.classes.get(names.get(of_class, "")) if of_class else curves.micro
        if curve is None:
            return
        suffix = f"/{names[of_class]}" if of_class else "_micro"
        self._of = evaluation_tables.name_of(of_class) if of_class else _TOGETHER
        self._classes.append((shown, curve))
        self._legend.append(LegendEntry(style, shown, areas(result, suffix), page))

    def view(self, link: str) -> CurvesView | None:
        """Return the curves; None if none has any.

        Args:
            link: The page that shows the usual ones.
        """
        if not self._legend:
            return None
        made = self._of_errors() if self._errors else self._of_classes()
        chosen = evaluation_tables.name_of(self._chosen) if self._classes else ""
        return CurvesView(made, self._legend, chosen=chosen, link=f"{link}#curves")

    def _of_classes(self) -> list[ChartView]:
        names, found = zip(*self._classes, strict=True)
        precise = list(map(curve_lines.precision_recall, names, found))
        return [
            charts.of_rates(
                f"ROC: {self._of}", "false positive rate", "recall",
                map(curve_lines.roc, names, found),
            ),
            charts.of_rates(f"Precision-recall: {self._of}", "recall", "precision", precise),
        ]  # fmt: skip

    def _of_errors(self) -> list[ChartView]:
        return [
            charts.of_values(
                "Absolute errors", "absolute error", "share of records",
                [(style, name, within(errors)) for style, name, errors in self._errors],
            ),
            charts.of_values(
                "Residuals", "prediction minus true value", "share of records",
                [(style, name, _shares(errors)) for style, name, errors in self._errors],
            ),
        ]  # fmt: skip


def _shares(errors: ErrorCurvesView) -> Points:
    """The outline of a histogram of residuals, as shares of the records."""
    total = sum(errors.counts) or 1
    return [(edge, count / total) for edge, count in stairs(errors)]
