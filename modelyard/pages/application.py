"""The web process: Modelyard's own pages, behind its door."""

from __future__ import annotations

import functools
import logging
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from sqlalchemy.exc import OperationalError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra import connection
from infra import home as homes
from infra.errors import BadInputError, ConflictError, ModelyardError, NotFoundError, StackError
from modelyard import tensorboards
from modelyard.pages import (
    comparisons,
    downloads,
    graphs,
    home,
    listing,
    logs,
    predictions,
    schedule_facts,
    servers,
)
from modelyard.pages.comparisons import ChosenEvaluations
from modelyard.pages.graphs import Sources
from pipelines.drawing import style, text
from registry.pipelines import pipelines

_logger = logging.getLogger(__name__)

# Foreign text in a page must not run, and other sites must not read the page.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_STATUSES: dict[type[ModelyardError], int] = {
    NotFoundError: 404,
    BadInputError: 400,
    ConflictError: 409,
    StackError: 503,
}


def create() -> ASGIApp:
    """Return the application of the running stack, given by the environment.

    Raises:
        StackError: If it names none.
    """
    endpoints = connection.from_environment()
    if endpoints is None:
        raise StackError("No stack is named.", "It is a part of modelyard up.")
    here = homes.current()
    boards = functools.partial(tensorboards.running, here)
    sources = Sources(here.runs, servers.Servers(endpoints), pipelines.compiled, boards=boards)
    return application(sources)


def application(sources: Sources) -> ASGIApp:
    """The pages."""
    pages = _Pages(sources)
    static = Path(__file__).with_name("static")
    inner = Starlette(
        routes=[
            Route("/", pages.index),
            Route("/ready", _ready),
            Route("/runs/{run}", pages.run),
            Route("/runs/{run}/artifact", pages.artifact),
            Route("/runs/{run}/log", pages.log),
            Route("/runs/{run}/statistics.png", pages.statistics),
            Route("/pipelines/{name}", pages.pipeline),
            Route("/schedules/{schedule}", pages.schedule),
            Route("/evaluations", pages.evaluations),
            Route("/static/states.css", _states),
            Mount("/static", StaticFiles(directory=static)),
        ],
        exception_handlers={
            ModelyardError: pages.refused,
            HTTPException: pages.missing,
            OperationalError: pages.silent,
            Exception: pages.broken,
        },
    )
    return _Guarded(inner)  # the outermost: no answer goes without its headers


