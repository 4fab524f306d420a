"""What runs wait for, as whoever is to start them has said.

It is kept beside their attempts, since Prefect's states are not ours to repeat: a state that is
set once more could come after the one that the run itself has set meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping

from registry.runs import run_attempts

# Types of Prefect's states whose runs have ended. One that has begun may wait for its other nodes.
_OVER = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})


def of(states: Mapping[str, str]) -> dict[str, str]:
    """What runs wait for, in words, by run; without those that wait for nothing.

    Args:
        states: The type of each run's state.
    """
    open_ = [flow_run_id for flow_run_id, state in states.items() if state not in _OVER]
    newest = run_attempts.newest(open_)
    return {flow_run_id: one.waiting for flow_run_id, one in newest.items() if one.waiting}
