"""What became of the records of an evaluation, counted and named."""

from __future__ import annotations

import collections
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from modelyard_runtime.frames import Array

from registry.evaluation_results import CountedRecordView
from tasks.evaluation import class_labels

_MOST_UNSEEN = 20
_MOST_EXAMPLES = 5  # of each count
_LONGEST = 100  # characters of a value


@dataclass
class RowCounts:
    """Records by what became of them; all but ``records`` and the last four add up to it.

    Attributes:
        records: All records of the input.
        evaluated: Those that the metrics are computed of.
        unreadable: Lines that are not records.
        missing_targets: Records without a true value.
        unseen_targets: Records whose true value is no class, or no finite number.
        failed: Records that the model did not predict.
        missing_predictions: Records whose prediction is not a finite number, of a regression.
        unknown_predictions: Evaluated records that were predicted to be of no known class.
        off_sums: Evaluated records whose probabilities are off from the sum 1.
        missing_probabilities: Evaluated records without a number for each class.
        contradictions: Evaluated records whose predicted class is not the most probable one.
        unseen: How often true values occur that are no class; the first ones.
        examples: The first records of each count.
    """

    records: int = 0
    evaluated: int = 0
    unreadable: int = 0
    missing_targets: int = 0
    unseen_targets: int = 0
    failed: int = 0
    missing_predictions: int = 0
    unknown_predictions: int = 0
    off_sums: int = 0
    missing_probabilities: int = 0
    contradictions: int = 0
    unseen: collections.Counter[str] = field(default_factory=collections.Counter)
    examples: list[CountedRecordView] = field(default_factory=list)

    def add(
        self, count: str, file: str, rows: Array, is_counted: Array, reason: Callable[[int], str]
    ) -> None:
        """Count records, and name the first of them.

        Args:
            count: The name of the count.
            file: The name of their file.
            rows: Numbers of records in the file.
            is_counted: Which of them are counted.
            reason: What is wrong with one of ``rows``, by its position there.
        """
        many = int(np.count_nonzero(is_counted))
        if not many:
            return
        left = max(0, _MOST_EXAMPLES - getattr(self, count))
        setattr(self, count, getattr(self, count) + many)
        for at in np.flatnonzero(is_counted)[:left].tolist():
            self.examples.append(
                CountedRecordView(count=count, file=file, row=int(rows[at]), reason=reason(at))
            )

    def clear(self, count: str) -> None:
        """Count no record, such as ones without probabilities of a model that has none."""
        setattr(self, count, 0)
        self.examples = [one for one in self.examples if one.count != count]

    def add_unseen(self, values: list[Any]) -> None:
        """Count the texts of true values that are no class."""
        for value in values:
            text = shown(value) if not isinstance(value, str) else value[:_LONGEST]
            text = class_labels.escaped(text)
            if text in self.unseen or len(self.unseen) < _MOST_UNSEEN:
                self.unseen[text] += 1

    def as_json(self) -> dict[str, int]:
        """The counts as plain data."""
        return {name: value for name, value in vars(self).items() if isinstance(value, int)}

    def sentences(self) -> list[str]:
        """What people should know: each count of records that are left out, or odd."""
        named = ", ".join(f"{text!r} ({count})" for text, count in self.unseen.most_common(5))
        said = {
            "unreadable": "lines are not records",
            "missing_targets": "records have no true value",
            "unseen_targets": f"records have a true value that is no class or number: {named}",
            "failed": "records were not predicted",
            "missing_predictions": "predictions are not finite numbers",
            "unknown_predictions": "predictions are of no known class, and count as wrong",
            "off_sums": "records have probabilities that are off from the sum 1",
            "missing_probabilities": "records have no number as the probability of each class",
        }
        first: dict[str, CountedRecordView] = {}
        for one in self.examples:
            first.setdefault(one.count, one)
        lines = [
            f"{getattr(self, name):,} of {self.records:,} {what}; the first one is row "
            f"{first[name].row} of {first[name].file}."
            for name, what in said.items()
            if getattr(self, name)
        ]
        if 2 * self.contradictions > self.evaluated:
            lines.append(
                f"{self.contradictions:,} of {self.evaluated:,} predictions are not of the most "
                "probable class: class_names may not be in the model's order."
            )
        return lines


def shown(value: Any) -> str:
    """A value of a record for people, shortened."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # integers of too many digits, or nested too deeply
        text = f"a {type(value).__name__}"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
