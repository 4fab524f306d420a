"""How many runs are in which state, counted by Prefect."""

from __future__ import annotations

import collections
from collections.abc import Collection

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import StateType

from infra.prefect_client import prefect_client
from registry.runs import run_filters, run_tags, runs, statuses

_FAILURES = (StateType.FAILED, StateType.CRASHED)


def by_state(tag: str) -> dict[str, int]:
    """Count the runs that have a tag of an experiment, by the reference's words for their states.

    Only runs that are active, and those that were opened once and refused when they were retried,
    are read: of the others Prefect's type and name of the state, and the flow, give the word.
    """
    counts: collections.Counter[str] = collections.Counter()
    with prefect_client() as client:
        for kind in (StateType.COMPLETED, StateType.CANCELLED):
            counts[statuses.BY_TYPE[kind]] = _count(client, tag, run_filters.in_state([kind]))
        counts += _failures(client, tag)
    counts.update(
        run.state
        for run in runs.matching(_filter([tag], run_filters.in_state(run_filters.ACTIVE)))
    )
    return {word: count for word, count in counts.items() if count}


def _failures(client: SyncPrefectClient, tag: str) -> collections.Counter[str]:
    """Count the runs that failed."""
    left = _count(client, tag, run_filters.in_state(_FAILURES))
    counts: collections.Counter[str] = collections.Counter()
    if not left:
        return counts
    own = run_filters.in_state(_FAILURES, other_than=statuses.FAILED_BY_DETAIL)
    for detail, word in statuses.FAILED_BY_DETAIL.items():
        counts[word] = _count(client, tag, run_filters.in_state(_FAILURES, [detail]))
    left -= counts.total()
    for flow, word in statuses.FAILED.items():
        if left:
            counts[word] = _count(client, tag, own, run_filters.of_flow(flow))
            left -= counts[word]
    counts[statuses.FAILED_ELSEWHERE] += left
    # A refusal says so in its message, which Prefect does not filter by.
    for run in runs.matching(_filter([tag, run_tags.NO_MLFLOW_RUN], own)):
        counts[statuses.FAILED.get(run.flow, statuses.FAILED_ELSEWHERE)] -= 1
        counts[run.state] += 1
    return counts


def _filter(tags: Collection[str], state: FlowRunFilterState) -> FlowRunFilter:
    return FlowRunFilter(tags=FlowRunFilterTags(all_=list(tags)), state=state)


def _count(
    client: SyncPrefectClient, tag: str, state: FlowRunFilterState, flows: FlowFilter | None = None
) -> int:
    return client.count_flow_runs(flow_run_filter=_filter([tag], state), flow_filter=flows)
