"""Names of runs, unique among the runs of a flow in an experiment.

MLflow has the names of the runs that have begun, Prefect those of the runs that wait. A run that
a form or a schedule has made is checked when it begins, see :func:`registry.tracking.open_run`.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator

from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterName,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun
from prefect.client.schemas.sorting import FlowRunSort

from infra.errors import ConflictError
from infra.prefect_client import prefect_client
from registry import experiment_names, tracking
from registry.runs import labels

_PAGE = 200  # runs that Prefect is asked for at once


@contextlib.contextmanager
def claiming(flow: str, name: str, experiment: str, flow_run_id: str = "") -> Iterator[None]:
    """Check a name, and hold its lock while a run is created under it or renamed to it.

    Args:
        flow: The flow's name.
        name: The run's name.
        experiment: Its experiment's name.
        flow_run_id: The run; "" before there is one.

    Raises:
        ConflictError: With the code ``NameTaken``.
    """
    with tracking.name_lock(flow, name, experiment):
        # In this order: a run that begins in between is found by the second.
        for run in _active(flow, name):
            in_it = (run.parameters.get("experiment") or experiment_names.DEFAULT) == experiment
            trial = labels.PARENT in (run.labels or {})
            if in_it and not trial and str(run.id) != flow_run_id:
                raise tracking.name_taken(name, experiment, str(run.id))
        tracking.check_name(flow, name, experiment, flow_run_id)
        yield


@contextlib.contextmanager
def claiming_next(flow: str, base: str, experiment: str) -> Iterator[str]:
    """Claim the next free one of BASE-1, BASE-2 and so on, as :func:`claiming` does.

    Yields:
        The name.
    """
    with contextlib.ExitStack() as held:
        for number in itertools.count(_newest_number(flow, base) + 1):
            name = f"{base}-{number}"
            with contextlib.suppress(ConflictError):
                held.enter_context(claiming(flow, name, experiment))
                break
        yield name


def _newest_number(flow: str, base: str) -> int:
    """Return the number of the newest run of the flow that has one after this base; 0 without."""
    numbered = re.compile(rf"{re.escape(base)}-([1-9][0-9]{{0,8}})", re.ASCII)
    with prefect_client() as client:
        for offset in itertools.count(0, _PAGE):
            page = client.read_flow_runs(
                flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])),
                flow_run_filter=FlowRunFilter(name=FlowRunFilterName(like_=f"{base}-")),
                sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=_PAGE, offset=offset,
            )  # fmt: skip
            found = [int(named[1]) for run in page if (named := numbered.fullmatch(run.name))]
            if found or len(page) < _PAGE:
                return max(found, default=0)
    raise AssertionError


def _active(flow: str, name: str) -> list[FlowRun]:
    """Runs of the flow that have the name and have not ended."""
    active = FlowRunFilterState(type=FlowRunFilterStateType(not_any_=list(TERMINAL_STATES)))
    with prefect_client() as client:
        return client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])),
            flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[name]), state=active),
        )
