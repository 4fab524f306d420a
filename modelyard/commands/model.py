"""``modelyard model``."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import datetime
from shlex import quote
from typing import Annotated

import typer

from infra.errors import BadInputError
from modelyard import output, parameters
from modelyard.api import models as api
from modelyard.connecting import connected
from modelyard.options import Json, NewName
from registry import deletion
from registry.frameworks import FRAMEWORKS
from registry.models import model_aliases, model_lineage, models
from registry.models.model_references import SCHEME
from registry.models.model_views import ModelVersionView
from registry.views import JsonObject
from serving import model_servers
from tasks.evaluation import evaluation_records

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Registered models: versions, aliases and how they are served.",
)

Name = Annotated[str, typer.Argument(help="Name of the model.")]
Alias = Annotated[str, typer.Argument(help="The alias, such as champion.")]
Number = Annotated[int, typer.Argument(min=1, help="Number of the version.")]
Version = Annotated[int | None, typer.Option(min=1, help="Number of a version.")]
Reason = Annotated[str, typer.Option(help="Reason, recorded in the history.")]
Framework = Annotated[str, typer.Option(help=f"One of {', '.join(FRAMEWORKS)}.")]
FrameworkVersion = Annotated[str, typer.Option(help="Version of the framework.")]
Pairs = Annotated[
    list[str] | None,
    typer.Option(
        "--parameter",
        "-p",
        help="key=value; passed on when the model is served. true, false and numbers are such if "
        "JSON writes them so; all else is text as it is written.",
    ),
]


@app.command()
def create(
    name: Annotated[
        str, typer.Argument(help="Name of the model; with --run, the run's name if left out.")
    ] = "",
    run: Annotated[
        str, typer.Option(help="Training or tuning to create it from, by id or name.")
    ] = "",
    trial: Annotated[
        int | None,
        typer.Option(min=0, help="With a tuning: number of a trial; the best one if left out."),
    ] = None,
    uri: Annotated[str, typer.Option(help="URI of the model's files.")] = "",
    framework: Annotated[
        str,
        typer.Option(
            help=f"One of {', '.join(FRAMEWORKS)}; a run of a provided algorithm knows its own."
        ),
    ] = "",
    framework_version: FrameworkVersion = "",
    description: Annotated[str, typer.Option(help="Description of the model version.")] = "",
    parameter: Pairs = None,
    json: Json = False,
) -> None:
    """Create a model, or its next version, from a training, a tuning or files of your own."""
    with connected():
        made = api.ModelVerbs.create(
            name, run=run, trial=trial, uri=uri, framework=framework,
            framework_version=framework_version, description=description,
            parameters=parameters.as_written(parameter),
        )  # fmt: skip
    output.thing(made, as_json_=json)
    if not json:
        _offer_predictions([made])


def _offer_predictions(versions: Sequence[ModelVersionView]) -> None:
    """Say how to predict with the newest version, unless no batch inference can."""
    for version in [one for one in versions if one.state == "ACTIVE"][:1]:
        with contextlib.suppress(BadInputError):  # what serves it is not known
            server = model_servers.choose(version)
            served = f", served by {server}" if server else ""
            model = quote(version.uri.removeprefix(SCHEME))
            output.notice(
                f"Predict a data set with it{served}: modelyard run batch-inference -p "
                f"model={model} -p input_uri=FOLDER -p output_uri=FOLDER"
            )


@app.command("list")
def list_(json: Json = False) -> None:
    """List every model, with its newest version."""
    with connected():
        columns = (
            "name", "state", "newest_version", "framework", "aliases", "source_uri", "description",
        )  # fmt: skip
        output.rows(models.list_all(), columns, as_json_=json)


@app.command()
def show(name: Name, json: Json = False) -> None:
    """Show a model with its versions, the runs that made them, and its history."""
    with connected():
        found = model_lineage.show(name)
        output.thing(found, as_json_=json)
    if not json:
        _offer_predictions(found.versions)


@app.command()
def update(
    name: Name,
    new_name: NewName = None,
    description: Annotated[
        str | None, typer.Option(help="New description: of the model, or of the --version.")
    ] = None,
    version: Version = None,
    framework: Framework = "",
    framework_version: FrameworkVersion = "",
    parameter: Pairs = None,
    json: Json = False,
) -> None:
    """Rename or describe a model, or set how a version is served."""
    with connected():
        changed = api.ModelVerbs.update(
            name, new_name=new_name, description=description, version=version,
            framework=framework, framework_version=framework_version,
            parameters=parameters.as_written(parameter),
        )  # fmt: skip
    output.thing(changed, as_json_=json)


@app.command()
def alias(
    name: Name, alias: Alias, version: Number, reason: Reason = "", json: Json = False
) -> None:
    """Point an alias at a version."""
    with connected():
        output.thing(model_aliases.point(name, alias, version, reason), as_json_=json)


@app.command()
def promote(
    name: Name,
    version: Number,
    alias: Annotated[str, typer.Option(help="The alias, such as champion.")],
    gate: Annotated[
        list[str] | None,
        typer.Option(
            help="Rule that the version's evaluation must pass, where old is that of the version "
            "that the alias points to: 'roc_auc >= old + 0.01', 'log_loss < old', "
            "'recall/yes > 0.9'. Judged on the lower bound of a paired bootstrap. May be repeated."
        ),
    ] = None,
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Point an alias at a version, if its evaluation passes the gate."""
    with connected():
        done = evaluation_records.promote(name, version, alias, gate or (), reason)
        output.thing(done, as_json_=json)


@app.command()
def unalias(name: Name, alias: Alias, reason: Reason = "", json: Json = False) -> None:
    """Remove an alias."""
    with connected():
        output.thing(model_aliases.drop(name, alias, reason), as_json_=json)


@app.command()
def aliases(
    name: Name,
    alias: Annotated[str | None, typer.Option(help="Only this alias.")] = None,
    at: Annotated[
        str | None,
        typer.Option(
            help="With --alias: show the version that it pointed to at this time (ISO 8601)."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """List moves of a model's aliases, or show where one pointed at a time."""
    if at is not None and alias is None:
        raise BadInputError("--at asks for one alias.", "Give --alias.")
    when = _time(at) if at is not None else None
    with connected():
        if when is not None and alias is not None:
            output.thing(model_aliases.at(name, alias, when), as_json_=json)
            return
        moves = model_aliases.moves(name, alias)
    columns = ("at", "user", "alias", "from", "to", "gate", "why")
    output.rows(moves if json else list(map(_with_verdict, moves)), columns, as_json_=json)


def _with_verdict(move: JsonObject) -> JsonObject:
    """A move with its gate in a line: the rules, and whether they passed."""
    gate = move.get("gate")
    if not gate:
        return move
    rules = ", ".join(one["rule"] for one in gate["rules"])
    return {**move, "gate": f"{'passed' if gate['passed'] else 'refused'}: {rules}"}


def _time(text: str) -> datetime:
    """Return a point in time; without an offset in the local time zone."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError) as error:
        raise BadInputError(
            f"{text[:60]!r} is not a time.", "Write it as 2026-01-31T12:00:00+00:00.",
            code="TimeInvalid",
        ) from error  # fmt: skip


@app.command()
def delete(name: Name, version: Version = None, json: Json = False) -> None:
    """Delete a model, or one of its versions, with the files that Modelyard wrote."""
    with connected():
        output.thing(deletion.delete("model", name, version=version), as_json_=json)
