"""What runs wait for, as reported by the workers that are to start them.

Kept beside the attempts: a state set in Prefect again for it could overwrite one that the run has
set itself in between.
"""

from __future__ import annotations

from collections.abc import Mapping

from registry.runs import run_attempts, statuses


def of(states: Mapping[str, str]) -> dict[str, str]:
    """Return what runs wait for, by run, without those that do not wait.

    A running one may wait for its other nodes.

    Args:
        states: The type of each run's state.
    """
    open_ = [flow_run_id for flow_run_id, state in states.items() if state not in statuses.FINAL]
    newest = run_attempts.newest(open_)
    return {flow_run_id: one.waiting for flow_run_id, one in newest.items() if one.waiting}
