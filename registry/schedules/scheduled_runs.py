"""The flow runs of schedules' slots: made once each, and asked after."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterIdempotencyKey,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun
from prefect.client.schemas.sorting import FlowRunSort

from infra.errors import BadInputError
from infra.http_status import is_retryable
from infra.prefect_client import prefect_client
from registry import catalogue, history
from registry.runs import runs, statuses
from registry.runs.run_filters import RunGroup
from registry.schedules import schedules
from registry.schedules.slots import Slot

GONE = "DELETED"
_PAGE = 200
_logger = logging.getLogger(__name__)
_OVER = FlowRunFilterState(type=FlowRunFilterStateType(any_=sorted(TERMINAL_STATES)))


def tag(schedule: str) -> str:
    """The tag of the runs that a schedule of this name makes."""
    return f"schedule:{schedule}"


def _once(slot: Slot) -> str:
    """The key of a slot's run, under which a flow has one at most."""
    return f"schedule {slot.schedule} {slot.kind} {slot.slot}"


def group(key: str) -> RunGroup:
    """Return a schedule's runs, whatever it was called when they were created.

    Args:
        key: Its name or id.

    Raises:
        NotFoundError: With the code ``ScheduleUnknown``.
    """
    with catalogue.session() as open_session:
        row = schedules.find(open_session, key)
        schedule, name = row.id, row.name
    details = [deed["detail"] for deed in history.of("schedule", schedule)]
    names = {name, *(str(detail["name"]) for detail in details if detail.get("name"))}
    return RunGroup(tuple(map(tag, sorted(names))), labels={runs.SCHEDULE_LABEL: schedule})


def find(slot: Slot) -> str | None:
    """The run of a slot, of whatever deployment it was created; its id."""
    own = FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=[_once(slot)]))
    with prefect_client() as client:
        found = client.read_flow_runs(flow_run_filter=own, sort=FlowRunSort.ID_DESC, limit=1)
    return str(found[0].id) if found else None


def create(
    slot: Slot, *, schedule: str, deployment: str, parameters: dict[str, Any], user: str
) -> str:
    """Create the run of a slot, or find the one that was created before; its id.

    Args:
        slot: The slot.
        schedule: What its schedule is called.
        deployment: What it is a run of, as ``flow/deployment``.
        parameters: What it is told.
        user: Whose schedule it is.

    Raises:
        NotFoundError: If the deployment is gone.
        BadInputError: With the code ``RunRefused``. What else is raised may pass.
    """
    instant = datetime.fromtimestamp(slot.slot, UTC)
    at = f"{instant:%Y-%m-%dT%H:%M:%SZ}"
    try:
        return runs.submit(
            deployment,
            parameters,
            str(parameters.get("name") or f"{schedule}-{instant:%Y%m%dT%H%M%SZ}"),
            user,
            {runs.SCHEDULE_LABEL: slot.schedule, runs.SLOT_LABEL: at},
            once=_once(slot),
            tags=(tag(schedule), f"slot:{at}"),
            checked=False,
        )
    except httpx.HTTPStatusError as error:
        if is_retryable(error.response.status_code):
            raise
        raise BadInputError(
            f"Prefect refuses the run: {error}", "Fix the schedule's parameters.",
            code="RunRefused",
        ) from error  # fmt: skip


def ended(ids: Collection[str]) -> dict[str, str]:
    """Those of the runs that have ended or are gone, with the word for it."""
    return _words(ids, _OVER)


def states(ids: Sequence[str]) -> dict[str, str]:
    """The words for the present states of the runs, at most of the first 200.

    What is shown of a slot must not depend on Prefect: without an answer there are none.
    """
    try:
        return _words(ids[:_PAGE], None) if ids else {}
    except (httpx.HTTPError, RuntimeError) as error:  # Prefect's client raises either
        _logger.warning("The states of the runs could not be read: %s", error)
        return {}


def _words(ids: Collection[str], states_: FlowRunFilterState | None) -> dict[str, str]:
    """The words for those of the runs in these states, or in any, and for those that are gone."""
    wanted = [UUID(run_id) for run_id in ids]
    words: dict[str, str] = {}
    flows: dict[UUID, str] = {}
    with prefect_client() as client:
        for first in range(0, len(wanted), _PAGE):
            these = FlowRunFilterId(any_=wanted[first : first + _PAGE])
            for run in _read(client, FlowRunFilter(id=these, state=states_)):
                if run.flow_id not in flows:
                    flows[run.flow_id] = client.read_flow(run.flow_id).name
                words[str(run.id)] = statuses.word(
                    flows[run.flow_id], run.state, run.labels or {}, run.run_count or 0
                )
            words |= dict.fromkeys(_gone(client, these), GONE)
    return words


def _gone(client: SyncPrefectClient, these: FlowRunFilterId) -> list[str]:
    """Those that were deleted. They are seldom any, and to count runs is cheap."""
    asked = these.any_ or []
    filtered = FlowRunFilter(id=these)
    if client.count_flow_runs(flow_run_filter=filtered) == len(asked):
        return []
    there = {run.id for run in _read(client, filtered)}
    return [str(run_id) for run_id in asked if run_id not in there]


def _read(client: SyncPrefectClient, filtered: FlowRunFilter) -> list[FlowRun]:
    return client.read_flow_runs(flow_run_filter=filtered, sort=FlowRunSort.ID_DESC, limit=_PAGE)
