"""Early stopping: rules that end a trial which does worse than others did by the same report.

A rule counts the reports of the first objective, whatever steps the script names. A trial is
judged by the best of its finite reports so far; one whose reports are all NaN or infinite is worse
than any other.
"""

from __future__ import annotations

import math
import statistics
from abc import ABC, abstractmethod
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from tuning.forms import FieldGroup
from tuning.objectives import Direction
from tuning.trials import TrialState

_REDUCTION = 3  # the factor between rungs, and of the trials that each rung stops
_BRACKETS = 3


@dataclass(frozen=True)
class _TrialProgress:
    """The judged ``count`` of a running trial's ``reports``, with their least loss."""

    reports: Sequence[float]
    count: int
    best: float


class StoppingRule(ABC):
    """Rule that compares reports of running trials with those of others.

    The contract:

    - A trial is never stopped before it has made ``start_step`` reports, nor while fewer than
      ``min_trials`` comparable trials are known; each rule defines which are comparable.
    - The decision about a trial depends on its number, on its reports so far, and on the reports
      of other trials that the rule has received. Repeating a call changes nothing.
    - Every report of a running trial is judged, in order; ``first_stop`` does that for reports
      that came together.
    - A rule has no state beyond these reports: after a restart, a new one that receives the
      ended trials and the running ones' reports decides as the old one did.

    Values are kept as losses: with their sign such that smaller is better.
    """

    def __init__(self, direction: Direction, min_trials: int = 3, start_step: int = 4) -> None:
        """Create a rule without trials.

        Args:
            direction: Which values are the better ones.
            min_trials: The minimum number of trials to compare with.
            start_step: The first report, counted from 1, at which a trial is judged.
        """
        self.direction = direction
        self.min_trials = min_trials
        self.start_step = start_step
        self._ended_trials: set[int] = set()
        self._running: dict[int, _TrialProgress] = {}

    def ended(self, number: int, state: TrialState, reports: Sequence[float]) -> None:
        """Report an ended trial, in any state; a second report does nothing.

        Args:
            number: Its number.
            state: Its state.
            reports: What it has reported, up to where it was stopped.
        """
        self._running.pop(number, None)
        if number not in self._ended_trials:
            self._ended_trials.add(number)
            self._ended(number, state, reports)

    def stops(self, number: int, values: Sequence[float]) -> bool:
        """Whether the trial of that number, which has reported ``values`` so far, is stopped.

        Quickest where ``values`` is always the same list, to which reports are appended.
        """
        return self.first_stop(number, values, len(values) - 1) is not None

    def first_stop(self, number: int, reports: Sequence[float], seen: int = 0) -> int | None:
        """Find the report at which a trial is stopped whose latest reports came together.

        It is as if each had been judged when it was made. What comes after the stop counts for
        nothing and is to be left out of the trial's reports.

        Args:
            number: The trial's number.
            reports: All that it has reported.
            seen: How many of them were judged before.

        Returns:
            The report's count, from 1; None if the trial continues.
        """
        known = self._running.pop(number, None)
        if known is None or known.reports is not reports or known.count > seen:
            known = _TrialProgress(reports, 0, math.inf)
        best = known.best
        new = self.bests(reports[known.count :], known.best)
        for step, best in enumerate(new, known.count + 1):
            self.note(number, step, best)
            if step > seen and self.judge(number, step, best):
                return step
        self._running[number] = _TrialProgress(reports, len(reports), best)
        return None

    def bests(self, values: Iterable[float], before: float = math.inf) -> Iterator[float]:
        """Compute the least loss up to each of ``values``; infinity before a finite one.

        Args:
            values: What was reported, in order.
            before: The least loss by what was reported before these.
        """
        for value in values:
            if math.isfinite(value):
                before = min(before, value if self.direction == "minimize" else -value)
            yield before

    @abstractmethod
    def _ended(self, number: int, state: TrialState, reports: Sequence[float]) -> None:
        """Keep what the rule needs of an ended trial."""

    def note(self, number: int, step: int, best: float) -> None:  # noqa: B027 (may do nothing)
        """Keep what the rule needs of a report: the trial's least loss by its ``step``-th."""

    @abstractmethod
    def judge(self, number: int, step: int, best: float) -> bool:
        """Whether to stop a trial at its ``step``-th report, which was noted before."""


class MedianRule(StoppingRule):
    """Stop a trial that does worse than half of the completed ones did by then.

    The rule is that of Google Vizier, as Kubeflow documents it: a running trial is stopped at its
    S-th report if its best value by then is strictly worse than the median, over all completed
    trials, of the averages of their values up to their S-th report. It is judged at every report
    from the start step on, as soon as there are enough completed trials. Completed are those that
    SUCCEEDED; one that made fewer than S reports counts with the average of all of them, and one
    that was never finite by S not at all.
    """

    def __init__(self, direction: Direction, min_trials: int = 3, start_step: int = 4) -> None:
        """Create a rule without trials."""
        super().__init__(direction, min_trials, start_step)
        self._averages: list[array[float]] = []
        self._medians: dict[int, float | None] = {}

    def complete(self, values: Iterable[float]) -> None:
        """Count a completed trial that has reported ``values``."""
        sign = 1 if self.direction == "minimize" else -1
        averages = array("d", (sign * average for average in _averages(values)))
        if averages:
            self._averages.append(averages)
            self._medians.clear()

    def _ended(self, number: int, state: TrialState, reports: Sequence[float]) -> None:
        if state is TrialState.SUCCEEDED:
            self.complete(reports)

    def judge(self, number: int, step: int, best: float) -> bool:
        """Whether the trial's least loss is above the median of the averages."""
        if step < self.start_step:
            return False
        if step not in self._medians:
            self._medians[step] = self._median(step)
        median = self._medians[step]
        return median is not None and best > median

    def _median(self, step: int) -> float | None:
        averages = [each[min(step, len(each)) - 1] for each in self._averages]
        finite = [average for average in averages if math.isfinite(average)]
        return statistics.median(finite) if len(finite) >= self.min_trials else None


