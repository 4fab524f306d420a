"""``modelyard run`` and ``modelyard call``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from flows import catalogue, results, submission
from modelyard import output, parameters
from modelyard.connecting import announce_temporary_stack, connected
from modelyard.options import File, Json, Pairs, Watch
from modelyard.run_watch import INTERRUPTED, print_started, state_logged_once, watch
from registry.runs import runs, statuses
from registry.views import JsonObject, View

app = typer.Typer(add_completion=False)

Flow = Annotated[str, typer.Argument(help="Name of the flow, such as train.")]


def _conclude(found: View | JsonObject, state: str, *, json: bool) -> None:
    output.thing(found, as_json_=json)
    if state != statuses.COMPLETE:
        raise typer.Exit(1)


@contextlib.contextmanager
def _interruption_before_explained() -> Iterator[None]:
    """Say at Ctrl-C that no run was seen to start, and exit with the status 130."""
    try:
        yield
    except KeyboardInterrupt:
        output.notice(
            "Interrupted before the run was started. If it was all the same, modelyard runs list "
            "has it."
        )
        raise typer.Exit(INTERRUPTED) from None


@app.command()
def run(
    flow: Flow,
    file: File = None,
    parameter: Pairs = None,
    watch_: Watch = False,
    json: Json = False,
) -> None:
    """Start a flow in its pool, through Prefect."""
    with connected(to_workers=True):
        with _interruption_before_explained():
            started = submission.start(flow, parameters.read_for(flow, file, parameter))
        if watch_:
            ended = watch(started, quiet=json)
            _conclude(ended, ended.state, json=json)
        else:
            print_started(runs.brief(started), as_json_=json)


@app.command()
def call(flow: Flow, file: File = None, parameter: Pairs = None, json: Json = False) -> None:
    """Run a flow in this process, whether or not the stack is up."""
    declared = catalogue.find(flow)
    given = parameters.read_for(flow, file, parameter)
    declared.check_without_stack(given)
    announce_temporary_stack()
    # Stdout is for the result only.
    with contextlib.redirect_stdout(sys.stderr), state_logged_once() as shown:
        state = declared.outcome(given)
    word = statuses.word(flow, state)
    found: JsonObject = {
        "state": word,
        "detail": statuses.detail(state),
        "result": None if state.is_failed() or state.is_crashed() else results.data(state),
    }
    if not state.is_completed():
        problem = results.failure(state)
        error = problem.as_dict() if problem else {"message": statuses.message(state)}
        message = error["message"] if json else shown.without(error["message"])
        found["error"] = {**error, "message": message}
    _conclude(found, word, json=json)
