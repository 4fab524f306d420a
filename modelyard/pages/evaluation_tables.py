"""Tables of an evaluation's page: metrics, classes, slices and the confusion matrix.

Each is cut to what a page has room for, and says how much more there is.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from modelyard.pages import listing
from registry.evaluation_results import (
    ConfusionMatrixView,
    EvaluatedRecordsView,
    EvaluationResultView,
)

MOST_CLASSES = 50
MOST_SLICES = 25
MOST_MATRIX = 15  # classes of a confusion matrix
MOST_CONFUSIONS = 10
_LONGEST_NAME, _LONGEST_HEAD, _LONGEST_REASON = 60, 12, 200
_SHADES = 9

OF_CLASS = ("precision", "recall", "f1", "roc_auc", "pr_auc")
_HEADLINES = {
    "classification": ("accuracy", *OF_CLASS, "log_loss"),
    "regression": ("mae", "rmse", "mape", "r2", "rmsle"),
}
_OF_SLICE = {
    "classification": ("accuracy", "precision", "recall", "f1", "roc_auc", "log_loss"),
    "regression": ("mae", "rmse", "mape", "r2"),
}


@dataclass(frozen=True)
class MetricRow:
    """A metric of all records.

    Attributes:
        name: Its name.
        value: Its value; of several classes, the mean over them.
        interval: Its 95 % interval; empty without one.
        weighted: The mean that is weighted by the records of the classes; empty without one.
        micro: The metric of all classes together; empty without one.
        note: Why it is undefined, or what is left out of it.
    """

    name: str
    value: str
    interval: str
    weighted: str
    micro: str
    note: str


@dataclass(frozen=True)
class ValuesRow:
    """A class, or a slice, with its metrics.

    Attributes:
        name: Its name, shortened.
        link: The page with its curves; empty without one.
        records: How many records are of it.
        values: Its metrics, in the order of the table's columns.
        is_chosen: Whether the page shows its curves.
    """

    name: str
    link: str
    records: str
    values: Sequence[str]
    is_chosen: bool = False


@dataclass(frozen=True)
class ValuesTable:
    """Classes, or slices, with their metrics.

    Attributes:
        columns: Names of the metrics.
        rows: The first ones.
        unlisted: How many more there are.
    """

    columns: Sequence[str]
    rows: Sequence[ValuesRow]
    unlisted: int


@dataclass(frozen=True)
class MatrixCell:
    """A cell of a confusion matrix.

    Attributes:
        count: Its records.
        shade: Its share of its row, from 0 for none to 9.
        is_right: Whether the predicted class is the true one.
        about: What it counts, in words.
    """

    count: str
    shade: int
    is_right: bool
    about: str


@dataclass(frozen=True)
class MatrixTable:
    """The first classes of a confusion matrix.

    Attributes:
        heads: The predicted classes: what their columns say, and their names.
        rows: The true classes: their names and cells.
        unlisted: How many more classes there are.
        confusions: The most frequent confusions of all classes, where there are more: the true
            class, the predicted one and the records.
    """

    heads: Sequence[tuple[str, str]]
    rows: Sequence[tuple[str, Sequence[MatrixCell]]]
    unlisted: int
    confusions: Sequence[tuple[str, str, str]]


def name_of(text: str) -> str:
    """Return the name of a class or a slice for a table."""
    return listing.shortened(text, _LONGEST_NAME)


def number(task: str, value: float | None) -> str:
    """Return a metric for a table: shares with four digits, so that they can be compared."""
    if value is None:
        return "undefined"
    return f"{value:.4f}" if task == "classification" else f"{value:.5g}"


def metrics(result: EvaluationResultView) -> list[MetricRow]:
    """Return the metrics of all records."""
    return [
        _metric_row(result, name)
        for name in _HEADLINES.get(result.task, ())
        if name in result.metrics
    ]


def _metric_row(result: EvaluationResultView, name: str) -> MetricRow:
    def of(suffix: str) -> str:
        key = f"{name}_{suffix}"
        return number(result.task, result.metrics[key]) if key in result.metrics else ""

    note = result.undefined.get(name) or result.notes.get(name, "")
    return MetricRow(
        name,
        number(result.task, result.metrics[name]),
        " to ".join(number(result.task, one) for one in result.intervals.get(name, ())),
        of("weighted"),
        of("micro"),
        listing.shortened(note, _LONGEST_REASON),
    )


def classes(result: EvaluationResultView, page: str, chosen: str) -> ValuesTable:
    """Return the classes with their metrics.

    Args:
        result: The evaluation's result.
        page: Path of its page.
        chosen: The class whose curves the page shows.
    """
    columns = [name for name in OF_CLASS if name in result.metrics]
    shown = result.class_names[:MOST_CLASSES]
    matrix = result.confusion_matrix
    support = {}
    if matrix is not None:
        support = {
            name: f"{sum(counts):,}"
            for name, counts in zip(matrix.classes, matrix.counts, strict=True)
        }
    rows = [
        ValuesRow(
            name=name_of(name),
            link=class_page(page, name),
            records=support.get(name, ""),
            values=_values(result.task, result.metrics, [f"{one}/{name}" for one in columns]),
            is_chosen=name == chosen,
        )
        for name in shown
    ]
    return ValuesTable(columns, rows, len(result.class_names) - len(shown))


def class_page(page: str, name: str) -> str:
    """Return the path of the page with the curves of a class."""
    return f"{page}?{urlencode({'class': name}, errors='replace')}#curves"


def slices(result: EvaluationResultView) -> ValuesTable:
    """Return the slices with their metrics."""
    columns = [name for name in _OF_SLICE.get(result.task, ()) if name in result.metrics]
    rows = [
        _slice_row(result.task, name, one, columns)
        for name, one in list(result.slices.items())[:MOST_SLICES]
    ]
    return ValuesTable(columns, rows, len(result.slices) - len(rows))


def _slice_row(
    task: str, name: str, found: EvaluatedRecordsView, columns: Sequence[str]
) -> ValuesRow:
    values = _values(task, found.metrics, columns)
    return ValuesRow(name_of(name), "", f"{found.records:,}", values)


def _values(task: str, metrics: Mapping[str, float | None], names: Sequence[str]) -> Sequence[str]:
    return [number(task, metrics[name]) if name in metrics else "" for name in names]


def matrix(found: ConfusionMatrixView) -> MatrixTable:
    """Return the first classes of a confusion matrix, and the others together."""
    size = len(found.classes)
    shown = min(size, MOST_MATRIX)
    heads = [name_of(name) for name in found.classes[:shown]]
    others = ["other classes"] if shown < size else []
    none = ["no class"] if any(row[-1] for row in found.counts) else []
    columns = [*heads, *others, *none]
    rows = []
    for at, counts in enumerate(found.counts[:shown]):
        cells = [
            *counts[:shown],
            *([sum(counts[shown:-1])] if others else []),
            *([counts[-1]] if none else []),
        ]
        total = sum(counts)
        rows.append((heads[at], _cells(heads[at], at, cells, columns, total)))
    return MatrixTable(
        [(listing.shortened(name, _LONGEST_HEAD), name) for name in columns],
        rows,
        size - shown,
        _confusions(found) if others else [],
    )


def _cells(
    name: str, at: int, counts: Sequence[int], columns: Sequence[str], total: int
) -> list[MatrixCell]:
    return [
        MatrixCell(
            f"{count:,}",
            -(-_SHADES * count // total) if total else 0,  # rounded up: a record is seen
            column == at,
            f"{count:,} of {name} predicted as {predicted}"
            + (f", {100 * count / total:.1f} %" if total else ""),
        )
        for column, (count, predicted) in enumerate(zip(counts, columns, strict=True))
    ]


def _confusions(found: ConfusionMatrixView) -> list[tuple[str, str, str]]:
    names = [*found.classes, "no class"]
    wrong = (
        (count, -true, -predicted)  # of equal ones, the first
        for true, counts in enumerate(found.counts)
        for predicted, count in enumerate(counts)
        if count and predicted != true
    )
    return [
        (name_of(names[-true]), name_of(names[-predicted]), f"{count:,}")
        for count, true, predicted in heapq.nlargest(MOST_CONFUSIONS, wrong)
    ]
