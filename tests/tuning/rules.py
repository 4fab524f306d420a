"""Rules of early stopping, asked and told."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from hypothesis import strategies as st

from tuning.early_stopping import StoppingRule, bracket_of
from tuning.trials import ACTIVE, TrialState

ENDED = sorted(set(TrialState) - ACTIVE)
OF_BRACKET = [[n for n in range(200) if bracket_of(n) == bracket] for bracket in range(3)]

DIRECTIONS = st.sampled_from(["minimize", "maximize"])
# Few different numbers, so that there are ties.
REPORTS = st.lists(
    st.sampled_from([0.0, 1.0, 2.0, 3.0, math.nan, math.inf, -math.inf]) | st.floats(-10, 10),
    max_size=40,
)


def live(rule: StoppingRule, number: int, reports: Sequence[float]) -> int | None:
    """At which report a trial is stopped that is judged at each one."""
    for count in range(1, len(reports) + 1):
        if rule.stops(number, tuple(reports[:count])):
            return count
    return None


def tell(rule: StoppingRule, trials: Iterable[Sequence[float]], first: int = 100) -> None:
    """Tell of trials that have succeeded."""
    for number, reports in enumerate(trials, first):
        rule.ended(number, TrialState.SUCCEEDED, reports)
