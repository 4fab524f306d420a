"""``modelyard runs``."""

from __future__ import annotations

import textwrap
from typing import Annotated, Any

import typer

from flows import submission
from flows.connection import connected
from infra.errors import BadInputError
from modelyard import output, parameters
from modelyard.options import File, Json, Limit, NewName, Pairs
from registry import deletion
from registry.runs import runs
from schedules import views

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Runs of every flow.")

_WAITING_CHARACTERS = 70

Run = Annotated[str, typer.Argument(help="The run's id, or its name.")]


@app.command("list")
def list_(
    flow: Annotated[str | None, typer.Option(help="Only runs of this flow.")] = None,
    schedule: Annotated[
        str | None, typer.Option(help="Only the last runs that this schedule has made.")
    ] = None,
    limit: Limit = 50,
    json: Json = False,
) -> None:
    """The newest runs."""
    with connected():
        ids = None if schedule is None else views.runs_of(schedule, limit)
        found = runs.list_all(flow, limit, ids)
    tuned = any("trials" in row for row in found)
    columns = ("id", "name", "flow", "state", "started", "seconds")
    trials = ("trials", "best") if tuned else ()
    waits = ("waiting",) if any("waiting" in row for row in found) else ()
    shown = found if json else list(map(_brief, found))
    output.rows(shown, columns + trials + waits, as_json_=json)


def _brief(row: dict[str, Any]) -> dict[str, Any]:
    """A run as people read it: its state as the reference writes it, its time to the minute."""
    detail = f" ({row['detail']})" if row["detail"] else ""
    started = (row["started"] or "")[:16].replace("T", " ")
    counts = row.get("trials", {})
    trials = ", ".join(f"{count} {group}" for group, count in counts.items() if count)
    # Whole it is in `runs show`; a paragraph in each row would hide the table.
    waiting = textwrap.shorten(row.get("waiting", ""), _WAITING_CHARACTERS, placeholder=" ...")
    state = row["state"] + detail
    return {**row, "state": state, "started": started, "trials": trials, "waiting": waiting}


@app.command()
def show(run: Run, json: Json = False) -> None:
    """Everything about a run."""
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
    """Rename or describe a run; with -p change what it heeds, such as a tuning's limits."""
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
    """Delete a run that has ended and made no model."""
    with connected():
        output.thing(deletion.delete("run", run), as_json_=json)
