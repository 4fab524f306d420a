"""What became of the records of an evaluation, counted and named."""

from __future__ import annotations

import collections
from dataclasses import dataclass, field
from typing import Any

_MOST_NAMED = 20


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
        missing_predictions: Records whose prediction is not a number, of a regression.
        unknown_predictions: Evaluated records that were predicted to be of no known class.
        off_sums: Evaluated records whose probabilities are off from the sum 1.
        missing_probabilities: Evaluated records without a number for each class.
        contradictions: Evaluated records whose predicted class is not the most probable one.
        unseen: How often true values occur that are no class; the first ones.
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

    def add_unseen(self, values: list[Any]) -> None:
        """Count true values that are no class."""
        self.unseen_targets += len(values)
        for value in values:
            text = str(value)[:100]
            if text in self.unseen or len(self.unseen) < _MOST_NAMED:
                self.unseen[text] += 1

    def as_json(self) -> dict[str, int]:
        """The counts as plain data."""
        return {name: value for name, value in vars(self).items() if isinstance(value, int)}

    def sentences(self) -> list[str]:
        """What people should know: each count of records that are left out, or odd."""
        named = ", ".join(f"{text!r} ({count})" for text, count in self.unseen.most_common(5))
        told = {
            "lines are not records": self.unreadable,
            "records have no true value": self.missing_targets,
            f"records have a true value that is no class or number: {named}": self.unseen_targets,
            "records were not predicted": self.failed,
            "predictions are not numbers": self.missing_predictions,
            "predictions are of no known class, and count as wrong": self.unknown_predictions,
            "records have probabilities that are off from the sum 1": self.off_sums,
            "records have no number as the probability of each class": self.missing_probabilities,
        }
        lines = [f"{count:,} of {self.records:,} {what}." for what, count in told.items() if count]
        if 2 * self.contradictions > self.evaluated:
            lines.append(
                f"{self.contradictions:,} of {self.evaluated:,} predictions are not of the most "
                "probable class: class_names may not be in the model's order."
            )
        return lines
