"""Runs by what people call them: an id, a name, or the beginning of an id."""

from __future__ import annotations

import contextlib
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound

from infra import local_time
from infra.errors import ConflictError, NotFoundError
from registry import experiment_names, id_prefixes
from registry.runs import statuses
from registry.runs.run_views import RunView

_PAGE = 200
_MOST = 50
_MOST_CHOICES = 10
_SLACK = 10  # runs that may begin meanwhile


def find(client: SyncPrefectClient, key: str) -> FlowRun:
    """Return the run by its id, its name, or the beginning of its id, where only one has it.

    Raises:
        NotFoundError: If there is none.
        ConflictError: If there are several.
    """
    with contextlib.suppress(ValueError, ObjectNotFound):
        return client.read_flow_run(UUID(key))
    named = FlowRunFilter(name=FlowRunFilterName(any_=[key]))
    found = client.read_flow_runs(flow_run_filter=named, sort=FlowRunSort.ID_DESC, limit=_PAGE)
    if len(found) > 1:  # one that was refused never had the name
        held = [run for run in found if not statuses.is_refused(run.state)]
        found = held or found
    found = found or _beginning_with(client, key)
    if len(found) > 1:
        common = "are called" if found[0].name == key else "have an id that begins with"
        raise ConflictError(
            f"Several runs {common} {key!r}.",
            "\n".join(["Give the id of one of them:", *_choices(client, found)]),
        )
    if not found:
        raise NotFoundError(
            f"There is no run {key!r}.",
            f"modelyard runs list lists the existing ones. The first {id_prefixes.LEAST} "
            "characters of an id are enough, fewer are not.",
        )
    return found[0]


def _choices(client: SyncPrefectClient, found: list[FlowRun]) -> list[str]:
    """Return a line for each run that a key may mean, the newest first."""
    flows = flow_names(client, found)
    newest = sorted(found, key=lambda run: str(run.created), reverse=True)
    lines, is_several = [], len({run.name for run in found}) > 1
    for run in newest[:_MOST_CHOICES]:
        word = RunView.from_flow_run(run, flows[run.flow_id]).state
        since = run.start_time and f"started {local_time.local(run.start_time)}"
        experiment = run.parameters.get("experiment") or experiment_names.DEFAULT
        called = f"{run.name}  " if is_several else ""
        lines.append(f"  {run.id}  {called}{word}  in {experiment}  {since or 'not started'}")
    more = len(found) - _MOST_CHOICES
    others = "with more of the id" if is_several else "modelyard runs list --name"
    return [*lines, *([f"  and {more} more: {others}"] if more > 0 else [])]


def flow_names(client: SyncPrefectClient, runs: list[FlowRun]) -> dict[UUID, str]:
    """Read the names of the flows of runs, by their ids."""
    return {flow_id: client.read_flow(flow_id).name for flow_id in {run.flow_id for run in runs}}


def _beginning_with(client: SyncPrefectClient, key: str) -> list[FlowRun]:
    """List the runs whose ids begin with a key, at most 50; none if it is no beginning of an id.

    Prefect lists runs by id, so the place in the list is found by bisection: in a history of
    100,000 runs with 17 requests.
    """
    prefix = id_prefixes.parse(key)
    if prefix is None:
        return []
    low, high = 0, client.count_flow_runs()
    while low < high:  # the first run whose id is not above all that begin so
        middle = (low + high) // 2
        page = _page(client, middle, 1)
        if page and str(page[0].id)[: len(prefix)] > prefix:
            low = middle + 1
        else:
            high = middle
    page = _page(client, max(0, low - _SLACK), _MOST + 2 * _SLACK)
    return [run for run in page if str(run.id).startswith(prefix)][:_MOST]


def _page(client: SyncPrefectClient, offset: int, limit: int) -> list[FlowRun]:
    return client.read_flow_runs(sort=FlowRunSort.ID_DESC, offset=offset, limit=limit)