def _averages(values: Iterable[float]) -> Iterator[float]:
    """The average of what is finite of the values up to each one; NaN while there is nothing.

    The sums are exact, so that the average of equal numbers is that number, and a trial that is as
    good as all others is not stopped for the rounding.
    """
    total, bits, count = 0, 0, 0  # the sum is total / 2^bits
    for value in values:
        if math.isfinite(value):
            numerator, denominator = value.as_integer_ratio()
            shift = denominator.bit_length() - 1  # it is a power of two
            if shift > bits:
                total, bits = total << (shift - bits), shift
            total, count = total + (numerator << (bits - shift)), count + 1
        yield total / (count << bits) if count else math.nan


class SuccessiveHalving(StoppingRule):
    """Stop a trial at a rung unless it is among the best third of those that have reached it.

    The rungs are at ``start_step``, 3 ``start_step``, 9 ``start_step``, ... reports. Every trial
    that has reached a rung counts there, running or ended in any state, with its best value by
    then; of equally good trials all stay or none. A trial is judged once, when it reaches a rung,
    if it is at least the ``min_trials``-th to do so: as in ASHA (Li and others, 2020), no trial
    waits for others.
    """

    def __init__(self, direction: Direction, min_trials: int = 3, start_step: int = 4) -> None:
        """Create a rule without trials."""
        super().__init__(direction, min_trials, start_step)
        self._rungs: dict[int, dict[int, float]] = defaultdict(dict)

    def _ended(self, number: int, state: TrialState, reports: Sequence[float]) -> None:
        for step, best in enumerate(self.bests(reports), 1):
            self.note(number, step, best)

    def note(self, number: int, step: int, best: float) -> None:
        """Add the trial to those that have reached a rung."""
        if self._is_rung(step):
            self._rungs[step][number] = best

    def judge(self, number: int, step: int, best: float) -> bool:
        """Whether the trial is at a rung, and not among the best third there."""
        reached = self._rungs[step].values() if self._is_rung(step) else ()
        if len(reached) < self.min_trials:
            return False
        kept = max(len(reached) // _REDUCTION, 1)
        return best == math.inf or best > sorted(reached)[kept - 1]

    def _is_rung(self, step: int) -> bool:
        times, rest = divmod(step, self.start_step)
        while times > 1 and times % _REDUCTION == 0:
            times //= _REDUCTION
        return times == 1 and rest == 0


class Hyperband(StoppingRule):
    """Several brackets of successive halving, of which each spares trials longer than the last.

    That hedges against curves that cross late: the first rung of bracket B, counted from 0, is at
    3^B ``start_step`` reports. Trials are compared within their bracket only. Which one a trial is
    in follows from its number; the first bracket has the most, since its trials are the shortest,
    such that each gets about the same number of reports (Li and others, 2018).
    """

    def __init__(self, direction: Direction, min_trials: int = 3, start_step: int = 4) -> None:
        """Create a rule without trials."""
        super().__init__(direction, min_trials, start_step)
        self._brackets = [
            SuccessiveHalving(direction, min_trials, start_step * _REDUCTION**bracket)
            for bracket in range(_BRACKETS)
        ]

    def _ended(self, number: int, state: TrialState, reports: Sequence[float]) -> None:
        self._brackets[bracket_of(number)].ended(number, state, reports)

    def note(self, number: int, step: int, best: float) -> None:
        """Add the trial to those of its bracket."""
        self._brackets[bracket_of(number)].note(number, step, best)

    def judge(self, number: int, step: int, best: float) -> bool:
        """Whether the trial's bracket stops it."""
        return self._brackets[bracket_of(number)].judge(number, step, best)


def _shares() -> list[int]:
    """Compute how many trials of a round each bracket gets, as in Hyperband."""
    last = _BRACKETS - 1
    return [
        math.ceil(_BRACKETS * _REDUCTION ** (last - bracket) / (last - bracket + 1))
        for bracket in range(_BRACKETS)
    ]


def _round() -> list[int]:
    """Assign the trials of a round to brackets, each bracket's spread evenly over it."""
    places = [
        ((2 * nth + 1) / (2 * share), bracket)
        for bracket, share in enumerate(_shares())
        for nth in range(share)
    ]
    return [bracket for _, bracket in sorted(places)]


_ROUND = _round()


def bracket_of(number: int) -> int:
    """Return the Hyperband bracket of the trial of that number."""
    return _ROUND[number % len(_ROUND)]


_RULES: dict[str, type[StoppingRule]] = {
    "median": MedianRule,
    "successive_halving": SuccessiveHalving,
    "hyperband": Hyperband,
}


class EarlyStopping(FieldGroup):
    """Rule that stops unpromising trials early."""

    rule: Literal["median", "successive_halving", "hyperband"] = Field(
        default="median",
        description="median: stop a trial that is worse than the median of the completed ones. "
        "successive_halving: at start_step reports and each time that they have trebled, keep "
        "the best third. hyperband: that, with trials that are spared for longer.",
    )
    min_trials: int = Field(
        default=3,
        ge=1,
        le=10**6,
        description="Number of trials that a trial must be compared with.",
    )
    start_step: int = Field(
        default=4,
        ge=1,
        le=10**9,
        description="Report of the objective, counted from 1, at which a trial is first judged.",
    )

    def make(self, direction: Direction) -> StoppingRule:
        """Create the rule for an objective of that direction."""
        return _RULES[self.rule](direction, self.min_trials, self.start_step)
