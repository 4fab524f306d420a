"""What the task benchmark times, as a process of its own: ``python -m benchmarks.noop_tasks N``.

Prints one JSON object: for tasks one after another and all at once, milliseconds per task until
the flow has them all, and until the server has them all on record. The client reports a task in
the background, so the second is what a server can sustain.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import TaskRunSort
from prefect.runtime import flow_run

_WARM_UP = 5
_RECORD_SECONDS = 120.0
_POLL_SECONDS = 0.1
_COMPLETED = TaskRunFilter(
    state=TaskRunFilterState(type=TaskRunFilterStateType(any_=[StateType.COMPLETED]))
)


@task
def noop(number: int) -> int:
    """Do nothing."""
    return number


def _one_after_another(count: int) -> None:
    for number in range(count):
        noop(number)


def _all_at_once(count: int) -> None:
    for future in [noop.submit(number) for number in range(count)]:
        future.result()


def _wait_for_record(flow_run_id: str, count: int) -> None:
    """Wait until the server has ``count`` completed tasks of the run."""
    run = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    deadline = time.monotonic() + _RECORD_SECONDS
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            found = client.read_task_runs(
                flow_run_filter=run,
                task_run_filter=_COMPLETED,
                sort=TaskRunSort.ID_DESC,
                limit=1,
                offset=count - 1,  # so that a look is cheap for the server that is timed
            )
            if found:
                return
            time.sleep(_POLL_SECONDS)
    raise RuntimeError(f"Not all of {count} tasks come on record.")


@flow
def timed(kind: str, count: int) -> tuple[float, float]:
    """Seconds until the flow has ``count`` tasks' results, and until the server has them."""
    began = time.monotonic()
    _KINDS[kind](count)
    had = time.monotonic() - began
    _wait_for_record(str(flow_run.id), count)
    return had, time.monotonic() - began


_KINDS: dict[str, Callable[[int], None]] = {
    "sequential": _one_after_another,
    "parallel": _all_at_once,
}


def main(count: int) -> None:
    """Warm up, then time both."""
    measured = {}
    for kind in _KINDS:
        timed(kind, _WARM_UP)
        had, recorded = timed(kind, count)
        measured[kind] = {"flow": had / count * 1000, "record": recorded / count * 1000}
    print(json.dumps(measured))


if __name__ == "__main__":
    main(int(sys.argv[1]))
