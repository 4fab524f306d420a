"""The first page: the newest runs of every kind, schedules, models and pipelines.

Each list is one bounded query, so that the page costs the same however much there is. A list whose
source does not answer says so, and the others are shown.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar
from urllib.parse import quote

from sqlalchemy.exc import OperationalError
from starlette.concurrency import run_in_threadpool

from infra import connection
from infra.errors import NotFoundError, StackError
from infra.mlflow import RegisteredModel
from modelyard.pages import listing
from modelyard.pages.graphs import Sources
from modelyard.pages.listing import Ref, UploadedPipeline
from modelyard.tensorboards import TensorBoard
from registry import flow_kinds
from registry.models import model_states
from registry.runs import statuses
from registry.runs.run_views import RunView
from schedules.views import ScheduleView

_MOST_RUNS, _MOST = 25, 10
_LONGEST_REASON = 100
ACTIVE = "active"
_KINDS = tuple(kind.name for kind in flow_kinds.ALL)
_logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Listed(Generic[T]):
    """A bounded list.

    Attributes:
        rows: The newest things.
        more: Whether there are more.
        notice: Why there are none; empty if the source answered.
    """

    rows: Sequence[T] = ()
    more: bool = False
    notice: str = ""


@dataclass(frozen=True)
class ListedRun:
    """A run in the list.

    Attributes:
        run: The run.
        of: Its pipeline; the name is empty where it has none.
        reason: Why it failed, shortened; empty if it has not.
        prefect: Its page in Prefect's UI.
    """

    run: RunView
    of: Ref
    reason: str
    prefect: str

    @classmethod
    def from_run(cls, run: RunView, prefect: str) -> ListedRun:
        """Return the row of a run."""
        failed = statuses.is_failure(run.state)
        reason = listing.shortened(run.message, _LONGEST_REASON) if failed else ""
        return cls(run, listing.run_ref(run), reason, prefect)


@dataclass(frozen=True)
class ListedModel:
    """A model in the list.

    Attributes:
        name: Its name.
        link: Its page in MLflow's UI.
        state: The reference's word for its state.
        version: The number of its newest version; empty without versions.
        aliases: Aliases with the versions that they point to.
        description: Its description, shortened.
        updated: When MLflow last changed it.
    """

    name: str
    link: str
    state: str
    version: str
    aliases: str
    description: str
    updated: datetime | None

    @classmethod
    def from_model(cls, model: RegisteredModel) -> ListedModel:
        """Return the row of a registered model."""
        newest = model_states.newest_version(model)
        described = model.description or (newest.description if newest else "")
        aliases = sorted(model.aliases.items())
        changed = model.last_updated_timestamp
        return cls(
            name=model.name,
            link=connection.mlflow_page(f"models/{quote(model.name, safe='')}"),
            state=model_states.model_state(model, newest),
            version=newest.version if newest else "",
            aliases=", ".join(f"{alias} → {version}" for alias, version in aliases),
            description=listing.shortened(described),
            updated=datetime.fromtimestamp(changed / 1000, UTC) if changed else None,
        )


@dataclass(frozen=True)
class HomeView:
    """The first page.

    Attributes:
        chosen: Which runs are listed: a flow, ``active``, or all if empty.
        kinds: The flows that runs can be listed of.
        runs: The newest runs.
        active: How many runs have not ended; None if Prefect does not answer.
        schedules: The schedules that were changed last.
        models: The models that were changed last.
        pipelines: The pipelines that were changed last.
        boards: The TensorBoards that are running on this machine.
    """

    chosen: str
    kinds: Sequence[str]
    runs: Listed[ListedRun]
    active: int | None
    schedules: Listed[ScheduleView]
    models: Listed[ListedModel]
    pipelines: Listed[UploadedPipeline]
    boards: Sequence[TensorBoard]


async def of(sources: Sources, chosen: str) -> HomeView:
    """Return the first page.

    Args:
        sources: The sources.
        chosen: Which runs to list: a flow, ``active``, or all if empty.

    Raises:
        NotFoundError: If there are no such runs.
    """
    if chosen not in {"", ACTIVE, *_KINDS}:
        raise NotFoundError(
            f"There are no runs of the kind {chosen!r}.",
            f"Kinds are {', '.join(_KINDS)}, and {ACTIVE}.",
        )
    servers = sources.servers
    flow = "" if chosen == ACTIVE else chosen

    def newest_runs(limit: int) -> list[ListedRun]:
        found = servers.runs(limit, flow, active=chosen == ACTIVE)
        return [ListedRun.from_run(run, servers.run_url(run.id)) for run in found]

    def newest_models(limit: int) -> list[ListedModel]:
        return [ListedModel.from_model(model) for model in servers.models(limit)]

    def newest_pipelines(limit: int) -> list[UploadedPipeline]:
        return listing.uploaded(sources.pipelines(limit))

    runs, active, schedules, models, pipelines = await asyncio.gather(
        _listed("", newest_runs, _MOST_RUNS),
        run_in_threadpool(_count, servers.active_count),
        _listed("The schedules", sources.schedules, _MOST),
        _listed("The models", newest_models, _MOST),
        _listed("The uploaded pipelines", newest_pipelines, _MOST),
    )
    return HomeView(chosen, _KINDS, runs, active, schedules, models, pipelines, sources.boards())


async def _listed(what: str, query: Callable[[int], Sequence[T]], most: int) -> Listed[T]:
    """Query a list, with one row too many to see whether there are more."""

    def ask() -> Listed[T]:
        try:
            found = query(most + 1)
        except StackError as error:
            return Listed(notice=f"{error.message} {what} are not shown." if what else str(error))
        except OperationalError as error:
            _logger.warning("%s cannot be listed: %s", what, error)
            return Listed(notice=f"{listing.SILENT} {what} are not shown.")
        return Listed(found[:most], len(found) > most)

    return await run_in_threadpool(ask)


def _count(query: Callable[[], int]) -> int | None:
    try:
        return query()
    except StackError:
        return None
