"""The median rule: stop a trial that does worse than half of those before it did by then.

The rule is that of Google Vizier, as Kubeflow documents it: a running trial is stopped at its S-th
report if its best value by then is strictly worse than the median, over all completed trials, of
the averages of their values up to their S-th report. It is judged at every report from the start
step on, as soon as there are enough completed trials.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

Direction = Literal["minimize", "maximize"]


@dataclass
class MedianRule:
    """Judges the reports of running trials against those of completed ones.

    Attributes:
        direction: Which values are the better ones.
        min_trials: How many completed trials with a value there must be.
        start_step: At which report, counted from 1, a trial is judged first.
    """

    direction: Direction
    min_trials: int = 3
    start_step: int = 4
    _averages: list[list[float]] = field(default_factory=list)

    def complete(self, values: Iterable[float]) -> None:
        """Count a trial that has ended well, with its objective's values in order.

        A value that is no number counts as none; a trial without any is left out.
        """
        finite = [value for value in values if math.isfinite(value)]
        if finite:
            sums = itertools.accumulate(finite)
            self._averages.append([total / count for count, total in enumerate(sums, 1)])

    def stops(self, values: Sequence[float]) -> bool:
        """Whether a trial that has reported ``values`` so far is to be stopped now."""
        step = len(values)
        if step < self.start_step or len(self._averages) < self.min_trials:
            return False
        # A trial that ended sooner counts with the average of all that it reported.
        median = statistics.median(each[min(step, len(each)) - 1] for each in self._averages)
        finite = [value for value in values if math.isfinite(value)]
        if not finite:
            return True
        if self.direction == "minimize":
            return min(finite) > median
        return max(finite) < median
