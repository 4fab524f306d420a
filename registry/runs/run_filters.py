"""Filters of lists of runs, as Prefect applies them."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterId,
    FlowRunFilterName,
    FlowRunFilterState,
    FlowRunFilterStateName,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun, StateType

from registry.runs import run_tags, statuses

_IDS_AT_ONCE = 1000  # a parameter of the database's query each
_EARLIEST = datetime.min.replace(tzinfo=UTC)

# A database finds runs in one of these by an index, runs in none of the others only one by one.
ACTIVE = frozenset(StateType) - TERMINAL_STATES


@dataclass(frozen=True)
class RunGroup:
    """Runs that Prefect finds by a tag, and others that belong to them.

    Attributes:
        tags: Runs with one of these tags.
        ids: Further runs, by id.
        labels: The labels that a run of the group has, which Prefect does not filter by.
    """

    tags: tuple[str, ...]
    ids: frozenset[str] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict)

    def has(self, run: FlowRun) -> bool:
        """Whether a run that Prefect found for the group belongs to it."""
        own = run.labels or {}
        return all(own.get(label) == value for label, value in self.labels.items())


@dataclass(frozen=True)
class RunQuery:
    """What is asked of Prefect at once."""

    runs: FlowRunFilter
    flow: str | None = None

    @property
    def flows(self) -> FlowFilter | None:
        """The filter of its flow; None for runs of every flow."""
        return of_flow(self.flow) if self.flow else None


def of_flow(name: str) -> FlowFilter:
    """Return the filter of a flow."""
    return FlowFilter(name=FlowFilterName(any_=[name]))


def in_state(
    types: Iterable[StateType], names: Iterable[str] = (), other_than: Iterable[str] = ()
) -> FlowRunFilterState:
    """Return the filter of Prefect's states.

    Args:
        types: Their types.
        names: Their names; any without.
        other_than: Names that they do not have.
    """
    named, excluded = list(names), list(other_than)
    name = FlowRunFilterStateName(any_=named or None, not_any_=excluded or None)
    return FlowRunFilterState(
        type=FlowRunFilterStateType(any_=sorted(types)),
        name=name if named or excluded else None,
    )


def build(
    flow: str | None = None,
    *,
    states: Collection[str] = (),
    name: str = "",
    tags: Collection[str] = (),
    since: datetime | None = None,
    all_tagged: bool = True,
) -> list[RunQuery]:
    """Build the queries of what Prefect can filter by, no run in two of them.

    Args:
        flow: Only runs of this flow.
        states: As :func:`statuses.read` returns, a query each; Prefect's filters may be coarser.
        name: A part of the name.
        tags: Tags that a run must have.
        since: The earliest time at which a run started or is due.
        all_tagged: Whether every run has the tags of :mod:`registry.runs.run_tags`.
    """
    common = FlowRunFilter(
        name=FlowRunFilterName(like_=name) if name else None,
        tags=FlowRunFilterTags(all_=list(tags)) if tags else None,
        expected_start_time=FlowRunFilterExpectedStartTime(after_=since) if since else None,
    )
    if not states:
        return [RunQuery(common, flow)]
    queries = [_of_word(word, common, flow, all_tagged) for word in sorted(set(states))]
    return [query for query in queries if flow is None or query.flow == flow]


def _of_word(word: str, common: FlowRunFilter, flow: str | None, all_tagged: bool) -> RunQuery:
    """Return the query of a state's word, as narrow as Prefect's filters allow."""
    types = map(StateType, statuses.types_of(word))
    names, tags, of = statuses.names_of(word), common.tags, flow
    if word in statuses.FLOW_OF_FAILURE:
        of = statuses.FLOW_OF_FAILURE[word]
        state = in_state(types, other_than=statuses.FAILED_BY_DETAIL)
    else:
        state = in_state(types, names)
    if word == statuses.CREATE_FAILED and all_tagged:
        tags = FlowRunFilterTags(all_=[*((tags and tags.all_) or []), run_tags.NO_MLFLOW_RUN])
    return RunQuery(common.model_copy(update={"state": state, "tags": tags}), of)


def within(query: RunQuery, group: RunGroup) -> Iterator[RunQuery]:
    """Yield the queries for a query's runs that may be in a group."""
    own = list((query.runs.tags and query.runs.tags.all_) or [])
    for tag in group.tags:
        tags = FlowRunFilterTags(all_=[*own, tag])
        yield RunQuery(query.runs.model_copy(update={"tags": tags}), query.flow)
    left = map(UUID, sorted(group.ids))
    while some := list(itertools.islice(left, _IDS_AT_ONCE)):
        ids = FlowRunFilterId(any_=some)
        yield RunQuery(query.runs.model_copy(update={"id": ids}), query.flow)


def merge_newest_first(scans: Iterable[Iterator[FlowRun]]) -> Iterator[FlowRun]:
    """Merge scans that yield the newest run first, lazily.

    Each run comes once: during a scan one can move to another page, or another query.
    """
    seen: set[UUID] = set()
    newest_first = heapq.merge(
        *scans, key=lambda run: run.expected_start_time or _EARLIEST, reverse=True
    )
    for run in newest_first:
        if run.id not in seen:
            seen.add(run.id)
            yield run