class _Guarded:
    """Middleware that sets the headers of every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        await self._app(scope, receive, guarded if scope["type"] == "http" else send)


async def _ready(_: Request) -> Response:
    return PlainTextResponse("ready")


async def _states(_: Request) -> Response:
    return Response(style.SHEET, media_type="text/css")


class _Pages:
    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._templates = Environment(
            loader=PackageLoader("modelyard.pages"), autoescape=True, undefined=StrictUndefined,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        self._templates.filters.update(
            duration=text.duration, parsed=datetime.fromisoformat,
            schedule_page=listing.schedule_page, run_title=listing.title,
        )  # fmt: skip
        self._templates.globals["uis"] = sources.servers.ui_urls

    def _page(self, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        page = self._templates.get_template(template).render(**values)
        # Halves of surrogate pairs, which names may hold, have no place in UTF-8.
        return HTMLResponse(page.encode("utf-8", "replace"), status)

    async def index(self, request: Request) -> Response:
        """List what is newest, even if only one source answers."""
        chosen = home.Choice.from_query(request.query_params)
        found = await home.of(self._sources, chosen)
        return self._page("index.html", home=found)

    async def run(self, request: Request) -> Response:
        """Show a run, with its graph where it has one; 304 if it has not changed."""
        run, asked = request.path_params["run"], dict(request.query_params)
        return await run_in_threadpool(
            self._run, run, asked, request.headers.get("if-none-match", "")
        )

    def _run(self, written: str, asked: dict[str, str], held: str) -> Response:
        run, chosen = graphs.run_id(written), asked.get("node", "")
        if held and held.strip('"') == graphs.tag(self._sources, run, chosen):
            return Response(status_code=304)
        plain = graphs.without_graph(self._sources, run, asked.get("class", ""))
        if plain is not None:
            return self._page("run.html", shown=plain)
        shown = graphs.of_run(self._sources, run, chosen)
        page = self._page("graph.html", shown=shown, base=f"/runs/{run}", chosen=chosen)
        page.headers["ETag"] = f'"{shown.tag}"'
        return page

    async def pipeline(self, request: Request) -> Response:
        """Show the graph of an uploaded pipeline."""
        name, chosen = request.path_params["name"], request.query_params.get("node", "")
        version = request.query_params.get("version")
        shown = await run_in_threadpool(graphs.of_pipeline, self._sources, name, version, chosen)
        return self._page("graph.html", shown=shown, base=listing.page(name), chosen=chosen)

    async def schedule(self, request: Request) -> Response:
        """Show a schedule with its slots and their runs."""
        key = request.path_params["schedule"]
        found = await run_in_threadpool(self._sources.schedule, key)
        shown = await run_in_threadpool(schedule_facts.of, found, self._sources.servers.run)
        return self._page("schedule.html", shown=shown)

    async def evaluations(self, request: Request) -> Response:
        """List the newest evaluations, and compare those that are chosen."""
        asked = request.query_params
        runs = [graphs.run_id(run) for run in asked.getlist("run")]
        chosen = ChosenEvaluations.of(runs, asked.get("class", ""))
        found = await run_in_threadpool(
            comparisons.of, self._sources.servers, self._sources.comparing, chosen
        )
        return self._page("evaluations.html", shown=found, chosen=chosen)

    async def artifact(self, request: Request) -> Response:
        """Download an artifact of a run."""
        run, asked = request.path_params["run"], dict(request.query_params)
        return await run_in_threadpool(self._artifact, run, asked)

    def _artifact(self, run: str, asked: dict[str, str]) -> Response:
        store, name = graphs.artifact(self._sources, graphs.run_id(run), asked)
        return downloads.response(store, name)

    async def log(self, request: Request) -> Response:
        """Show the whole log of a run."""
        run = graphs.run_id(request.path_params["run"])
        return await run_in_threadpool(logs.whole, self._sources.runs, self._sources.servers, run)

    async def statistics(self, request: Request) -> Response:
        """Show the plot of a batch inference's statistics."""
        run = graphs.run_id(request.path_params["run"])
        return await run_in_threadpool(predictions.plot, self._sources.servers, run)

    # What goes wrong

    async def refused(self, _: Request, error: Exception) -> Response:
        """Answer an error that the user can fix."""
        assert isinstance(error, ModelyardError)
        status = next((to for kind, to in _STATUSES.items() if isinstance(error, kind)), 500)
        return self._page("error.html", status, message=error.message, hint=error.hint)

    async def missing(self, _: Request, error: Exception) -> Response:
        """Answer an HTTP error, such as 404."""
        assert isinstance(error, HTTPException)
        known = {404: "There is no such page.", 405: "Pages are only read."}
        message = known.get(error.status_code, str(error.detail))
        hint = "The first page lists the newest runs."
        return self._page("error.html", error.status_code, message=message, hint=hint)

    async def silent(self, _: Request, error: Exception) -> Response:
        """Answer that the catalogue cannot be reached."""
        _logger.warning("The catalogue's database does not answer: %s", error)
        return self._page(
            "error.html", 503, message=listing.SILENT,
            hint="modelyard status shows the parts.",
        )  # fmt: skip

    async def broken(self, request: Request, error: Exception) -> Response:
        """Answer an unexpected error; the log has the traceback."""
        _logger.error("%s cannot be shown", request.url.path, exc_info=error)
        return self._page(
            "error.html", 500, message=f"The page cannot be shown ({type(error).__name__}).",
            hint="modelyard status --logs web says why.",
        )  # fmt: skip
