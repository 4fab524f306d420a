"""The first page: the newest runs of every kind, schedules, models and pipelines.

Each list is one bounded query, so that the page costs the same however much there is. A list whose
source does not answer says so, and the others are shown.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Generic, TypeVar
from urllib.parse import quote, urlencode

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
from registry.runs import labels, statuses
from registry.runs.run_views import RunView
from schedules.views import ScheduleView

_MOST_RUNS, _MOST = 25, 10
_LONGEST_REASON = 100
_LAST_PAGE = 400  # Prefect reads all runs of the pages before one
# What runs of a state are called in a link and for people, and the types of Prefect's states.
_ACTIVE = "active"
_STATES: dict[str, tuple[str, frozenset[str]]] = {
    "": ("All", frozenset()),
    _ACTIVE: ("Active", statuses.UNFINISHED),
    "running": ("Running", statuses.types_of(statuses.RUNNING)),
    "complete": ("Complete", statuses.types_of(statuses.COMPLETE)),
    "failed": ("Failed", statuses.types_of(statuses.FAILED_ELSEWHERE)),
    "stopped": ("Stopped", statuses.types_of(statuses.STOPPED)),
}
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
        said = listing.last_words(run.message) if failed else ""
        reason = listing.shortened(said, _LONGEST_REASON)
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
        made_by: Page of the run that made the newest version; empty where none did.
    """

    name: str
    link: str
    state: str
    version: str
    aliases: str
    description: str
    updated: datetime | None
    made_by: str = ""

    @classmethod
    def from_model(cls, model: RegisteredModel) -> ListedModel:
        """Return the row of a registered model."""
        newest = model_states.newest_version(model)
        described = model.description or (newest.description if newest else "")
        aliases = sorted(model.aliases.items())
        changed = model.last_updated_timestamp
        run = newest.tags.get(labels.FLOW_RUN_TAG, "") if newest else ""
        return cls(
            name=model.name,
            link=connection.mlflow_model_page(model.name),
            state=model_states.model_state(model, newest),
            version=newest.version if newest else "",
            aliases=", ".join(f"{alias} → {version}" for alias, version in aliases),
            description=listing.shortened(described),
            updated=datetime.fromtimestamp(changed / 1000, UTC) if changed else None,
            made_by=f"/runs/{quote(run, safe='')}" if run else "",
        )


@dataclass(frozen=True)
class Choice:
    """Which runs the first page lists, as its address says.

    Attributes:
        kind: Their flow; empty for runs of every flow.
        state: Their state, such as ``failed``; empty for any.
        page: Which of the pages, from 1.
    """

    kind: str = ""
    state: str = ""
    page: int = 1

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> Choice:
        """Read the query of an address.

        Raises:
            NotFoundError: If there are no such runs.
        """
        kind, state, page = (query.get(name, "") for name in ("show", "state", "page"))
        states = [name for name in _STATES if name]
        for what, value, known in (("kind", kind, _KINDS), ("state", state, states)):
            if value and value not in known:
                raise NotFoundError(
                    f"There are no runs of the {what} {value[:60]!r}.",
                    f"Known are {', '.join(known)}.",
                )
        pages = [str(number) for number in range(1, _LAST_PAGE + 1)]
        if page and page not in pages:
            raise NotFoundError(
                f"There is no page {page[:60]!r} of the runs.",
                f"Pages are 1 to {_LAST_PAGE}; modelyard runs list has older runs.",
            )
        return cls(kind, state, int(page or 1))

    def address(self, **changed: str | int) -> str:
        """Return the address of another choice: its first page unless ``page`` is given."""
        other = replace(self, **{"page": 1, **changed})  # type: ignore[arg-type]
        page = str(other.page) if other.page > 1 else ""
        asked = {"show": other.kind, "state": other.state, "page": page}
        given = {name: value for name, value in asked.items() if value}
        return f"/?{urlencode(given)}" if given else "/"

    @property
    def word(self) -> str:
        """The state in lower case, for a sentence; empty for any."""
        return _STATES[self.state][0].lower() if self.state else ""


@dataclass(frozen=True)
class HomeView:
    """The first page.

    Attributes:
        chosen: Which runs are listed.
        kinds: The flows that runs can be listed of.
        states: The states, each with what it is called.
        runs: The newest runs.
        schedules: The schedules that were changed last.
        models: The models that were changed last.
        pipelines: The pipelines that were changed last.
        boards: The TensorBoards that are running on this machine.
    """

    chosen: Choice
    kinds: Sequence[str]
    states: Sequence[tuple[str, str]]
    runs: Listed[ListedRun]
    schedules: Listed[ScheduleView]
    models: Listed[ListedModel]
    pipelines: Listed[UploadedPipeline]
    boards: Sequence[TensorBoard]


async def of(sources: Sources, chosen: Choice) -> HomeView:
    """Return the first page.

    Args:
        sources: The sources.
        chosen: Which runs to list.
    """
    servers = sources.servers

    def newest_runs(limit: int) -> list[ListedRun]:
        _, types = _STATES[chosen.state]
        before = (chosen.page - 1) * _MOST_RUNS
        found = servers.runs(limit, chosen.kind, types=types, after=before)
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
    named = [
        (name, f"{word} ({active})" if name == _ACTIVE and active is not None else word)
        for name, (word, _) in _STATES.items()
    ]
    return HomeView(chosen, _KINDS, named, runs, schedules, models, pipelines, sources.boards())


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
