"""Filters of lists of runs, as Prefect applies them."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from uuid import UUID

from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterId,
    FlowRunFilterName,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType

from infra.errors import BadInputError
from registry.runs import statuses

_IDS_AT_ONCE = 1000  # a parameter of the database's query each
_EARLIEST = datetime.min.replace(tzinfo=UTC)


def build(
    *, states: Collection[str], name: str, tags: Collection[str], since: datetime | None
) -> FlowRunFilter:
    """Build the filter of what Prefect can filter by.

    Args:
        states: The reference's words; Prefect filters by their types only, which is coarser.
        name: A part of the name.
        tags: Tags that a run must have.
        since: The earliest time at which a run started or is due.

    Raises:
        BadInputError: With the code ``StateUnknown``.
    """
    for word in states:
        if word not in statuses.words():
            raise BadInputError(
                f"{word!r} is not a state of a run.",
                f"Give one of: {', '.join(statuses.words())}.",
                code="StateUnknown",
            )
    types = sorted({StateType(kind) for word in states for kind in statuses.types_of(word)})
    kind = FlowRunFilterStateType(any_=types)
    return FlowRunFilter(
        state=FlowRunFilterState(type=kind) if states else None,
        name=FlowRunFilterName(like_=name) if name else None,
        tags=FlowRunFilterTags(all_=list(tags)) if tags else None,
        expected_start_time=FlowRunFilterExpectedStartTime(after_=since) if since else None,
    )


def split_by_ids(wanted: FlowRunFilter, ids: Iterable[str] | None) -> Iterator[FlowRunFilter]:
    """Yield ``wanted`` for as many of the ids as a request may have; as it is without ids."""
    if ids is None:
        yield wanted
        return
    left = map(UUID, ids)
    while some := list(itertools.islice(left, _IDS_AT_ONCE)):
        yield wanted.model_copy(update={"id": FlowRunFilterId(any_=some)})


def merge_newest_first(scans: Iterable[Iterator[FlowRun]]) -> Iterator[FlowRun]:
    """Merge scans that yield the newest run first, lazily."""
    return heapq.merge(*scans, key=lambda run: run.expected_start_time or _EARLIEST, reverse=True)
