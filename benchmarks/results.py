"""What a benchmark gives: pairs of series, and their table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Comparison:
    """One line of the table: the same thing measured on both sides.

    Attributes:
        what: What was measured.
        unit: Of every value.
        ours: One value per repetition.
        peer: The same of the neighbour; empty where it has nothing to compare.
        peer_name: What the neighbour is.
        goal: The goal in words.
        limit: What our median must not exceed, in ``unit``; None for no goal.
    """

    what: str
    unit: str
    ours: Sequence[float]
    peer: Sequence[float] = ()
    peer_name: str = ""
    goal: str = "none"
    limit: float | None = None

    @property
    def ratio(self) -> float | None:
        """Our median through the peer's."""
        return statistics.median(self.ours) / statistics.median(self.peer) if self.peer else None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        return None if self.limit is None else statistics.median(self.ours) <= self.limit

    def as_dict(self) -> dict[str, Any]:
        """Everything, every single value included."""
        return {
            "what": self.what,
            "unit": self.unit,
            "ours": _series(self.ours),
            "peer": {"name": self.peer_name, **_series(self.peer)} if self.peer else None,
            "ratio": self.ratio,
            "goal": self.goal,
            "limit": self.limit,
            "met": self.met,
        }


def _series(values: Sequence[float]) -> dict[str, Any]:
    return {
        "median": statistics.median(values),
        "lowest": min(values),
        "highest": max(values),
        "values": list(values),
    }


def _cell(values: Sequence[float], unit: str) -> str:
    if not values:
        return "-"
    spread = f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else ""
    return f"{statistics.median(values):.2f} {unit}{spread}"


def table(comparisons: Sequence[Comparison]) -> str:
    """A Markdown table: medians, with the lowest and highest value in brackets."""
    words = {None: "", True: "yes", False: "NO"}
    rows = [("what", "ours", "peer", "ours / peer", "goal", "met")]
    rows += [
        (
            line.what,
            _cell(line.ours, line.unit),
            f"{_cell(line.peer, line.unit)}, {line.peer_name}" if line.peer else "-",
            "-" if line.ratio is None else f"{line.ratio:.2f}",
            line.goal if line.limit is None else f"{line.goal}: {line.limit:.2f} {line.unit}",
            words[line.met],
        )
        for line in comparisons
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, tuple("-" * width for width in widths))  # type: ignore[arg-type]
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |"
        for row in rows
    )
