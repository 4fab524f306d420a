"""``modelyard runs``."""

from __future__ import annotations

import functools
import pkgutil
import string
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from flows import submission
from infra.errors import BadInputError
from modelyard import output, parameters, run_watch, times
from modelyard.api import runs as api
from modelyard.connecting import connected
from modelyard.options import File, Json, Limit, NewName, Pairs
from modelyard.output import console
from registry import deletion
from registry.runs import run_comparison, run_retries, runs, statuses
from registry.runs.run_comparison import RunComparisonView
from registry.runs.run_views import RunView
from registry.views import JsonObject
from tasks import run_logs

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Runs of every flow.")

_WAITING_CHARACTERS = 70
_DRAW = "tuning.plots.metric_curves:draw"  # imports matplotlib, which takes long
_PLOT_KINDS = {"svg", "png"}
_HYPERPARAMETERS = "hyperparameters."

Run = Annotated[str, typer.Argument(help="Id of the run, its first 8 characters, or its name.")]


@app.command("list")
def list_(
    flow: Annotated[str | None, typer.Option(help="Only runs of this flow.")] = None,
    schedule: Annotated[str | None, typer.Option(help="Only runs of this schedule.")] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(
            help="Only runs in this state, such as 'FAIL TRAIN', or Prefect's, such as Failed."
        ),
    ] = None,
    experiment: Annotated[str | None, typer.Option(help="Only runs of this experiment.")] = None,
    name: Annotated[
        str, typer.Option(help="Only runs whose name contains this, ignoring case.")
    ] = "",
    tag: Annotated[
        list[str] | None,
        typer.Option(help="Only runs with this tag in Prefect; all of them if repeated."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="Only runs due or started since 90m, 2h or 3d ago, or a time in ISO 8601."
        ),
    ] = None,
    limit: Limit = 50,
    json: Json = False,
) -> None:
    """List the newest runs; with several filters, those that pass all of them."""
    begin = times.read_since(since) if since else None
    with connected():
        found = api.RunVerbs.list(
            flow, schedule=schedule, experiment=experiment,
            states=state or (), name=name, tags=tag or (),
            since=begin, limit=limit,
        )  # fmt: skip
    seconds = () if output.is_narrow() else ("seconds",)
    columns = ("id", "name", "flow", "state", "started", *seconds)
    trials = ("trials", "best") if any(run.tuning for run in found) else ()
    waiting = ("waiting",) if any(run.waiting for run in found) else ()
    shown = found if json else list(map(_for_people, found))
    output.rows(shown, columns + trials + waiting, as_json_=json)


def _for_people(run: RunView) -> JsonObject:
    """Return a run with its state's detail in brackets, where there is room."""
    has_room = run.detail and not output.is_narrow()
    state = f"{run.state} ({run.detail})" if has_room else run.state
    counts = run.tuning.trials.to_json() if run.tuning else {}
    trials = ", ".join(f"{count} {group}" for group, count in counts.items() if count)
    # `runs show` has the whole text; a paragraph in each row would hide the table.
    waiting = textwrap.shorten(run.waiting, _WAITING_CHARACTERS, placeholder=" ...")
    return {**run.to_json(), "state": state, "trials": trials, "waiting": waiting}


@app.command()
def show(run: Run, json: Json = False) -> None:
    """Show everything about a run."""
    with connected():
        output.thing(runs.show(run), as_json_=json)


@app.command()
def logs(
    run: Run,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print new lines until the run has ended.")
    ] = False,
    json: Json = False,
) -> None:
    """Print a run's log: the script's of a training, of other flows the lines in Prefect.

    With --json a list of lines; with --follow as well, an object for each line, in a line.
    """
    with connected():
        run_id = runs.find(run)
        if json and not follow:
            output.as_json(list(run_logs.read(run_id)))
            return
        with run_watch.interruption_explained(run_id):
            for line in run_logs.follow(run_id) if follow else run_logs.read(run_id):
                output.as_json({"line": line}) if json else output.line(line)


@app.command()
def watch(run: Run, json: Json = False) -> None:
    """Show a run's states, progress and newest metrics until it has ended.

    The exit status is 0 only if it ends COMPLETE.
    """
    with connected():
        ended = run_watch.watch(runs.find(run), quiet=json, log=False)
    output.thing(ended, as_json_=json)
    if ended.state != statuses.COMPLETE:
        raise typer.Exit(1)


