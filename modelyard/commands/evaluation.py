"""``modelyard evaluation``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from modelyard import output
from modelyard.connecting import connected
from modelyard.options import Json, Limit
from registry.evaluation_results import ComparedMetricView
from tasks.evaluation import evaluation_records

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Model evaluations; modelyard run evaluate starts one.",
)


@app.command("list")
def list_(limit: Limit = 50, json: Json = False) -> None:
    """List evaluations, newest first."""
    with connected():
        columns = ("name", "model", "task", "state", "started", "id")
        output.rows(evaluation_records.list_all(limit), columns, as_json_=json)


@app.command()
def show(
    evaluation: Annotated[str, typer.Argument(help="Name or id of an evaluation's run.")],
    json: Json = False,
) -> None:
    """Show an evaluation's metrics, also by class and slice, and what became of the records."""
    with connected():
        output.thing(evaluation_records.show(evaluation), as_json_=json)


@app.command()
def compare(
    evaluations: Annotated[
        list[str], typer.Argument(help="Names or ids of the runs; the first one is the baseline.")
    ],
    everything: Annotated[
        bool, typer.Option("--all", help="Show the metrics of each class as well.")
    ] = False,
    json: Json = False,
) -> None:
    """Compare evaluations of the same data, with 95 % intervals of their differences."""
    with connected():
        found = evaluation_records.compare(evaluations)
    if json:
        output.as_json(found)
        return
    names = [one.name for one in found.evaluations]
    rows = [
        _row(metric, one, names)
        for metric, one in found.metrics.items()
        if everything or "/" not in metric
    ]
    output.rows(rows, list(rows[0]), as_json_=False)
    for remark in found.remarks:
        output.notice(remark)


def _row(metric: str, found: ComparedMetricView, names: list[str]) -> dict[str, Any]:
    """A metric as a row of a table: values, and behind each but the first its difference."""
    row: dict[str, Any] = {"metric": metric, names[0]: _number(found.values[0])}
    pairs = zip(names[1:], found.values[1:], found.differences, strict=True)
    for at, (name, value, one) in enumerate(pairs, 1):
        column = name if name not in row else f"{name} ({at})"
        row[column] = _number(value)
        within = "" if one.low is None else f" [{one.low:+.4g}, {one.high:+.4g}]"
        shown = "" if one.difference is None else f"{one.difference:+.4g}{within} "
        row[f"{column} - {names[0]}"] = f"{shown}{one.verdict}"
    return row


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.6g}"
