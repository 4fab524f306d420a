"""``modelyard pipeline graph``."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from infra import connection
from infra import home as homes
from infra.errors import BadInputError, NotFoundError
from modelyard import output
from modelyard.connecting import connected
from modelyard.options import Json
from modelyard.output import console
from pipelines import reading
from pipelines.drawing import building, svg, tree
from pipelines.drawing.model import Box
from pipelines.run_directory import PipelineRunDirectory
from registry import flow_kinds
from registry.pipelines import pipeline_nodes, pipelines
from registry.runs import runs
from tasks.pipelines import request

_FILES = frozenset({".yaml", ".yml", ".json", ".zip"})


@dataclass(frozen=True)
class _Drawn:
    """A graph of a pipeline or a run.

    Attributes:
        root: The graph.
        run: The run's id; empty for a pipeline.
        state: The reference's word for the run's state.
        page: The URL of its page; empty without one.
    """

    root: Box
    run: str = ""
    state: str = ""
    page: str = ""


def graph(
    thing: Annotated[
        str,
        typer.Argument(
            metavar="FILE|NAME|RUN", help="A compiled or an uploaded pipeline, or a run."
        ),
    ],
    svg_file: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the graph as SVG to this file.")
    ] = None,
    json: Json = False,
) -> None:
    """Show the graph of a pipeline or a run: as text, as SVG, and where its page is."""
    if svg_file is not None:
        _check_writable(svg_file)
    drawn = _of_file(thing) if _is_file(thing) else _stored(thing, whole=json and not svg_file)
    now = time.time()
    if svg_file is not None:
        _write(svg_file, svg.write(drawn.root, now=now))
    shown: dict[str, object] = {
        **building.as_data(drawn.root, now),
        **({"flow_run_id": drawn.run, "state": drawn.state} if drawn.run else {}),
        "page": drawn.page,
        "file": str(svg_file) if svg_file is not None else "",
    }
    if json:
        output.as_json(shown)
        return
    if svg_file is None:
        for line in tree.lines(drawn.root, now):
            console.print(line, markup=False)
    else:
        console.print(f"Written: {svg_file}", markup=False)
    if shown["page"]:
        console.print(output.address(str(shown["page"])), markup=False)


def _is_file(thing: str) -> bool:
    return Path(thing).is_file() or Path(thing).suffix.lower() in _FILES


def _of_file(path: str) -> _Drawn:
    return _Drawn(building.draw(request.load(str(Path(path).absolute()))))


def _stored(thing: str, *, whole: bool) -> _Drawn:
    """Return the graph of an uploaded pipeline, or else of a run."""
    with connected():
        try:
            version = pipelines.find(thing)
        except NotFoundError:
            return _of_run(thing, whole=whole)
        root = building.draw(request.load(version.reference))
        path = f"/pipelines/{quote(version.name, safe='')}?version={version.number}"
        return _Drawn(root, page=connection.page(path))


def _of_run(key: str, *, whole: bool) -> _Drawn:
    """Return the graph of a run, by its id, or by its name where only one run has it.

    Raises:
        NotFoundError: If there is none, or it has not begun.
        BadInputError: If it is of another flow.
    """
    found = runs.show(key)
    if found.flow != flow_kinds.PIPELINE_RUN.name:
        raise BadInputError(
            f"The run {found.name} is one of {found.flow}, which has no graph.",
            "modelyard runs list shows the flow of each run.",
            code="NoPipelineRun",
        )
    compiled = PipelineRunDirectory(homes.current().runs / found.id).compiled
    if not compiled.is_file():
        raise NotFoundError(
            f"The run {found.name} has no graph: it is {found.state} and has not begun.",
            "Repeat once it has; modelyard runs show says why it has not.",
            code="GraphMissing",
        )
    rows = pipeline_nodes.in_brief(found.id)
    root = building.draw(reading.read(compiled), rows, over=found.is_final, whole=whole)
    return _Drawn(root, found.id, found.state, connection.page(f"/runs/{found.id}"))


_WRITABLE = "Give the name of a file in a folder that is there and that you may write to."


def _check_writable(path: Path) -> None:
    """Refuse a path that cannot be written, before anything is done.

    Raises:
        BadInputError: With the code ``NotWritable``.
    """
    if path.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise BadInputError(f"{path} cannot be written.", _WRITABLE, code="NotWritable")


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8", errors="replace")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise BadInputError(
            f"{path} cannot be written: {error.strerror}.", _WRITABLE, code="NotWritable"
        ) from None