@app.command()
def compare(
    run: Annotated[list[str], typer.Argument(help="Two or more runs, by id or name.")],
    plot: Annotated[
        Path | None, typer.Option(help="Draw the metrics' curves to this file: .svg or .png.")
    ] = None,
    json: Json = False,
) -> None:
    """Compare runs: the parameters that differ, and the metrics side by side."""
    kind = _plot_kind(plot)
    with connected():
        found = run_comparison.compare(run)
        curves = run_comparison.curves(found) if plot else {}
    if plot:
        draw = pkgutil.resolve_name(_DRAW)
        _write(plot, draw([one.name for one in found.runs], curves, kind))
    if json:
        output.as_json({**found.to_json(), "plot": plot and str(plot)})
    else:
        _print_comparison(found)
        if plot:
            console.print(f"\nThe metrics' curves are in {plot}", markup=False)


def _plot_kind(plot: Path | None) -> str:
    """Return the format of a plot's file; "" without one."""
    if plot is None:
        return ""
    kind = plot.suffix.lower().removeprefix(".")
    if kind not in _PLOT_KINDS:
        raise BadInputError(
            f"{plot} is neither an SVG nor a PNG.", "Name it FILE.svg or FILE.png.",
            code="PlotInvalid",
        )  # fmt: skip
    if not plot.absolute().parent.is_dir():
        raise BadInputError(
            f"There is no folder {plot.absolute().parent}.", "Give another file: --plot.",
            code="FileNotWritable",
        )  # fmt: skip
    return kind


def _write(file: Path, content: bytes) -> None:
    try:
        file.write_bytes(content)
    except OSError as error:
        raise BadInputError(
            f"{file} cannot be written: {error.strerror}.", "Give another file: --plot.",
            code="FileNotWritable",
        ) from None  # fmt: skip


def _print_comparison(found: RunComparisonView) -> None:
    """Print the runs with a letter each, and tables that have a column for each letter.

    What was tried and what came of it are side by side: hyperparameters, metrics, and then the
    other parameters.
    """
    letters = string.ascii_uppercase[: len(found.runs)]
    rows = [
        {"": letter, **one.to_json(), "duration": times.duration(one.seconds)}
        for letter, one in zip(letters, found.runs, strict=True)
    ]
    output.rows(rows, ("", "id", "name", "state", "duration"), as_json_=False)
    tried = {key: of for key, of in found.parameters.items() if key.startswith(_HYPERPARAMETERS)}
    others = {key: of for key, of in found.parameters.items() if key not in tried}
    if not found.parameters:
        console.print("\nNo parameter differs.")
    _print_sides("parameter", tried, letters)
    if not found.metrics:
        console.print("\nNo metrics.")
    _print_sides("metric", found.metrics, letters)
    _print_sides("parameter", others, letters)


def _print_sides(title: str, values: Mapping[str, Sequence[Any]], letters: str) -> None:
    if values:
        sides = [
            {title: name, **dict(zip(letters, of_runs, strict=True))}
            for name, of_runs in values.items()
        ]
        console.print()
        output.rows(sides, (title, *letters), as_json_=False)


@app.command()
def update(
    run: Run,
    name: NewName = None,
    description: Annotated[str | None, typer.Option(help="New description.")] = None,
    parameter: Pairs = None,
    json: Json = False,
) -> None:
    """Rename or describe a run; with -p change parameters, such as limits before a retry."""
    given = parameters.read(None, parameter)
    if name is None and description is None and not given:
        raise BadInputError("There is nothing to change.", "Give --name, --description or -p.")
    with connected():
        output.thing(submission.update(run, name, description, given), as_json_=json)


@app.command()
def stop(run: Run, json: Json = False) -> None:
    """Stop a run and wait until it has stopped."""
    with connected():
        output.thing(runs.stop(run), as_json_=json)


@app.command()
def retry(run: Run, json: Json = False) -> None:
    """Run a failed or stopped run again; it resumes from its newest checkpoint, if any."""
    with connected(to_workers=True):
        run_watch.print_started(run_retries.retry(run), as_json_=json)


@app.command()
def copy(run: Run, file: File = None, parameter: Pairs = None, json: Json = False) -> None:
    """Start a new run with the same parameters, changed by -f and -p."""
    with connected(to_workers=True):
        changes = functools.partial(parameters.read_for, file=file, pairs=parameter)
        copied = submission.copy(run, changes)
        run_watch.print_started(runs.brief(copied), as_json_=json)


@app.command()
def delete(run: Run, json: Json = False) -> None:
    """Delete a run that has ended, and that no model was made from."""
    with connected():
        output.thing(deletion.delete("run", run), as_json_=json)
