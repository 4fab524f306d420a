"""What Kubeflow Pipelines does with a recurring run, upon the slots of this package.

It exists for the comparison alone: its slots depend on what was run before, and without catch-up
on when it is asked.
"""

from __future__ import annotations

from typing import Any

from schedules.cron import read_cron

NEVER = 2**63 - 1


def cron_next(case: dict[str, Any], zone: str) -> int:
    """The next run of a cron expression."""
    if not case["cron"]:
        return NEVER
    expression, start, end = read_cron(case["cron"], zone), _start(case), _end(case)
    found = expression.next(max(_base(case), start))
    if found is None or found > end:
        return NEVER
    if case["catchup"]:
        return found
    latest = expression.latest(min(case["now"], end))
    return found if latest is None else max(found, latest)


def interval_next(case: dict[str, Any]) -> int:
    """The next run of an interval; 0 is 1, a start after the last run is one, phases shift."""
    seconds, base, end = max(case["interval_second"], 1), _base(case), _end(case)
    found = _start(case) if base < _start(case) else base + seconds
    if found > end:
        return NEVER
    if case["catchup"] or case["now"] < found + seconds:
        return found
    return int(min(case["now"], end))


def _base(case: dict[str, Any]) -> int:
    for name in ("last_job_time", "start_time", "default_start_time"):
        if case[name] is not None:
            return int(case[name])
    raise AssertionError(case)


def _start(case: dict[str, Any]) -> int:
    return 0 if case["start_time"] is None else int(case["start_time"])


def _end(case: dict[str, Any]) -> int:
    return NEVER if case["end_time"] is None else int(case["end_time"])
