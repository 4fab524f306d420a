"""Figures of an evaluation: numbers, or None with the reason why there is none."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Figures:
    """Metrics by name, and why some of them are undefined.

    Attributes:
        values: The metrics; None where undefined.
        undefined: The reason of each undefined metric.
        notes: What is left out of a defined metric, such as classes of a mean.
    """

    values: dict[str, float | None] = field(default_factory=dict)
    undefined: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def put(self, name: str, value: float | None, reason: str = "") -> None:
        """Have a metric; ``reason`` says why it is None, or not finite, which is the same."""
        is_defined = value is not None and math.isfinite(value)
        self.values[name] = value if is_defined else None
        if not is_defined:
            self.undefined[name] = reason or "It is not a finite number."

    def undefine(self, names: Sequence[str], reason: str) -> None:
        """Have metrics that are undefined for one reason."""
        for name in names:
            self.put(name, None, reason)

    def put_mean(
        self,
        name: str,
        parts: Mapping[str, float | None],
        weights: Sequence[int] | None = None,
        never: Collection[str] = (),
    ) -> None:
        """Have the mean over classes, of those where a figure is defined; others are noted.

        Args:
            name: The metric's name.
            parts: The figure of each class by its name.
            weights: The weight of each class; equal ones by default.
            never: Classes that occur and were never predicted, which count 0.
        """
        parts = {label: 0.0 if label in never else value for label, value in parts.items()}
        left_out = [label for label, value in parts.items() if value is None]
        given = weights if weights is not None else [1] * len(parts)
        known = [
            (value, weight)
            for value, weight in zip(parts.values(), given, strict=True)
            if value is not None
        ]
        total = sum(weight for _, weight in known)
        if not total:
            self.put(name, None, "It is undefined for every class.")
            return
        self.put(name, sum(value * weight for value, weight in known) / total)
        remarks = {
            "Classes that occur and were never predicted count 0": never,
            "Without classes for which it is undefined": left_out,
        }
        found = [f"{what}: {', '.join(labels)}." for what, labels in remarks.items() if labels]
        if found:
            self.notes[name] = " ".join(found)

    def as_json(self) -> dict[str, Any]:
        """The figures as plain data."""
        return {"metrics": self.values, "undefined": self.undefined, "notes": self.notes}


def ratio(part: float, whole: float) -> float | None:
    """``part / whole``; None if that is undefined."""
    return part / whole if whole else None


CheckOver = Callable[[], object]
