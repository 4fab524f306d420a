"""``modelyard runs``."""

from __future__ import annotations

import textwrap
from typing import Annotated

import typer

from flows import submission
from flows.connection import connected
from infra.errors import BadInputError
from modelyard import output, parameters
from modelyard.options import File, Json, Limit, NewName, Pairs
from registry import deletion
from registry.runs import runs
from registry.runs.run_views import RunView
from registry.views import JsonObject
from schedules import views

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Runs of every flow.")

_WAITING_CHARACTERS = 70

Run = Annotated[str, typer.Argument(help="The run's id, or its name.")]


@app.command("list")
def list_(
    flow: Annotated[str | None, typer.Option(help="Only runs of this flow.")] = None,
    schedule: Annotated[
        str | None, typer.Option(help="Only the newest runs of this schedule.")
    ] = None,
    limit: Limit = 50,
    json: Json = False,
) -> None:
    """List the newest runs."""
    with connected():
        ids = None if schedule is None else views.runs_of(schedule, limit)
        found = runs.list_all(flow, limit, ids)
    columns = ("id", "name", "flow", "state", "started", "seconds")
    trials = ("trials", "best") if any(run.tuning for run in found) else ()
    waiting = ("waiting",) if any(run.waiting for run in found) else ()
    shown = found if json else list(map(_for_people, found))
    output.rows(shown, columns + trials + waiting, as_json_=json)


def _for_people(run: RunView) -> JsonObject:
    """Return a run with its state's detail in brackets, and times to the minute."""
    state = f"{run.state} ({run.detail})" if run.detail else run.state
    started = f"{run.started:%Y-%m-%d %H:%M}" if run.started else ""
    counts = run.tuning.trials.to_json() if run.tuning else {}
    trials = ", ".join(f"{count} {group}" for group, count in counts.items() if count)
    # `runs show` has the whole text; a paragraph in each row would hide the table.
    waiting = textwrap.shorten(run.waiting, _WAITING_CHARACTERS, placeholder=" ...")
    changed = {"state": state, "started": started, "trials": trials, "waiting": waiting}
    return {**run.to_json(), **changed}


@app.command()
def show(run: Run, json: Json = False) -> None:
    """Show everything about a run."""
    with connected():
        output.thing(runs.show(run), as_json_=json)


@app.command()
def update(
    run: Run,
    name: NewName = None,
    description: Annotated[str | None, typer.Option(help="A new description.")] = None,
    parameter: Pairs = None,
    json: Json = False,
) -> None:
    """Rename or describe a run; with -p change parameters such as a tuning's limits."""
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
        output.thing(runs.retry(run), as_json_=json)


@app.command()
def copy(run: Run, file: File = None, parameter: Pairs = None, json: Json = False) -> None:
    """Start a new run with the same parameters, changed by -f and -p."""
    with connected(to_workers=True):
        copied = submission.copy(run, parameters.read(file, parameter))
        output.thing(runs.brief(copied), as_json_=json)


@app.command()
def delete(run: Run, json: Json = False) -> None:
    """Delete a run that has ended, and that no model was made from."""
    with connected():
        output.thing(deletion.delete("run", run), as_json_=json)
